"""What happens to a job, and what its coordinator wants done about it: the two alphabets of one state machine.

Values only. Agents are named by their index in the job's list, which only grows while the job lives.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from sabot.agent.coordination.owner_table import OwnerTable
from sabot.agent.coordination.range_choice import Ranges
from sabot.agent.coordination.running import sent_epoch_of
from sabot.dataflow.stage import Split, WriteOutput
from sabot.wire.agent_pb2 import Failure, JobFinished, RunTaskReply
from sabot.wire.member import Member


@dataclass(frozen=True, slots=True, kw_only=True)
class JobStarted:
    """The first event; everything else follows from the plan and the agents that the coordinator was made with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The agent knows the job: its shuffles are open there."""

    agent: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareFailed:
    agent: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Reowned:
    """The agent knows the owner table of `epoch`, and refuses what is of another."""

    agent: int
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReownFailed:
    agent: int
    epoch: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """The agent keeps the job's journal up to `mark`."""

    agent: int
    mark: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordFailed:
    agent: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishGranted:
    """The client allows the files to appear: it knows no later coordinator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """Another agent coordinates the job; what this one did about it is void."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderOpened:
    """The hidden folder for the files of a WriteOutput is there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderPublished:
    """The files written have been moved into place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FolderFailed:
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSucceeded:
    """An attempt has ended well, and every owner has confirmed its manifest."""

    agent: int
    stage_id: int
    task: int
    attempt: int
    reply: RunTaskReply

    @property
    def sent_epoch(self) -> int | None:
        """By which owner table the attempt has sent; None where it has sent nothing."""
        return sent_epoch_of(self.reply)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed:
    """`sent_epoch`: by which owner table the attempt sent, where it had begun to."""

    agent: int
    stage_id: int
    task: int
    attempt: int
    failure: Failure
    sent_epoch: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentLost:
    """An agent of the job is gone, frozen or another one than it was. The job never takes it back."""

    agent: int
    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentJoined:
    """An agent has come that is none of the job's, by identity or address: the next one by index."""

    member: Member


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentDraining:
    """The agent is to get nothing more to do. It ends when nothing of the job rests on it, or at a deadline of its own;
    `stays`: when the job has ended.
    """

    agent: int
    stays: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentsChecked:
    """Every agent of the job has been looked at since CheckAgents; an AgentLost for each that is lost came before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """So many seconds have passed since the job began; told every now and then, for nothing else tells the time."""

    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverFailed:
    """Whoever carries out the commands could not: a bug, which must end the job and not leave it waiting."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The user or the end of his stream has cancelled the job, or this agent stops."""

    reason: str


Event = (
    JobStarted
    | Prepared
    | PrepareFailed
    | Reowned
    | ReownFailed
    | Recorded
    | RecordFailed
    | PublishGranted
    | TakenOver
    | FolderOpened
    | FolderPublished
    | FolderFailed
    | TaskSucceeded
    | TaskFailed
    | AgentLost
    | AgentJoined
    | AgentDraining
    | AgentsChecked
    | TimePassed
    | DriverFailed
    | Cancelled
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """Make the job known to the agent, with the owner table of now."""

    agent: int
    table: OwnerTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Reown:
    """Give the agent the owner table of a new epoch; the answer is Reowned or ReownFailed."""

    agent: int
    table: OwnerTable


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckAgents:
    """Find out which of the living agents are lost, now; the answer is AgentsChecked.

    Lost is also who refuses `table`, which all of them should know: it has the job no longer. `last`: all is done, and
    when they are well the client gets the answer, which they are to keep even if this agent is lost.
    """

    table: OwnerTable
    last: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Bring the journal that each living agent keeps up to date; the answers are Recorded or RecordFailed.

    Unless `urgent` nothing waits for it, and a job that ends meanwhile needs it no more.
    """

    urgent: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class AskToPublish:
    """The client is to say whether this is still the job's coordinator; the answer is PublishGranted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFolder:
    """Make the hidden folder for the files, which will have the columns of `schema`."""

    output: WriteOutput
    schema: pa.Schema


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishFolder:
    files: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscardFolder:
    """Remove what was written; harmless after a publish."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyToRead:
    """The copy of all rows of a stage that is partition `partition` of its shuffle, and the attempt of each task."""

    stage_id: int
    partition: int
    attempts: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StartTask:
    """`inputs` has, for each input stage in the order of the stage's input, the attempt to read of each task.

    `partitions` are those to be sent by a replay, None for all. `copies` has the copies to be read of stages that were
    broadcast.
    `tasks` is how many the stage has, `ranges` how what it sends is cut. `read_tasks` are those whose attempts `inputs`
    has, where the partition is not sent to by all.
    """

    agent: int
    stage_id: int
    task: int
    attempt: int
    epoch: int
    split: Split
    inputs: tuple[tuple[int, tuple[int, ...]], ...]
    partitions: frozenset[int] | None = None
    copies: tuple[CopyToRead, ...] = ()
    read_tasks: tuple[int, ...] | None = None
    tasks: int = 1
    ranges: Ranges | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CancelTask:
    """The attempt counts no more; no event about it is awaited."""

    agent: int
    stage_id: int
    task: int
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class EndJob:
    """The agent is done with the job, or given up while the job goes on without it; the last command to it."""

    agent: int
    keep_result: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """Let go of the job without a word to its agents: it is another's, or where `failure` tells the client is to be."""

    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    finished: JobFinished


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    failure: Failure


Command = (
    Prepare
    | Reown
    | CheckAgents
    | Record
    | AskToPublish
    | OpenFolder
    | PublishFolder
    | DiscardFolder
    | StartTask
    | CancelTask
    | EndJob
    | Drop
    | Finish
    | Fail
)
