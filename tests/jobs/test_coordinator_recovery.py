"""A lost agent costs the lost work and not the job, in whatever order things happen; nothing else is done again."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.hot_partitions import HotRule
from sabot.agent.coordination.range_choice import RangeRule
from sabot.agent.coordination.slow_tasks import SlowRule
from sabot.agent.coordination.stage_run import StageRun
from sabot.dataflow.stage import HashShuffle, JobPlan, RoundRobinShuffle, WriteOutput
from sabot.errors import JobCancelled, PeerLost, PeerRefused, ShuffleIntegrityError
from sabot.wire.failure import from_failure, to_failure

from .job_world import (
    JOB_ID,
    broadcast_plan,
    chain_plan,
    group_plan,
    hot_plan,
    join_plan,
    kinds,
    make_coordinator,
    member,
    sort_plan,
    tell,
)
from .recovery_world import Agents, Row, Walk, all_rows, lost

WRITE = WriteOutput(folder="/out", format="parquet")


def answer_of(agents: Agents, commands: list[ev.Command]) -> list[Row]:
    """The rows of the job's answer, where it has one."""
    finish = commands[-1]
    assert isinstance(finish, ev.Finish), from_failure(finish.failure) if isinstance(finish, ev.Fail) else finish
    published = [command for command in commands if isinstance(command, ev.PublishFolder)]
    if published:
        return [row for file in published[0].files for row in agents.files[file]]
    rows = []
    for task, part in enumerate(finish.finished.partitions):
        agent = int(part.agent_id.removeprefix("agent-"))
        assert agent in agents.coordinator.living
        rows += agents.results[agent, task]
    return rows


def assert_ended_once_everywhere(commands: list[ev.Command]) -> None:
    asked = [command.agent for command in commands if isinstance(command, ev.Prepare)]
    ended = [command.agent for command in commands if isinstance(command, ev.EndJob)]
    assert sorted(asked) == sorted(ended)
    assert kinds(commands)["Finish"] + kinds(commands)["Fail"] == 1


@settings(max_examples=500, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_agents=st.integers(2, 5),
    groups=st.lists(st.integers(0, 30), min_size=1, max_size=8),
    shape=st.sampled_from(["group", "join", "write", "chain", "round robin", "hot join", "broadcast", "sort"]),
    fickle=st.booleans(),
    blows=st.integers(0, 4),
    joins=st.integers(0, 2),
)
def test_every_row_comes_once_whoever_dies_and_whenever(
    *, seed: int, num_agents: int, groups: list[int], shape: str, fickle: bool, blows: int, joins: int
) -> None:
    plan = {
        "group": group_plan(*groups),
        "join": join_plan(*groups, uploads=(0, 0)),
        "write": join_plan(*groups, uploads=(0, 0), output=WRITE),
        "hot join": hot_plan(*groups),
        "broadcast": broadcast_plan(*groups),
        "sort": sort_plan(*groups),
        "chain": chain_plan(*groups, output=HashShuffle(keys=("k",))),
        "round robin": chain_plan(*groups, output=RoundRobinShuffle()),
    }[shape]
    agents = [member(index, slots=1 + index % 2) for index in range(num_agents)]
    coordinator = make_coordinator(
        plan,
        *agents,
        hot=HotRule(factor=1.0, rows_min=0),
        slow=SlowRule(factor=2.0, median_s_min=0.1),
        ranges=RangeRule(rows_min=1),
    )
    world = Agents(plan, coordinator, fickle=fickle, skewed=shape == "hot join")
    commands = Walk(agents=world, rng=random.Random(seed), blows=blows, joins=joins).run(num_agents)
    assert Counter(answer_of(world, commands)) == all_rows(plan, commands)
    assert_ended_once_everywhere(commands)
    finish = commands[-1]
    assert isinstance(finish, ev.Finish)
    for receipt in finish.finished.shuffles:
        assert receipt.rows_in + receipt.copies == receipt.rows_out
        assert (receipt.sum_in + receipt.sum_copies) % 2**64 == receipt.sum_out
    assert len(finish.finished.agents_joined) <= joins
    assert all(s.tasks_done == s.tasks_total for s in finish.finished.stages)


