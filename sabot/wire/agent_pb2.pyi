from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Versions(_message.Message):
    __slots__ = ("sabot", "pyarrow_major", "python", "protocol")
    SABOT_FIELD_NUMBER: _ClassVar[int]
    PYARROW_MAJOR_FIELD_NUMBER: _ClassVar[int]
    PYTHON_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    sabot: str
    pyarrow_major: int
    python: str
    protocol: int
    def __init__(self, sabot: _Optional[str] = ..., pyarrow_major: _Optional[int] = ..., python: _Optional[str] = ..., protocol: _Optional[int] = ...) -> None: ...

class Agent(_message.Message):
    __slots__ = ("agent_id", "incarnation", "control_address", "flight_address", "http_address", "slots", "draining")
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    CONTROL_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    FLIGHT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    HTTP_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    agent_id: str
    incarnation: int
    control_address: str
    flight_address: str
    http_address: str
    slots: int
    draining: bool
    def __init__(self, agent_id: _Optional[str] = ..., incarnation: _Optional[int] = ..., control_address: _Optional[str] = ..., flight_address: _Optional[str] = ..., http_address: _Optional[str] = ..., slots: _Optional[int] = ..., draining: bool = ...) -> None: ...

class Failure(_message.Message):
    __slots__ = ("type", "message", "pickled")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    PICKLED_FIELD_NUMBER: _ClassVar[int]
    type: str
    message: str
    pickled: bytes
    def __init__(self, type: _Optional[str] = ..., message: _Optional[str] = ..., pickled: _Optional[bytes] = ...) -> None: ...

class HelloRequest(_message.Message):
    __slots__ = ("versions",)
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    versions: Versions
    def __init__(self, versions: _Optional[_Union[Versions, _Mapping]] = ...) -> None: ...

class HelloReply(_message.Message):
    __slots__ = ("versions", "agent", "members", "broadcast_bytes_max", "peer_deadline_s")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    BROADCAST_BYTES_MAX_FIELD_NUMBER: _ClassVar[int]
    PEER_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    versions: Versions
    agent: Agent
    members: _containers.RepeatedCompositeFieldContainer[Agent]
    broadcast_bytes_max: int
    peer_deadline_s: float
    def __init__(self, versions: _Optional[_Union[Versions, _Mapping]] = ..., agent: _Optional[_Union[Agent, _Mapping]] = ..., members: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., broadcast_bytes_max: _Optional[int] = ..., peer_deadline_s: _Optional[float] = ...) -> None: ...

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("agent", "versions", "uptime_s", "insecure", "resident_bytes", "jobs_running", "tasks_running", "queue_depth", "state_dir", "stored_bytes")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    UPTIME_S_FIELD_NUMBER: _ClassVar[int]
    INSECURE_FIELD_NUMBER: _ClassVar[int]
    RESIDENT_BYTES_FIELD_NUMBER: _ClassVar[int]
    JOBS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    TASKS_RUNNING_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    STATE_DIR_FIELD_NUMBER: _ClassVar[int]
    STORED_BYTES_FIELD_NUMBER: _ClassVar[int]
    agent: Agent
    versions: Versions
    uptime_s: float
    insecure: bool
    resident_bytes: int
    jobs_running: int
    tasks_running: int
    queue_depth: int
    state_dir: str
    stored_bytes: int
    def __init__(self, agent: _Optional[_Union[Agent, _Mapping]] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., uptime_s: _Optional[float] = ..., insecure: bool = ..., resident_bytes: _Optional[int] = ..., jobs_running: _Optional[int] = ..., tasks_running: _Optional[int] = ..., queue_depth: _Optional[int] = ..., state_dir: _Optional[str] = ..., stored_bytes: _Optional[int] = ...) -> None: ...

class ListAgentsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListAgentsReply(_message.Message):
    __slots__ = ("agents",)
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    def __init__(self, agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ...) -> None: ...

