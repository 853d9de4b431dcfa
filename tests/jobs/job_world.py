"""A small world for a coordinator: plans, agents whose tasks add up, and schedules in any order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.hot_partitions import HotRule
from sabot.agent.coordination.job_journal import end_of
from sabot.agent.coordination.range_choice import RangeRule
from sabot.agent.coordination.slow_tasks import SlowRule
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle, SortKey
from sabot.dataflow.stage import (
    BroadcastJoin,
    BroadcastShuffle,
    FilesSplit,
    HashShuffle,
    JobPlan,
    Join,
    Output,
    PartitionSplit,
    ResultOutput,
    RoundRobinShuffle,
    ScanInput,
    ShuffleInput,
    Sort,
    SourceFile,
    Stage,
    TableInput,
    TablePiece,
    TableSplit,
    WriteOutput,
)
from sabot.wire.agent_pb2 import PartitionSum, ReleasedSum, ResultPartition, RunTaskReply
from sabot.wire.member import Member

SCHEMA = pa.schema([("k", pa.int64()), ("v", pa.int64())])
JOB_ID = "00ff" * 8


def member(index: int, *, slots: int = 1) -> Member:
    return Member(
        agent_id=f"agent-{index}",
        incarnation=index + 1,
        control_address=f"10.0.0.{index}:8815",
        flight_address=f"10.0.0.{index}:8816",
        http_address=f"10.0.0.{index}:8817",
        slots=slots,
        draining=False,
    )


def stage(stage_id: int, source: ScanInput | TableInput | ShuffleInput, output: Output, steps: tuple = ()) -> Stage:
    return Stage(stage_id=stage_id, label=f"stage {stage_id}", input=source, steps=steps, output=output, schema=SCHEMA)


def scan(*row_groups: int) -> ScanInput:
    """One file for each number of rows."""
    files = tuple(
        SourceFile(path=f"/d/{i}.parquet", size_bytes=1, modified_ns=1, row_group_rows=(rows,), row_group_bytes=(rows,))
        for i, rows in enumerate(row_groups)
    )
    return ScanInput(format="parquet", files=files, columns=None, schema=SCHEMA)


def pieces(*agents: int) -> tuple[TablePiece, ...]:
    return tuple(TablePiece(index=i, flight_address=f"10.0.0.{a}:8816", rows=10 + i) for i, a in enumerate(agents))


def group_plan(*row_groups: int) -> JobPlan:
    return JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(*row_groups), HashShuffle(keys=("k",))),
            stage(1, ShuffleInput(stage_ids=(0,)), ResultOutput()),
        ),
    )


def chain_plan(*row_groups: int, output: HashShuffle | RoundRobinShuffle) -> JobPlan:
    """Files into `output`, its partitions into a shuffle by key, and those into the answer."""
    return JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(*row_groups), output),
            stage(1, ShuffleInput(stage_ids=(0,)), HashShuffle(keys=("k",))),
            stage(2, ShuffleInput(stage_ids=(1,)), ResultOutput()),
        ),
    )


JOIN = Join(keys=("k",), right_keys=("k",), join_type="inner")


def join_plan(*row_groups: int, uploads: Sequence[int] = (0,), output: Output | None = None) -> JobPlan:
    """Files joined with an uploaded table, then one sorted partition."""
    return JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(*row_groups), HashShuffle(keys=("k",))),
            stage(1, TableInput(table_id="t", schema=SCHEMA), HashShuffle(keys=("k",))),
            stage(2, ShuffleInput(stage_ids=(0, 1)), HashShuffle(keys=()), (JOIN,)),
            stage(3, ShuffleInput(stage_ids=(2,)), output or ResultOutput()),
        ),
        uploads={"t": pieces(*uploads)},
    )


def hot_plan(*row_groups: int, output: Output | None = None) -> JobPlan:
    """Files joined with the first of them; the answer lies in partitions unless it goes elsewhere."""
    return JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(*row_groups), HashShuffle(keys=("k",))),
            stage(1, scan(*row_groups[:1]), HashShuffle(keys=("k",))),
            stage(2, ShuffleInput(stage_ids=(0, 1)), output or ResultOutput(), (JOIN,)),
        ),
    )


def sort_plan(*row_groups: int, output: Output | None = None) -> JobPlan:
    """Files sorted by k over ranges."""
    sorting: tuple[SortKey, ...] = (("k", "ascending"),)
    return JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(*row_groups), HomeShuffle(sample_keys=("k",))),
            stage(1, ShuffleInput(stage_ids=(0,)), RangeShuffle(sorting=sorting, sampled_by=(0,))),
            stage(2, ShuffleInput(stage_ids=(1,)), output or ResultOutput(), (Sort(sorting=sorting),)),
        ),
    )


def broadcast_plan(*row_groups: int, output: Output | None = None) -> JobPlan:
    """Files joined with a copy of the first of them, shuffled, and joined with a copy of the last of them."""
    copied = BroadcastShuffle(keys=("k",), bytes_estimated=1, bytes_max=1)
    first, last = (BroadcastJoin(join=JOIN, stage_id=stage_id, side=1) for stage_id in (0, 1))
    return JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(*row_groups[:1]), copied),
            stage(1, scan(*row_groups[-1:]), copied),
            stage(2, scan(*row_groups), HashShuffle(keys=("k",)), (first,)),
            stage(3, ShuffleInput(stage_ids=(2,)), output or ResultOutput(), (last,)),
        ),
    )


def key_sample(keys: Iterable[int]) -> bytes:
    """What a task tells of its keys."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA.empty_table().select(["k"]).schema) as writer:
        writer.write_table(pa.table({"k": pa.array(keys, pa.int64())}))
    return bytes(sink.getvalue())