class Job:
    """A job whose commands are carried out in order until a test says that something else happens."""

    def __init__(self, plan: JobPlan, num_agents: int, *, hot: HotRule | None = None, **more: int) -> None:
        self.plan = plan
        members = [member(index) for index in range(num_agents)]
        self.coordinator = make_coordinator(plan, *members, hot=hot, ranges=RangeRule(rows_min=1), **more)
        self.agents = Agents(plan, self.coordinator, skewed=hot is not None)
        self.told: list[ev.Command] = []
        self.waiting: list[ev.Command] = []
        self.tell(ev.JobStarted())

    def tell(self, event: ev.Event) -> list[ev.Command]:
        commands = tell(self.coordinator, event)
        self.told += commands
        self.waiting += commands
        return commands

    def go_on(
        self, until: type[ev.StartTask] | None = None, *, stage_id: int = 0, attempt: int = 0, count: int = 1
    ) -> None:
        """Carry out commands until the next one is the `count`th such StartTask of `stage_id`, or to the end."""
        while self.waiting:
            command = self.waiting[0]
            if (
                until is not None
                and isinstance(command, ev.StartTask)
                and (command.stage_id, command.attempt) == (stage_id, attempt)
            ):
                count -= 1
                if count == 0:
                    return
            for event in self.agents.answer(self.waiting.pop(0)):
                self.tell(event)

    def kill(self, agent: int) -> list[ev.Command]:
        self.agents.dead.add(agent)
        return self.tell(lost(agent))

    def check(self) -> None:
        self.go_on()
        assert Counter(answer_of(self.agents, self.told)) == all_rows(self.plan, self.told)

    def started(self, stage_id: int) -> list[ev.StartTask]:
        return [one for one in self.told if isinstance(one, ev.StartTask) and one.stage_id == stage_id]


def test_only_lost_partitions_are_sent_again() -> None:
    job = Job(group_plan(5, 6, 7, 8), 3)
    job.go_on(ev.StartTask, stage_id=1)
    owned = {p for p in range(6) if p % 3 == 1}
    job.kill(1)
    job.check()
    replays = [command for command in job.started(0) if command.attempt > 0]
    assert {command.task for command in replays} == {0, 1, 2, 3}
    assert all(command.partitions == owned for command in replays)
    assert job.agents.sent_again == {0: 4 * len(owned)}


def test_partitions_read_before_their_owner_died_are_not_sent_again_where_they_fed_a_shuffle_that_lives() -> None:
    """The answer's one partition is on agent 0: what agent 1 read of it and passed on is there already."""
    job = Job(join_plan(5, 5), 2)
    job.go_on(ev.StartTask, stage_id=3)
    job.kill(1)
    job.check()
    assert not any(command.attempt for stage_id in (0, 1, 2) for command in job.started(stage_id))


def test_what_a_replay_reads_is_replayed_too_where_it_is_lost() -> None:
    job = Job(chain_plan(5, 6, 7, output=HashShuffle(keys=("k",))), 3)
    job.go_on(ev.StartTask, stage_id=2)
    job.kill(2)
    job.check()
    assert job.agents.sent_again[0] == 3 * 2 and job.agents.sent_again[1] == 6 * 2


def test_result_partitions_of_a_lost_agent_are_made_again_and_the_others_kept() -> None:
    job = Job(group_plan(5, 6, 7), 3)
    job.go_on(ev.StartTask, stage_id=1, count=6)
    job.kill(1)
    job.check()
    again = {command.task for command in job.started(1) if command.attempt > 0}
    assert again and again <= {1, 4}


def test_agent_that_dies_with_a_part_of_the_answer_is_missed_before_the_job_ends() -> None:
    job = Job(group_plan(5, 6, 7), 3)
    while not any(isinstance(one, ev.CheckAgents) for one in job.waiting):
        for event in job.agents.answer(job.waiting.pop(0)):
            job.tell(event)
    job.agents.dead.add(1)
    job.check()
    assert {one.task for one in job.started(1) if one.attempt > 0} == {1, 4}