class SlotStats(_message.Message):
    __slots__ = ("slot_id", "busy", "morsels_processed", "local_morsels", "network_morsels", "stolen_morsels", "total_processing_time_us", "idle_us", "busy_us", "gil_wait_us")
    SLOT_ID_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    MORSELS_PROCESSED_FIELD_NUMBER: _ClassVar[int]
    LOCAL_MORSELS_FIELD_NUMBER: _ClassVar[int]
    NETWORK_MORSELS_FIELD_NUMBER: _ClassVar[int]
    STOLEN_MORSELS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_PROCESSING_TIME_US_FIELD_NUMBER: _ClassVar[int]
    IDLE_US_FIELD_NUMBER: _ClassVar[int]
    BUSY_US_FIELD_NUMBER: _ClassVar[int]
    GIL_WAIT_US_FIELD_NUMBER: _ClassVar[int]
    slot_id: int
    busy: bool
    morsels_processed: int
    local_morsels: int
    network_morsels: int
    stolen_morsels: int
    total_processing_time_us: int
    idle_us: int
    busy_us: int
    gil_wait_us: int
    def __init__(self, slot_id: _Optional[int] = ..., busy: bool = ..., morsels_processed: _Optional[int] = ..., local_morsels: _Optional[int] = ..., network_morsels: _Optional[int] = ..., stolen_morsels: _Optional[int] = ..., total_processing_time_us: _Optional[int] = ..., idle_us: _Optional[int] = ..., busy_us: _Optional[int] = ..., gil_wait_us: _Optional[int] = ...) -> None: ...

class SlotsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SetSlotsRequest(_message.Message):
    __slots__ = ("num_slots",)
    NUM_SLOTS_FIELD_NUMBER: _ClassVar[int]
    num_slots: int
    def __init__(self, num_slots: _Optional[int] = ...) -> None: ...

class SlotsReply(_message.Message):
    __slots__ = ("num_slots", "available_slots", "queue_depth", "slots")
    NUM_SLOTS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_SLOTS_FIELD_NUMBER: _ClassVar[int]
    QUEUE_DEPTH_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    num_slots: int
    available_slots: int
    queue_depth: int
    slots: _containers.RepeatedCompositeFieldContainer[SlotStats]
    def __init__(self, num_slots: _Optional[int] = ..., available_slots: _Optional[int] = ..., queue_depth: _Optional[int] = ..., slots: _Optional[_Iterable[_Union[SlotStats, _Mapping]]] = ...) -> None: ...

class TimelineRequest(_message.Message):
    __slots__ = ("morsels_max",)
    MORSELS_MAX_FIELD_NUMBER: _ClassVar[int]
    morsels_max: int
    def __init__(self, morsels_max: _Optional[int] = ...) -> None: ...

class TimelineReply(_message.Message):
    __slots__ = ("arrow_stream",)
    ARROW_STREAM_FIELD_NUMBER: _ClassVar[int]
    arrow_stream: bytes
    def __init__(self, arrow_stream: _Optional[bytes] = ...) -> None: ...

class StopRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StopReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("agent", "versions", "forwarded")
    AGENT_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    FORWARDED_FIELD_NUMBER: _ClassVar[int]
    agent: Agent
    versions: Versions
    forwarded: bool
    def __init__(self, agent: _Optional[_Union[Agent, _Mapping]] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., forwarded: bool = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("members",)
    MEMBERS_FIELD_NUMBER: _ClassVar[int]
    members: _containers.RepeatedCompositeFieldContainer[Agent]
    def __init__(self, members: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ...) -> None: ...

class LeaveRequest(_message.Message):
    __slots__ = ("agent",)
    AGENT_FIELD_NUMBER: _ClassVar[int]
    agent: Agent
    def __init__(self, agent: _Optional[_Union[Agent, _Mapping]] = ...) -> None: ...

class LeaveReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SourceFile(_message.Message):
    __slots__ = ("path", "size_bytes", "modified_ns", "row_group_rows", "row_group_bytes", "etag", "cut_at_lines")
    PATH_FIELD_NUMBER: _ClassVar[int]
    SIZE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MODIFIED_NS_FIELD_NUMBER: _ClassVar[int]
    ROW_GROUP_ROWS_FIELD_NUMBER: _ClassVar[int]
    ROW_GROUP_BYTES_FIELD_NUMBER: _ClassVar[int]
    ETAG_FIELD_NUMBER: _ClassVar[int]
    CUT_AT_LINES_FIELD_NUMBER: _ClassVar[int]
    path: str
    size_bytes: int
    modified_ns: int
    row_group_rows: _containers.RepeatedScalarFieldContainer[int]
    row_group_bytes: _containers.RepeatedScalarFieldContainer[int]
    etag: str
    cut_at_lines: bool
    def __init__(self, path: _Optional[str] = ..., size_bytes: _Optional[int] = ..., modified_ns: _Optional[int] = ..., row_group_rows: _Optional[_Iterable[int]] = ..., row_group_bytes: _Optional[_Iterable[int]] = ..., etag: _Optional[str] = ..., cut_at_lines: bool = ...) -> None: ...

class DescribeSourceRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    def __init__(self, request: _Optional[bytes] = ...) -> None: ...

class DescribeSourceReply(_message.Message):
    __slots__ = ("schema", "files", "partitions", "filesystem", "column_widths")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    FILES_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    FILESYSTEM_FIELD_NUMBER: _ClassVar[int]
    COLUMN_WIDTHS_FIELD_NUMBER: _ClassVar[int]
    schema: bytes
    files: _containers.RepeatedCompositeFieldContainer[SourceFile]
    partitions: bytes
    filesystem: bytes
    column_widths: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, schema: _Optional[bytes] = ..., files: _Optional[_Iterable[_Union[SourceFile, _Mapping]]] = ..., partitions: _Optional[bytes] = ..., filesystem: _Optional[bytes] = ..., column_widths: _Optional[_Iterable[float]] = ...) -> None: ...

