"""What the coordinator does about each event, and that every schedule ends."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.partition_counts import choose_partitions
from sabot.agent.coordination.task_dealer import TASKS_AHEAD
from sabot.dataflow.stage import (
    HashShuffle,
    JobPlan,
    PartitionSplit,
    ResultOutput,
    RoundRobinShuffle,
    ShuffleInput,
    TableSplit,
    WriteOutput,
)
from sabot.errors import InternalError, JobCancelled, PeerLost, ShuffleIntegrityError, UsageError
from sabot.wire.failure import from_failure, to_failure

from .job_world import (
    SCHEMA,
    World,
    group_plan,
    join_plan,
    kinds,
    make_coordinator,
    member,
    run_to_end,
    scan,
    stage,
    tell,
)

WRITE = WriteOutput(folder="/out", format="parquet")
PEER_LOST = to_failure(PeerLost("agent agent-0 did not answer", agent="agent-0"))
NO_MODULE = to_failure(UsageError("agent agent-0 cannot load the job's functions"))


def prepared(coordinator: Coordinator, agents: int) -> list[ev.Command]:
    """The first commands after everyone has prepared."""
    tell(coordinator, ev.JobStarted())
    commands: list[ev.Command] = []
    for agent in range(agents):
        commands = tell(coordinator, ev.Prepared(agent=agent))
    return commands


def failure_of(commands: list[ev.Command]) -> BaseException:
    (failed,) = [command for command in commands if isinstance(command, ev.Fail)]
    return from_failure(failed.failure)


def test_no_task_starts_before_all_agents_have_prepared() -> None:
    coordinator = make_coordinator(group_plan(5, 5), member(0), member(1))
    assert kinds(tell(coordinator, ev.JobStarted())) == {"Prepare": 2}
    assert tell(coordinator, ev.Prepared(agent=1)) == []
    assert kinds(tell(coordinator, ev.Prepared(agent=0))) == {"StartTask": 2}


def test_tasks_of_files_are_dealt_in_turn_to_agents_with_room() -> None:
    coordinator = make_coordinator(group_plan(*[1] * 20), member(0, slots=2), member(1, slots=1))
    placed = [command.agent for command in prepared(coordinator, 2) if isinstance(command, ev.StartTask)]
    assert placed[:2] == [0, 1]
    assert (placed.count(0), placed.count(1)) == (2 + TASKS_AHEAD, 1 + TASKS_AHEAD)


def test_partitions_go_to_their_owners_and_pieces_to_their_holders() -> None:
    plan = join_plan(5, 5, 5, uploads=(1, 1, 0))
    for command in run_to_end(plan, make_coordinator(plan, member(0), member(1))):
        if isinstance(command, ev.StartTask) and isinstance(command.split, PartitionSplit):
            assert command.agent == command.split.partition % 2
        if isinstance(command, ev.StartTask) and isinstance(command.split, TableSplit):
            assert command.split.piece.flight_address == member(command.agent).flight_address


def test_stage_starts_when_all_its_inputs_are_done() -> None:
    plan = join_plan(5, 5)
    coordinator = make_coordinator(plan, member(0, slots=4))
    world = World(plan, coordinator.num_partitions)
    first = [command for command in prepared(coordinator, 1) if isinstance(command, ev.StartTask)]
    assert {command.stage_id for command in first} == {0, 1}
    answers = [world.answer(command) for command in first]
    assert [tell(coordinator, event) for event in answers[:-1] if event] == [[], []]
    then = tell(coordinator, answers[-1])  # type: ignore[arg-type]
    assert {command.stage_id for command in then if isinstance(command, ev.StartTask)} == {2}


def test_task_is_given_the_attempts_of_each_input() -> None:
    plan = join_plan(5, 5, 5, uploads=(0, 0))
    commands = run_to_end(plan, make_coordinator(plan, member(0)))
    readers = [command for command in commands if isinstance(command, ev.StartTask) and command.stage_id == 2]
    assert {command.inputs for command in readers} == {((0, (0, 0, 0)), (1, (0, 0)))}


def test_result_has_its_partitions_in_order_and_a_receipt_for_each_shuffle() -> None:
    plan = group_plan(5, 6, 7)
    commands = run_to_end(plan, make_coordinator(plan, member(0), member(1)))
    (finish,) = [command for command in commands if isinstance(command, ev.Finish)]
    assert [part.partition for part in finish.finished.partitions] == [0, 1, 2, 3]
    (receipt,) = finish.finished.shuffles
    assert (receipt.rows_in, receipt.rows_out, receipt.num_partitions) == (18, 18, 4)
    assert receipt.sum_in == receipt.sum_out != 0
    assert receipt.wire_bytes == 8 * 18
    assert [(s.tasks_done, s.tasks_total, s.rows_out) for s in finish.finished.stages] == [(3, 3, 18), (4, 4, 18)]
    assert pa.ipc.read_schema(pa.py_buffer(finish.finished.schema)) == SCHEMA
    ends = [command for command in commands if isinstance(command, ev.EndJob)]
    assert [(end.agent, end.keep_result) for end in ends] == [(0, True), (1, True)]


def test_files_are_published_once_all_tasks_are_done_and_nothing_is_kept() -> None:
    plan = join_plan(5, output=WRITE)
    commands = run_to_end(plan, make_coordinator(plan, member(0), member(1)))
    assert kinds(commands)["OpenFolder"] == kinds(commands)["PublishFolder"] == 1
    (publish,) = [command for command in commands if isinstance(command, ev.PublishFolder)]
    assert publish.files == ("part-00000.parquet",)
    assert commands.index(publish) < min(i for i, c in enumerate(commands) if isinstance(c, ev.EndJob))
    assert not any(command.keep_result for command in commands if isinstance(command, ev.EndJob))


def test_files_that_cannot_be_published_are_discarded() -> None:
    plan = join_plan(5, output=WRITE)
    coordinator = make_coordinator(plan, member(0))
    world = World(plan, coordinator.num_partitions)
    waiting = tell(coordinator, ev.JobStarted())
    while not isinstance(waiting[0], ev.PublishFolder):
        event = world.answer(waiting.pop(0))
        waiting.extend(tell(coordinator, event) if event else [])
    commands = tell(coordinator, ev.FolderFailed(failure=to_failure(OSError("disk full"))))
    assert kinds(commands) == {"EndJob": 1, "DiscardFolder": 1, "Fail": 1}


def test_job_of_no_files_gives_an_empty_answer() -> None:
    plan = JobPlan(job_id="0", stages=(stage(0, scan(), ResultOutput()),))
    commands = run_to_end(plan, make_coordinator(plan, member(0)))
    assert kinds(commands) == {"Prepare": 1, "StartTask": 1, "EndJob": 1, "Finish": 1}


@pytest.mark.parametrize("agents", [1, 2])
@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (ev.PrepareFailed(agent=0, failure=NO_MODULE), UsageError),
        (ev.ReownFailed(agent=0, epoch=0, failure=to_failure(RuntimeError("bug"))), RuntimeError),
        (ev.FolderFailed(failure=to_failure(OSError("full"))), OSError),
        (ev.DriverFailed(failure=to_failure(RuntimeError("bug"))), RuntimeError),
        (ev.Cancelled(reason="its client has gone"), JobCancelled),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, type) else value.__name__,
)
@pytest.mark.parametrize("when", ["preparing", "running"])
def test_failure_ends_the_job_on_every_agent_with_its_own_type(
    agents: int, event: ev.Event, kind: type, when: str
) -> None:
    coordinator = make_coordinator(group_plan(5, 5), *[member(index) for index in range(agents)])
    if when == "running":
        prepared(coordinator, agents)
    else:
        tell(coordinator, ev.JobStarted())
    commands = tell(coordinator, event)
    assert kinds(commands) == {"EndJob": agents, "Fail": 1}
    assert type(failure_of(commands)) is kind
    assert coordinator.ended
    assert tell(coordinator, event) == []


@pytest.mark.parametrize(
    "event", [ev.AgentLost(agent=0, failure=PEER_LOST), ev.PrepareFailed(agent=0, failure=PEER_LOST)]
)
def test_only_agent_lost_ends_the_job(event: ev.Event) -> None:
    coordinator = make_coordinator(group_plan(5, 5), member(0))
    tell(coordinator, ev.JobStarted())
    commands = tell(coordinator, event)
    assert kinds(commands) == {"EndJob": 1, "Fail": 1} and isinstance(failure_of(commands), PeerLost)


def test_exception_of_a_task_ends_the_job_on_every_agent() -> None:
    coordinator = make_coordinator(group_plan(5, 5), member(0), member(1))
    prepared(coordinator, 2)
    failed = ev.TaskFailed(agent=0, stage_id=0, task=0, attempt=0, failure=to_failure(KeyError("k")))
    commands = tell(coordinator, failed)
    assert kinds(commands) == {"EndJob": 2, "Fail": 1} and isinstance(failure_of(commands), KeyError)


def tampered(plan: JobPlan, stage_id: int, change: dict[str, int]) -> BaseException:
    """The end of a job in which one task of `stage_id` reports something else than it should."""
    coordinator = make_coordinator(plan, member(0), member(1))
    world = World(plan, coordinator.num_partitions)
    waiting = tell(coordinator, ev.JobStarted())
    commands = list(waiting)
    while waiting:
        event = world.answer(waiting.pop(0))
        if isinstance(event, ev.TaskSucceeded) and event.stage_id == stage_id:
            for path, value in change.items():
                target = event.reply
                *names, last = path.split(".")
                for name in names:
                    target = target[int(name)] if name.isdigit() else getattr(target, name)
                setattr(target, last, getattr(target, last) + value)
        new = tell(coordinator, event) if event else []
        waiting.extend(new)
        commands.extend(new)
    assert kinds(commands)["EndJob"] == 2 and not any(isinstance(command, ev.Finish) for command in commands)
    return failure_of(commands)


@pytest.mark.parametrize(
    ("stage_id", "change", "kind"),
    [
        (1, {"released.0.sum.rows": -1, "rows_in": -1, "rows_out": -1, "result.rows": -1}, ShuffleIntegrityError),
        (1, {"released.0.sum.content_sum": 1}, ShuffleIntegrityError),
        (1, {"released.0.sum.partition": 1}, ShuffleIntegrityError),
        (1, {"released.0.stage_id": 1}, ShuffleIntegrityError),
        (1, {"rows_in": -1, "rows_out": -1, "result.rows": -1}, ShuffleIntegrityError),
        (0, {"sent.1.rows": 1}, ShuffleIntegrityError),
        (0, {"sent.1.rows": 1, "rows_out": 1, "rows_in": 1}, InternalError),
        (0, {"sent.1.content_sum": 1}, ShuffleIntegrityError),
        (0, {"sent.1.partition": 100}, ShuffleIntegrityError),
        (0, {"rows_in": -1}, InternalError),
        (1, {"result.rows": 1}, InternalError),
        (1, {"result.partition": 1}, InternalError),
        (1, {"rows_out": 1, "result.rows": 1}, InternalError),
    ],
)
def test_account_that_does_not_add_up_ends_the_job(stage_id: int, change: dict[str, int], kind: type) -> None:
    error = tampered(group_plan(5, 6), stage_id, change)
    assert type(error) is kind, error
    if isinstance(error, ShuffleIntegrityError):
        assert {"shuffle", "partition", "task", "attempt", "agent"} <= error.facts.keys()
        assert "/0" in str(error) and "agent agent-" in str(error)


def test_missing_account_ends_the_job() -> None:
    plan = group_plan(5)
    coordinator = make_coordinator(plan, member(0))
    world = World(plan, coordinator.num_partitions)
    (start,) = prepared(coordinator, 1)
    commands = tell(coordinator, world.answer(start))  # type: ignore[arg-type]
    event = world.answer(commands[0])
    assert isinstance(event, ev.TaskSucceeded)
    del event.reply.released[:]
    assert isinstance(failure_of(tell(coordinator, event)), ShuffleIntegrityError)


def test_task_that_stopped_early_on_purpose_may_have_read_less() -> None:
    plan = JobPlan(job_id="0", stages=(stage(0, scan(5), ResultOutput()),))
    coordinator = make_coordinator(plan, member(0))
    (start,) = prepared(coordinator, 1)
    event = World(plan, {}).answer(start)
    assert isinstance(event, ev.TaskSucceeded)
    event.reply.rows_in = event.reply.rows_out = event.reply.result.rows = 2
    event.reply.partial = True
    assert kinds(tell(coordinator, event)) == {"EndJob": 1, "Finish": 1}


def test_peer_lost_by_a_task_is_named_by_its_agent() -> None:
    coordinator = make_coordinator(group_plan(5, 5), member(0), member(1), attempts_max=1)
    prepared(coordinator, 2)
    lost = PeerLost("no answer from 10.0.0.1:8816", address="10.0.0.1:8816")
    lost.add_note("stage=0 task=0")
    tell(coordinator, ev.TaskFailed(agent=0, stage_id=0, task=0, attempt=0, failure=to_failure(lost)))
    commands = tell(coordinator, ev.AgentsChecked())
    error = failure_of(commands)
    assert isinstance(error, PeerLost) and error.facts["agent"] == "agent-1"
    assert "agent agent-1" in str(error) and error.__notes__ == ["stage=0 task=0"]


def test_job_with_an_upload_that_nobody_holds_is_handed_back_to_the_client_who_has_the_rows() -> None:
    coordinator = make_coordinator(join_plan(5, uploads=(7,)), member(0))
    (error,) = [from_failure(told.failure) for told in prepared(coordinator, 1) if isinstance(told, ev.Drop)]
    assert isinstance(error, PeerLost) and error.facts["upload"] == "10.0.0.7:8816"


def test_no_agents_is_peer_lost() -> None:
    with pytest.raises(PeerLost, match="no agent"):
        make_coordinator(group_plan(5))


def test_repeated_answer_is_not_counted_twice() -> None:
    plan = group_plan(5, 5)
    coordinator = make_coordinator(plan, member(0))
    world = World(plan, coordinator.num_partitions)
    event = world.answer(prepared(coordinator, 1)[0])
    assert event is not None
    tell(coordinator, event)
    assert tell(coordinator, event) == []
    assert coordinator.progress()[0].tasks_done == 1


def reading(*stage_ids: int) -> ShuffleInput:
    return ShuffleInput(stage_ids=stage_ids)


@pytest.mark.parametrize(
    ("outputs", "inputs", "chosen"),
    [
        ((HashShuffle(keys=("k",)),), (reading(0),), {0: 8}),
        ((HashShuffle(keys=("k",), num_partitions=3),), (reading(0),), {0: 3}),
        ((RoundRobinShuffle(),), (reading(0),), {0: 8}),
        ((RoundRobinShuffle(num_partitions=5),), (reading(0),), {0: 5}),
        ((HashShuffle(keys=()),), (reading(0),), {0: 1}),
        ((HashShuffle(keys=("k",), num_partitions=3), HashShuffle(keys=("k",))), (reading(0, 1),), {0: 3, 1: 3}),
        ((HashShuffle(keys=("k",)), HashShuffle(keys=("k",))), (reading(0, 1),), {0: 8, 1: 8}),
    ],
)
def test_number_of_partitions(outputs: tuple, inputs: tuple, chosen: dict[int, int]) -> None:
    stages = [stage(index, scan(1), output) for index, output in enumerate(outputs)]
    stages += [stage(len(outputs) + index, source, ResultOutput()) for index, source in enumerate(inputs)]
    plan = JobPlan(job_id="0", stages=tuple(stages))
    assert choose_partitions(plan, default=8, split_bytes=1, slots=2) == chosen


def test_join_of_two_fixed_numbers_of_partitions_is_a_bug() -> None:
    outputs = (HashShuffle(keys=("k",), num_partitions=3), HashShuffle(keys=("k",), num_partitions=4))
    stages = [stage(index, scan(1), output) for index, output in enumerate(outputs)]
    plan = JobPlan(job_id="0", stages=(*stages, stage(2, reading(0, 1), ResultOutput())))
    with pytest.raises(InternalError):
        choose_partitions(plan, default=8, split_bytes=1, slots=2)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[JobPlan, list[int]]:
    agents = draw(st.lists(st.integers(1, 3), min_size=1, max_size=4))
    groups = draw(st.lists(st.integers(0, 50), max_size=8))
    shape = draw(st.sampled_from(["group", "join", "write"]))
    uploads = draw(st.lists(st.integers(0, len(agents) - 1), min_size=1, max_size=4))
    if shape == "group":
        return group_plan(*groups), agents
    return join_plan(*groups, uploads=uploads, output=WRITE if shape == "write" else None), agents


@settings(max_examples=300, deadline=None)
@given(job=jobs(), data=st.data(), fault_after=st.none() | st.integers(0, 40))
def test_every_schedule_ends_once_and_frees_every_agent(
    job: tuple[JobPlan, list[int]], data: st.DataObject, fault_after: int | None
) -> None:
    plan, slots = job
    coordinator = make_coordinator(plan, *[member(index, slots=count) for index, count in enumerate(slots)])
    world = World(plan, coordinator.num_partitions)
    waiting = tell(coordinator, ev.JobStarted())
    seen = list(waiting)
    busy = [0] * len(slots)
    steps = 0
    while not coordinator.ended:
        assert waiting, "the job neither goes on nor ends"
        command = waiting.pop(data.draw(st.integers(0, len(waiting) - 1)))
        event = world.answer(command)
        if steps == fault_after:
            event = data.draw(st.sampled_from(faults(command)))
            if isinstance(command, ev.PublishFolder) and isinstance(event, ev.Cancelled):
                waiting.append(command)  # too late: what is being moved into place is moved, and the job ends well
                fault_after = None
        if event is None:
            continue
        steps += 1
        new = tell(coordinator, event)
        if isinstance(command, ev.StartTask):
            busy[command.agent] -= 1
        for later in new:
            if isinstance(later, ev.StartTask):
                busy[later.agent] += 1
        assert all(count <= slots[agent] + TASKS_AHEAD for agent, count in enumerate(busy))
        waiting.extend(new)
        seen.extend(new)
    assert_ended_well(seen, failed=fault_after is not None and steps > fault_after)


def faults(command: ev.Command) -> list[ev.Event]:
    """Those that no other agent can make good; test_coordinator_recovery.py has the others."""
    anywhere: list[ev.Event] = [ev.Cancelled(reason="test"), ev.DriverFailed(failure=NO_MODULE)]
    match command:
        case ev.StartTask(agent=agent, stage_id=stage_id, task=task):
            failed = ev.TaskFailed(agent=agent, stage_id=stage_id, task=task, attempt=0, failure=NO_MODULE)
            return [*anywhere, failed]
        case ev.Prepare(agent=agent):
            return [*anywhere, ev.PrepareFailed(agent=agent, failure=NO_MODULE)]
        case ev.OpenFolder() | ev.PublishFolder():
            return [*anywhere, ev.FolderFailed(failure=PEER_LOST)]
    return anywhere


def assert_ended_well(seen: list[ev.Command], *, failed: bool) -> None:
    count = kinds(seen)
    assert (count["Fail"], count["Finish"]) == ((1, 0) if failed else (0, 1))
    asked = [command.agent for command in seen if isinstance(command, ev.Prepare)]
    ended = [command.agent for command in seen if isinstance(command, ev.EndJob)]
    assert sorted(asked) == sorted(ended)
    tasks = [(command.stage_id, command.task) for command in seen if isinstance(command, ev.StartTask)]
    assert len(tasks) == len(set(tasks))
    assert failed is False or not any(command.keep_result for command in seen if isinstance(command, ev.EndJob))
    if not failed:
        (finish,) = [command for command in seen if isinstance(command, ev.Finish)]
        assert all(s.tasks_done == s.tasks_total for s in finish.finished.stages)
        assert all(r.rows_in == r.rows_out and r.sum_in == r.sum_out for r in finish.finished.shuffles)