def test_answer_made_again_during_the_last_look_is_looked_at_again() -> None:
    job = Job(group_plan(5, 6, 7), 3)
    while not any(isinstance(one, ev.CheckAgents) for one in job.waiting):
        for event in job.agents.answer(job.waiting.pop(0)):
            job.tell(event)
    job.waiting.clear()  # the look takes its time
    job.kill(1)
    job.go_on()
    assert not job.coordinator.ended
    assert [type(one) for one in job.tell(ev.AgentsChecked())] == [ev.CheckAgents]
    job.check()


def test_stage_whose_replay_placed_rows_otherwise_begins_anew_with_all_that_read_it() -> None:
    job = Job(chain_plan(9, 9, 9, output=RoundRobinShuffle()), 3)
    job.go_on(ev.StartTask, stage_id=2)
    job.kill(1)
    job.check()
    assert {one.task for one in job.started(0) if one.attempt > 1 and one.partitions is None} == {0, 1, 2}
    assert {one.task for one in job.started(1) if one.attempt > 0 and one.partitions is None} == set(range(6))


def test_stage_that_placed_rows_as_before_is_replayed_though_nothing_says_that_it_must() -> None:
    job = Job(chain_plan(9, 9, 9, output=RoundRobinShuffle()), 3)
    job.agents.fickle = False
    job.go_on(ev.StartTask, stage_id=2)
    job.kill(1)
    job.check()
    assert all(one.partitions is not None for stage_id in (0, 1) for one in job.started(stage_id) if one.attempt)