class PruneSourceRequest(_message.Message):
    __slots__ = ("request",)
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    def __init__(self, request: _Optional[bytes] = ...) -> None: ...

class PruneSourceReply(_message.Message):
    __slots__ = ("files",)
    FILES_FIELD_NUMBER: _ClassVar[int]
    files: _containers.RepeatedCompositeFieldContainer[FileLeft]
    def __init__(self, files: _Optional[_Iterable[_Union[FileLeft, _Mapping]]] = ...) -> None: ...

class FileLeft(_message.Message):
    __slots__ = ("whole", "row_groups")
    WHOLE_FIELD_NUMBER: _ClassVar[int]
    ROW_GROUPS_FIELD_NUMBER: _ClassVar[int]
    whole: bool
    row_groups: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, whole: bool = ..., row_groups: _Optional[_Iterable[int]] = ...) -> None: ...

class SeePathRequest(_message.Message):
    __slots__ = ("path", "filesystem")
    PATH_FIELD_NUMBER: _ClassVar[int]
    FILESYSTEM_FIELD_NUMBER: _ClassVar[int]
    path: str
    filesystem: bytes
    def __init__(self, path: _Optional[str] = ..., filesystem: _Optional[bytes] = ...) -> None: ...

class SeePathReply(_message.Message):
    __slots__ = ("seen",)
    SEEN_FIELD_NUMBER: _ClassVar[int]
    seen: bool
    def __init__(self, seen: bool = ...) -> None: ...

class LearnSchemaRequest(_message.Message):
    __slots__ = ("name", "function", "schema", "timeout_s", "module_names", "modules")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FUNCTION_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    TIMEOUT_S_FIELD_NUMBER: _ClassVar[int]
    MODULE_NAMES_FIELD_NUMBER: _ClassVar[int]
    MODULES_FIELD_NUMBER: _ClassVar[int]
    name: str
    function: bytes
    schema: bytes
    timeout_s: float
    module_names: _containers.RepeatedScalarFieldContainer[str]
    modules: bytes
    def __init__(self, name: _Optional[str] = ..., function: _Optional[bytes] = ..., schema: _Optional[bytes] = ..., timeout_s: _Optional[float] = ..., module_names: _Optional[_Iterable[str]] = ..., modules: _Optional[bytes] = ...) -> None: ...

class LearnSchemaReply(_message.Message):
    __slots__ = ("schema", "failure")
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    schema: bytes
    failure: Failure
    def __init__(self, schema: _Optional[bytes] = ..., failure: _Optional[_Union[Failure, _Mapping]] = ...) -> None: ...

class SubmitJobRequest(_message.Message):
    __slots__ = ("job_id", "plan", "versions", "epoch", "agents")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    plan: bytes
    versions: Versions
    epoch: int
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    def __init__(self, job_id: _Optional[str] = ..., plan: _Optional[bytes] = ..., versions: _Optional[_Union[Versions, _Mapping]] = ..., epoch: _Optional[int] = ..., agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ...) -> None: ...

class JobEvent(_message.Message):
    __slots__ = ("accepted", "progress", "finished", "failed", "queued", "publish")
    ACCEPTED_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    FINISHED_FIELD_NUMBER: _ClassVar[int]
    FAILED_FIELD_NUMBER: _ClassVar[int]
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    accepted: JobAccepted
    progress: JobProgress
    finished: JobFinished
    failed: Failure
    queued: JobQueued
    publish: JobPublish
    def __init__(self, accepted: _Optional[_Union[JobAccepted, _Mapping]] = ..., progress: _Optional[_Union[JobProgress, _Mapping]] = ..., finished: _Optional[_Union[JobFinished, _Mapping]] = ..., failed: _Optional[_Union[Failure, _Mapping]] = ..., queued: _Optional[_Union[JobQueued, _Mapping]] = ..., publish: _Optional[_Union[JobPublish, _Mapping]] = ...) -> None: ...