def make_coordinator(
    plan: JobPlan,
    *agents: Member,
    attempts_max: int = 4,
    partitions_per_slot: int = 2,
    hot: HotRule | None = None,
    slow: SlowRule | None = None,
    ranges: RangeRule | None = None,
) -> Coordinator:
    return Coordinator(
        plan=plan,
        agents=agents,
        partitions_per_slot=partitions_per_slot,
        split_bytes=1,
        attempts_max=attempts_max,
        hot=hot,
        slow=slow,
        ranges=ranges,
    )


@dataclass
class World:
    """Answers commands as honest agents would: what a partition releases is what was sent to it."""

    plan: JobPlan
    partitions: dict[int, int]
    sent: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    commands: list[ev.Command] = field(default_factory=list)

    def answer(self, command: ev.Command) -> ev.Event | None:
        match command:
            case ev.Prepare(agent=agent):
                return ev.Prepared(agent=agent)
            case ev.StartTask():
                return ev.TaskSucceeded(
                    agent=command.agent,
                    stage_id=command.stage_id,
                    task=command.task,
                    attempt=command.attempt,
                    reply=self.reply(command),
                )
        answers: dict[type[ev.Command], ev.Event] = {
            ev.CheckAgents: ev.AgentsChecked(),
            ev.OpenFolder: ev.FolderOpened(),
            ev.AskToPublish: ev.PublishGranted(),
            ev.PublishFolder: ev.FolderPublished(),
        }
        return answers.get(type(command))

    def reply(self, command: ev.StartTask) -> RunTaskReply:
        made = self.plan.stages[command.stage_id]
        reply = RunTaskReply()
        match command.split:
            case FilesSplit(parts=parts):
                reply.rows_in = sum(part.rows or 0 for part in parts)
            case TableSplit(piece=piece):
                reply.rows_in = piece.rows
            case PartitionSplit(partition=partition):
                assert isinstance(made.input, ShuffleInput)
                for source in made.input.stage_ids:
                    rows, content_sum = self.sent.get((source, partition), (0, 0))
                    part = PartitionSum(partition=partition, rows=rows, content_sum=content_sum)
                    reply.released.append(ReleasedSum(stage_id=source, sum=part))
                    reply.rows_in += rows
        reply.rows_out = reply.rows_in
        self._send(made, command, reply)
        return reply

    def _send(self, made: Stage, command: ev.StartTask, reply: RunTaskReply) -> None:
        task = command.task
        if isinstance(made.output, ResultOutput):
            reply.result.CopyFrom(ResultPartition(partition=task, rows=reply.rows_out))
        elif isinstance(made.output, WriteOutput):
            reply.written.add(path=f"part-{task:05}.parquet", rows=reply.rows_out)
        else:
            count = command.ranges.count if command.ranges is not None else self.partitions[made.stage_id]
            for partition in range(count):
                rows = reply.rows_out // count + (partition < reply.rows_out % count)
                content_sum = (rows * 0x9E3779B97F4A7C15 + task) % 2**64
                reply.sent.append(PartitionSum(partition=partition, rows=rows, content_sum=content_sum))
                before = self.sent.get((made.stage_id, partition), (0, 0))
                self.sent[made.stage_id, partition] = (before[0] + rows, (before[1] + content_sum) % 2**64)
            if isinstance(made.output, HomeShuffle):
                reply.key_sample = key_sample(range(reply.rows_out))
            reply.wire_bytes = reply.local_bytes = 8 * reply.rows_out


def run_to_end(plan: JobPlan, coordinator: Coordinator) -> list[ev.Command]:
    """Every command answered in order; gives all commands."""
    world = World(plan, coordinator.num_partitions)
    waiting: list[ev.Command] = tell(coordinator, ev.JobStarted())
    seen: list[ev.Command] = []
    while waiting:
        command = waiting.pop(0)
        seen.append(command)
        event = world.answer(command)
        if event is not None:
            waiting.extend(tell(coordinator, event))
    return seen


def tell(coordinator: Coordinator, event: ev.Event) -> list[ev.Command]:
    """What the coordinator wants done, where all agents keep its journal at once."""
    commands = coordinator.handle(event)
    while any(isinstance(command, ev.Record) for command in commands):
        commands = [command for command in commands if not isinstance(command, ev.Record)]
        for agent in coordinator.living:
            update = coordinator.journal_update(agent)
            if update is not None:
                commands += coordinator.handle(ev.Recorded(agent=agent, mark=end_of(update)))
    return commands


def kinds(commands: Sequence[ev.Command]) -> Counter[str]:
    return Counter(type(command).__name__ for command in commands)