def test_replay_that_is_taken_on_trust_mixes_two_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The guard off: rows are lost or doubled, and only the digest has told."""
    monkeypatch.setattr(StageRun, "is_unlike", lambda *_: False)
    job = Job(chain_plan(9, 9, 9, output=RoundRobinShuffle()), 3)
    job.go_on(ev.StartTask, stage_id=2)
    job.kill(1)
    job.go_on()
    assert Counter(answer_of(job.agents, job.told)) != all_rows(job.plan, job.told)


def test_upload_that_only_the_lost_agent_held_is_asked_for_again() -> None:
    """The coordinator lets go of the job, for the client to bring the rows and have it taken over."""
    job = Job(join_plan(5, 5, uploads=(1,)), 2)
    job.go_on(ev.StartTask, stage_id=0)
    job.kill(1)
    job.go_on()
    dropped = job.told[-1]
    assert isinstance(dropped, ev.Drop) and dropped.failure is not None and job.coordinator.ended
    error = from_failure(dropped.failure)
    assert isinstance(error, PeerLost) and "agent-1" in str(error) and "uploaded table" in str(error)
    assert error.facts["upload"] == member(1).flight_address
    assert kinds(job.told)["EndJob"] == 0  # what the others hold of the job is wanted still


def test_agent_lost_while_it_prepares_costs_the_job_its_slots_only() -> None:
    job = Job(group_plan(5, 6, 7), 3)
    job.agents.dead.add(1)
    job.tell(ev.PrepareFailed(agent=1, failure=to_failure(PeerLost("gone", agent="agent-1"))))
    job.check()
    assert {command.agent for command in job.started(0)} == {0, 2}


@pytest.mark.parametrize("kind", [JobCancelled, PeerLost, PeerRefused])
def test_agent_that_does_not_take_the_new_table_is_given_up_too(kind: type) -> None:
    job = Job(group_plan(5, 6, 7), 4)
    job.go_on(ev.StartTask, stage_id=1)
    job.kill(3)
    job.waiting = [one for one in job.waiting if getattr(one, "agent", 0) != 2]
    job.agents.dead.add(2)
    job.tell(ev.ReownFailed(agent=2, epoch=1, failure=to_failure(kind("has ended on agent agent-2"))))
    job.check()
    assert job.coordinator.living == (0, 1)


def test_refusal_of_a_table_that_is_overtaken_is_no_failure() -> None:
    job = Job(group_plan(5, 6, 7), 4)
    job.go_on(ev.StartTask, stage_id=1)
    job.kill(3)
    job.kill(2)
    overtaken = to_failure(PeerRefused("the owner table of epoch 1 came after that of epoch 2"))
    assert job.tell(ev.ReownFailed(agent=1, epoch=1, failure=overtaken)) == []
    job.check()


def test_agent_that_has_ended_the_job_by_itself_is_lost_and_nobody_cancelled() -> None:
    job = Job(group_plan(5, 6), 2)
    job.go_on(ev.StartTask)
    job.waiting.sort(key=lambda one: getattr(one, "agent", 0) != 1)
    job.agents.dead.add(1)
    job.tell(failing(job, JobCancelled("job has ended on agent agent-1")))
    job.check()
    alone = Job(group_plan(5), 1)
    alone.go_on(ev.StartTask)
    commands = alone.tell(failing(alone, JobCancelled("job has ended on agent agent-0")))
    assert isinstance(commands[-1], ev.Fail) and isinstance(from_failure(commands[-1].failure), PeerLost)


def test_last_agent_lost_ends_the_job() -> None:
    job = Job(group_plan(5), 2)
    job.kill(1)
    assert kinds(job.kill(0)) == {"EndJob": 1, "Fail": 1}


def failing(job: Job, error: Exception) -> ev.TaskFailed:
    """The oldest task that runs has failed with `error`."""
    command = next(one for one in job.waiting if isinstance(one, ev.StartTask))
    job.waiting.remove(command)
    return ev.TaskFailed(
        agent=command.agent,
        stage_id=command.stage_id,
        task=command.task,
        attempt=command.attempt,
        failure=to_failure(error),
    )


@pytest.mark.parametrize("kind", [PeerLost, PeerRefused])
def test_task_that_fails_because_of_the_cluster_is_tried_again_once_it_is_known_who_is_lost(kind: type) -> None:
    job = Job(group_plan(5, 6), 2)
    job.go_on(ev.StartTask)
    assert [type(one) for one in job.tell(failing(job, kind("broken off")))] == [ev.CheckAgents]
    job.check()
    assert sorted(one.attempt for one in job.started(0)) == [0, 0, 1]


def test_task_that_fails_too_often_ends_the_job_with_every_failure_told() -> None:
    job = Job(group_plan(5), 1)
    for number in range(4):
        job.go_on(ev.StartTask, attempt=number)
        job.tell(failing(job, PeerLost(f"broken {number}")))
    job.go_on()
    failed = job.told[-1]
    assert isinstance(failed, ev.Fail)
    error = from_failure(failed.failure)
    assert isinstance(error, PeerLost) and "broken 3" in str(error)
    notes = "\n".join(error.__notes__)
    assert all(f"broken {number}" in notes for number in range(3))


def test_failures_that_a_lost_agent_explains_are_not_counted() -> None:
    job = Job(group_plan(5), 5)
    for number, agent in enumerate((4, 3, 2, 1)):
        job.go_on(ev.StartTask, attempt=number)
        job.agents.dead.add(agent)
        job.tell(failing(job, PeerLost("broken off", address=member(agent).flight_address)))
    job.check()


def test_exception_of_the_users_function_is_not_tried_again() -> None:
    job = Job(group_plan(5), 2)
    job.go_on(ev.StartTask)
    commands = job.tell(failing(job, ZeroDivisionError("seven")))
    assert kinds(commands) == {"EndJob": 2, "Fail": 1}


@pytest.mark.parametrize("kind", [PeerLost, ShuffleIntegrityError])
def test_partition_that_its_reader_finds_spoilt_is_sent_again(kind: type) -> None:
    job = Job(group_plan(5, 6, 7), 2)
    job.go_on(ev.StartTask, stage_id=1)
    partition = next(one for one in job.waiting if isinstance(one, ev.StartTask)).task
    job.tell(failing(job, kind("spoilt", shuffle=f"{JOB_ID}/0", partition=partition)))
    job.check()
    assert [one.partitions for one in job.started(0) if one.attempt] == [{partition}] * 3


def test_partition_that_is_wrong_after_its_replay_ends_the_job() -> None:
    job = Job(group_plan(5, 6, 7), 1)
    for attempt in range(2):
        job.go_on(ev.StartTask, stage_id=1, attempt=attempt)
        commands = job.tell(failing(job, ShuffleIntegrityError(f"wrong {attempt}", shuffle=f"{JOB_ID}/0")))
    assert isinstance(commands[-1], ev.Fail) and "wrong 1" in str(from_failure(commands[-1].failure))