class JobPublish(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JobQueued(_message.Message):
    __slots__ = ("jobs_ahead",)
    JOBS_AHEAD_FIELD_NUMBER: _ClassVar[int]
    jobs_ahead: int
    def __init__(self, jobs_ahead: _Optional[int] = ...) -> None: ...

class JobAccepted(_message.Message):
    __slots__ = ("agents", "peer_deadline_s")
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    PEER_DEADLINE_S_FIELD_NUMBER: _ClassVar[int]
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    peer_deadline_s: float
    def __init__(self, agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., peer_deadline_s: _Optional[float] = ...) -> None: ...

class StageProgress(_message.Message):
    __slots__ = ("stage_id", "label", "tasks_total", "tasks_done", "rows_out", "wire_bytes", "tasks_redone", "second_attempts", "rows_in", "local_bytes", "elapsed_s", "task_s", "slots_used", "spilled_bytes", "rows_quarantined", "skew")
    STAGE_ID_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    TASKS_TOTAL_FIELD_NUMBER: _ClassVar[int]
    TASKS_DONE_FIELD_NUMBER: _ClassVar[int]
    ROWS_OUT_FIELD_NUMBER: _ClassVar[int]
    WIRE_BYTES_FIELD_NUMBER: _ClassVar[int]
    TASKS_REDONE_FIELD_NUMBER: _ClassVar[int]
    SECOND_ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    ROWS_IN_FIELD_NUMBER: _ClassVar[int]
    LOCAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    TASK_S_FIELD_NUMBER: _ClassVar[int]
    SLOTS_USED_FIELD_NUMBER: _ClassVar[int]
    SPILLED_BYTES_FIELD_NUMBER: _ClassVar[int]
    ROWS_QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    SKEW_FIELD_NUMBER: _ClassVar[int]
    stage_id: int
    label: str
    tasks_total: int
    tasks_done: int
    rows_out: int
    wire_bytes: int
    tasks_redone: int
    second_attempts: int
    rows_in: int
    local_bytes: int
    elapsed_s: float
    task_s: float
    slots_used: int
    spilled_bytes: int
    rows_quarantined: int
    skew: float
    def __init__(self, stage_id: _Optional[int] = ..., label: _Optional[str] = ..., tasks_total: _Optional[int] = ..., tasks_done: _Optional[int] = ..., rows_out: _Optional[int] = ..., wire_bytes: _Optional[int] = ..., tasks_redone: _Optional[int] = ..., second_attempts: _Optional[int] = ..., rows_in: _Optional[int] = ..., local_bytes: _Optional[int] = ..., elapsed_s: _Optional[float] = ..., task_s: _Optional[float] = ..., slots_used: _Optional[int] = ..., spilled_bytes: _Optional[int] = ..., rows_quarantined: _Optional[int] = ..., skew: _Optional[float] = ...) -> None: ...

class JobProgress(_message.Message):
    __slots__ = ("stages",)
    STAGES_FIELD_NUMBER: _ClassVar[int]
    stages: _containers.RepeatedCompositeFieldContainer[StageProgress]
    def __init__(self, stages: _Optional[_Iterable[_Union[StageProgress, _Mapping]]] = ...) -> None: ...

class ResultPartition(_message.Message):
    __slots__ = ("partition", "flight_address", "ticket", "rows", "content_sum", "agent_id")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    FLIGHT_ADDRESS_FIELD_NUMBER: _ClassVar[int]
    TICKET_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_SUM_FIELD_NUMBER: _ClassVar[int]
    AGENT_ID_FIELD_NUMBER: _ClassVar[int]
    partition: int
    flight_address: str
    ticket: str
    rows: int
    content_sum: int
    agent_id: str
    def __init__(self, partition: _Optional[int] = ..., flight_address: _Optional[str] = ..., ticket: _Optional[str] = ..., rows: _Optional[int] = ..., content_sum: _Optional[int] = ..., agent_id: _Optional[str] = ...) -> None: ...

class ShuffleReceipt(_message.Message):
    __slots__ = ("shuffle_id", "stage_id", "num_partitions", "rows_in", "rows_out", "sum_in", "sum_out", "wire_bytes", "local_bytes", "partial", "copies", "sum_copies", "bytes_in", "bytes_out", "bytes_copies", "partitions")
    SHUFFLE_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_ID_FIELD_NUMBER: _ClassVar[int]
    NUM_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    ROWS_IN_FIELD_NUMBER: _ClassVar[int]
    ROWS_OUT_FIELD_NUMBER: _ClassVar[int]
    SUM_IN_FIELD_NUMBER: _ClassVar[int]
    SUM_OUT_FIELD_NUMBER: _ClassVar[int]
    WIRE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOCAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    SUM_COPIES_FIELD_NUMBER: _ClassVar[int]
    BYTES_IN_FIELD_NUMBER: _ClassVar[int]
    BYTES_OUT_FIELD_NUMBER: _ClassVar[int]
    BYTES_COPIES_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    shuffle_id: str
    stage_id: int
    num_partitions: int
    rows_in: int
    rows_out: int
    sum_in: int
    sum_out: int
    wire_bytes: int
    local_bytes: int
    partial: bool
    copies: int
    sum_copies: int
    bytes_in: int
    bytes_out: int
    bytes_copies: int
    partitions: _containers.RepeatedCompositeFieldContainer[PartitionSum]
    def __init__(self, shuffle_id: _Optional[str] = ..., stage_id: _Optional[int] = ..., num_partitions: _Optional[int] = ..., rows_in: _Optional[int] = ..., rows_out: _Optional[int] = ..., sum_in: _Optional[int] = ..., sum_out: _Optional[int] = ..., wire_bytes: _Optional[int] = ..., local_bytes: _Optional[int] = ..., partial: bool = ..., copies: _Optional[int] = ..., sum_copies: _Optional[int] = ..., bytes_in: _Optional[int] = ..., bytes_out: _Optional[int] = ..., bytes_copies: _Optional[int] = ..., partitions: _Optional[_Iterable[_Union[PartitionSum, _Mapping]]] = ...) -> None: ...

class JobFinished(_message.Message):
    __slots__ = ("partitions", "shuffles", "stages", "elapsed_s", "schema", "agents_lost", "quarantined", "agents_joined")
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    SHUFFLES_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    SCHEMA_FIELD_NUMBER: _ClassVar[int]
    AGENTS_LOST_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    AGENTS_JOINED_FIELD_NUMBER: _ClassVar[int]
    partitions: _containers.RepeatedCompositeFieldContainer[ResultPartition]
    shuffles: _containers.RepeatedCompositeFieldContainer[ShuffleReceipt]
    stages: _containers.RepeatedCompositeFieldContainer[StageProgress]
    elapsed_s: float
    schema: bytes
    agents_lost: _containers.RepeatedScalarFieldContainer[str]
    quarantined: _containers.RepeatedCompositeFieldContainer[Quarantined]
    agents_joined: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, partitions: _Optional[_Iterable[_Union[ResultPartition, _Mapping]]] = ..., shuffles: _Optional[_Iterable[_Union[ShuffleReceipt, _Mapping]]] = ..., stages: _Optional[_Iterable[_Union[StageProgress, _Mapping]]] = ..., elapsed_s: _Optional[float] = ..., schema: _Optional[bytes] = ..., agents_lost: _Optional[_Iterable[str]] = ..., quarantined: _Optional[_Iterable[_Union[Quarantined, _Mapping]]] = ..., agents_joined: _Optional[_Iterable[str]] = ...) -> None: ...

class ReleaseJobRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class ReleaseJobReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JobSummary(_message.Message):
    __slots__ = ("job_id", "state", "jobs_ahead", "elapsed_s", "weight", "stages")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    JOBS_AHEAD_FIELD_NUMBER: _ClassVar[int]
    ELAPSED_S_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    state: str
    jobs_ahead: int
    elapsed_s: float
    weight: float
    stages: _containers.RepeatedCompositeFieldContainer[StageProgress]
    def __init__(self, job_id: _Optional[str] = ..., state: _Optional[str] = ..., jobs_ahead: _Optional[int] = ..., elapsed_s: _Optional[float] = ..., weight: _Optional[float] = ..., stages: _Optional[_Iterable[_Union[StageProgress, _Mapping]]] = ...) -> None: ...

class ListJobsRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListJobsReply(_message.Message):
    __slots__ = ("jobs",)
    JOBS_FIELD_NUMBER: _ClassVar[int]
    jobs: _containers.RepeatedCompositeFieldContainer[JobSummary]
    def __init__(self, jobs: _Optional[_Iterable[_Union[JobSummary, _Mapping]]] = ...) -> None: ...

class CancelJobRequest(_message.Message):
    __slots__ = ("job_id", "reason")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    reason: str
    def __init__(self, job_id: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class CancelJobReply(_message.Message):
    __slots__ = ("known",)
    KNOWN_FIELD_NUMBER: _ClassVar[int]
    known: bool
    def __init__(self, known: bool = ...) -> None: ...

class ConfirmJobRequest(_message.Message):
    __slots__ = ("job_id", "epoch")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    epoch: int
    def __init__(self, job_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class ConfirmJobReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class GrantPublishRequest(_message.Message):
    __slots__ = ("job_id", "epoch")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    epoch: int
    def __init__(self, job_id: _Optional[str] = ..., epoch: _Optional[int] = ...) -> None: ...

class GrantPublishReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class KeepUploadsRequest(_message.Message):
    __slots__ = ("job_id",)
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    def __init__(self, job_id: _Optional[str] = ...) -> None: ...

class KeepUploadsReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PrepareJobRequest(_message.Message):
    __slots__ = ("job_id", "plan", "agents", "num_partitions", "coordinator", "table")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    NUM_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    plan: bytes
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    num_partitions: _containers.RepeatedScalarFieldContainer[int]
    coordinator: Agent
    table: OwnerTable
    def __init__(self, job_id: _Optional[str] = ..., plan: _Optional[bytes] = ..., agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., num_partitions: _Optional[_Iterable[int]] = ..., coordinator: _Optional[_Union[Agent, _Mapping]] = ..., table: _Optional[_Union[OwnerTable, _Mapping]] = ...) -> None: ...

class PrepareJobReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class OwnerTable(_message.Message):
    __slots__ = ("epoch", "owners", "lost")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    OWNERS_FIELD_NUMBER: _ClassVar[int]
    LOST_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    owners: _containers.RepeatedScalarFieldContainer[int]
    lost: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, epoch: _Optional[int] = ..., owners: _Optional[_Iterable[int]] = ..., lost: _Optional[_Iterable[int]] = ...) -> None: ...

class ReownJobRequest(_message.Message):
    __slots__ = ("job_id", "table", "keep_result", "agents")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    KEEP_RESULT_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    table: OwnerTable
    keep_result: bool
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    def __init__(self, job_id: _Optional[str] = ..., table: _Optional[_Union[OwnerTable, _Mapping]] = ..., keep_result: bool = ..., agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ...) -> None: ...

class ReownJobReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class JobJournal(_message.Message):
    __slots__ = ("epoch", "number", "state", "first", "records")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    number: int
    state: bytes
    first: int
    records: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, epoch: _Optional[int] = ..., number: _Optional[int] = ..., state: _Optional[bytes] = ..., first: _Optional[int] = ..., records: _Optional[_Iterable[bytes]] = ...) -> None: ...

class RecordJobRequest(_message.Message):
    __slots__ = ("job_id", "journal", "agents")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    journal: JobJournal
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    def __init__(self, job_id: _Optional[str] = ..., journal: _Optional[_Union[JobJournal, _Mapping]] = ..., agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ...) -> None: ...

class RecordJobReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class TakeOverJobRequest(_message.Message):
    __slots__ = ("job_id", "epoch", "coordinator", "agent")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    epoch: int
    coordinator: Agent
    agent: Agent
    def __init__(self, job_id: _Optional[str] = ..., epoch: _Optional[int] = ..., coordinator: _Optional[_Union[Agent, _Mapping]] = ..., agent: _Optional[_Union[Agent, _Mapping]] = ...) -> None: ...

class TakeOverJobReply(_message.Message):
    __slots__ = ("held", "ended", "agents", "num_partitions", "table", "journal")
    HELD_FIELD_NUMBER: _ClassVar[int]
    ENDED_FIELD_NUMBER: _ClassVar[int]
    AGENTS_FIELD_NUMBER: _ClassVar[int]
    NUM_PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    TABLE_FIELD_NUMBER: _ClassVar[int]
    JOURNAL_FIELD_NUMBER: _ClassVar[int]
    held: bool
    ended: bool
    agents: _containers.RepeatedCompositeFieldContainer[Agent]
    num_partitions: _containers.RepeatedScalarFieldContainer[int]
    table: OwnerTable
    journal: JobJournal
    def __init__(self, held: bool = ..., ended: bool = ..., agents: _Optional[_Iterable[_Union[Agent, _Mapping]]] = ..., num_partitions: _Optional[_Iterable[int]] = ..., table: _Optional[_Union[OwnerTable, _Mapping]] = ..., journal: _Optional[_Union[JobJournal, _Mapping]] = ...) -> None: ...

class RunTaskRequest(_message.Message):
    __slots__ = ("job_id", "stage_id", "task", "attempt", "split", "inputs", "epoch", "partitions", "copies", "tasks", "boundaries")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    STAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    ATTEMPT_FIELD_NUMBER: _ClassVar[int]
    SPLIT_FIELD_NUMBER: _ClassVar[int]
    INPUTS_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    PARTITIONS_FIELD_NUMBER: _ClassVar[int]
    COPIES_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    BOUNDARIES_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    stage_id: int
    task: int
    attempt: int
    split: bytes
    inputs: _containers.RepeatedCompositeFieldContainer[InputAttempts]
    epoch: int
    partitions: _containers.RepeatedScalarFieldContainer[int]
    copies: _containers.RepeatedCompositeFieldContainer[InputAttempts]
    tasks: int
    boundaries: bytes
    def __init__(self, job_id: _Optional[str] = ..., stage_id: _Optional[int] = ..., task: _Optional[int] = ..., attempt: _Optional[int] = ..., split: _Optional[bytes] = ..., inputs: _Optional[_Iterable[_Union[InputAttempts, _Mapping]]] = ..., epoch: _Optional[int] = ..., partitions: _Optional[_Iterable[int]] = ..., copies: _Optional[_Iterable[_Union[InputAttempts, _Mapping]]] = ..., tasks: _Optional[int] = ..., boundaries: _Optional[bytes] = ...) -> None: ...

class InputAttempts(_message.Message):
    __slots__ = ("stage_id", "attempts", "partition", "tasks")
    STAGE_ID_FIELD_NUMBER: _ClassVar[int]
    ATTEMPTS_FIELD_NUMBER: _ClassVar[int]
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    stage_id: int
    attempts: _containers.RepeatedScalarFieldContainer[int]
    partition: int
    tasks: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, stage_id: _Optional[int] = ..., attempts: _Optional[_Iterable[int]] = ..., partition: _Optional[int] = ..., tasks: _Optional[_Iterable[int]] = ...) -> None: ...

class PartitionSum(_message.Message):
    __slots__ = ("partition", "rows", "content_sum", "num_bytes")
    PARTITION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    CONTENT_SUM_FIELD_NUMBER: _ClassVar[int]
    NUM_BYTES_FIELD_NUMBER: _ClassVar[int]
    partition: int
    rows: int
    content_sum: int
    num_bytes: int
    def __init__(self, partition: _Optional[int] = ..., rows: _Optional[int] = ..., content_sum: _Optional[int] = ..., num_bytes: _Optional[int] = ...) -> None: ...

class RunTaskReply(_message.Message):
    __slots__ = ("failure", "rows_in", "rows_out", "sent", "released", "wire_bytes", "local_bytes", "result", "written", "partial", "placement_digest", "unseen_path", "unseen_filesystem", "copied", "task_s", "slots", "quarantined", "spilled_bytes", "key_sample", "sent_epoch")
    FAILURE_FIELD_NUMBER: _ClassVar[int]
    ROWS_IN_FIELD_NUMBER: _ClassVar[int]
    ROWS_OUT_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    RELEASED_FIELD_NUMBER: _ClassVar[int]
    WIRE_BYTES_FIELD_NUMBER: _ClassVar[int]
    LOCAL_BYTES_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    PLACEMENT_DIGEST_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_PATH_FIELD_NUMBER: _ClassVar[int]
    UNSEEN_FILESYSTEM_FIELD_NUMBER: _ClassVar[int]
    COPIED_FIELD_NUMBER: _ClassVar[int]
    TASK_S_FIELD_NUMBER: _ClassVar[int]
    SLOTS_FIELD_NUMBER: _ClassVar[int]
    QUARANTINED_FIELD_NUMBER: _ClassVar[int]
    SPILLED_BYTES_FIELD_NUMBER: _ClassVar[int]
    KEY_SAMPLE_FIELD_NUMBER: _ClassVar[int]
    SENT_EPOCH_FIELD_NUMBER: _ClassVar[int]
    failure: Failure
    rows_in: int
    rows_out: int
    sent: _containers.RepeatedCompositeFieldContainer[PartitionSum]
    released: _containers.RepeatedCompositeFieldContainer[ReleasedSum]
    wire_bytes: int
    local_bytes: int
    result: ResultPartition
    written: _containers.RepeatedCompositeFieldContainer[WrittenFile]
    partial: bool
    placement_digest: int
    unseen_path: str
    unseen_filesystem: bytes
    copied: _containers.RepeatedCompositeFieldContainer[ReleasedSum]
    task_s: float
    slots: _containers.RepeatedScalarFieldContainer[int]
    quarantined: _containers.RepeatedCompositeFieldContainer[Quarantined]
    spilled_bytes: int
    key_sample: bytes
    sent_epoch: int
    def __init__(self, failure: _Optional[_Union[Failure, _Mapping]] = ..., rows_in: _Optional[int] = ..., rows_out: _Optional[int] = ..., sent: _Optional[_Iterable[_Union[PartitionSum, _Mapping]]] = ..., released: _Optional[_Iterable[_Union[ReleasedSum, _Mapping]]] = ..., wire_bytes: _Optional[int] = ..., local_bytes: _Optional[int] = ..., result: _Optional[_Union[ResultPartition, _Mapping]] = ..., written: _Optional[_Iterable[_Union[WrittenFile, _Mapping]]] = ..., partial: bool = ..., placement_digest: _Optional[int] = ..., unseen_path: _Optional[str] = ..., unseen_filesystem: _Optional[bytes] = ..., copied: _Optional[_Iterable[_Union[ReleasedSum, _Mapping]]] = ..., task_s: _Optional[float] = ..., slots: _Optional[_Iterable[int]] = ..., quarantined: _Optional[_Iterable[_Union[Quarantined, _Mapping]]] = ..., spilled_bytes: _Optional[int] = ..., key_sample: _Optional[bytes] = ..., sent_epoch: _Optional[int] = ...) -> None: ...

class Quarantined(_message.Message):
    __slots__ = ("stage_id", "task", "position", "rows", "arrow_stream")
    STAGE_ID_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    ARROW_STREAM_FIELD_NUMBER: _ClassVar[int]
    stage_id: int
    task: int
    position: int
    rows: int
    arrow_stream: bytes
    def __init__(self, stage_id: _Optional[int] = ..., task: _Optional[int] = ..., position: _Optional[int] = ..., rows: _Optional[int] = ..., arrow_stream: _Optional[bytes] = ...) -> None: ...

class WrittenFile(_message.Message):
    __slots__ = ("path", "rows")
    PATH_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    path: str
    rows: int
    def __init__(self, path: _Optional[str] = ..., rows: _Optional[int] = ...) -> None: ...

class ReleasedSum(_message.Message):
    __slots__ = ("stage_id", "sum")
    STAGE_ID_FIELD_NUMBER: _ClassVar[int]
    SUM_FIELD_NUMBER: _ClassVar[int]
    stage_id: int
    sum: PartitionSum
    def __init__(self, stage_id: _Optional[int] = ..., sum: _Optional[_Union[PartitionSum, _Mapping]] = ...) -> None: ...

class EndJobRequest(_message.Message):
    __slots__ = ("job_id", "keep_result", "epoch")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    KEEP_RESULT_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    keep_result: bool
    epoch: int
    def __init__(self, job_id: _Optional[str] = ..., keep_result: bool = ..., epoch: _Optional[int] = ...) -> None: ...

class EndJobReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CheckJobRequest(_message.Message):
    __slots__ = ("job_id", "agent", "coordinator", "epoch")
    JOB_ID_FIELD_NUMBER: _ClassVar[int]
    AGENT_FIELD_NUMBER: _ClassVar[int]
    COORDINATOR_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    job_id: str
    agent: Agent
    coordinator: Agent
    epoch: int
    def __init__(self, job_id: _Optional[str] = ..., agent: _Optional[_Union[Agent, _Mapping]] = ..., coordinator: _Optional[_Union[Agent, _Mapping]] = ..., epoch: _Optional[int] = ...) -> None: ...

class CheckJobReply(_message.Message):
    __slots__ = ("takes_part", "keep_result")
    TAKES_PART_FIELD_NUMBER: _ClassVar[int]
    KEEP_RESULT_FIELD_NUMBER: _ClassVar[int]
    takes_part: bool
    keep_result: bool
    def __init__(self, takes_part: bool = ..., keep_result: bool = ...) -> None: ...
