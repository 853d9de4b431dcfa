"""A head over rows in no order: tasks that nobody needs are not started, and those under way end."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.task_dealer import TASKS_AHEAD
from sabot.dataflow.enough_rows import NO_ATTEMPT, rows_wanted
from sabot.dataflow.stage import HashShuffle, Head, JobPlan, ResultOutput, ShuffleInput, Sort, StoredSplit
from tests.jobs.in_process import InProcessCluster
from tests.jobs.job_world import JOB_ID, make_coordinator, member, scan, stage
from tests.jobs.job_world import tell as heard
from tests.jobs.recovery_world import Agents, Walk, source_rows
from tests.jobs.test_coordinator_recovery import answer_of, assert_ended_once_everywhere

GATHER = HashShuffle(keys=())


def head_plan(rows: int, *row_groups: int) -> JobPlan:
    """The first rows of files, whichever they are."""
    return JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(*row_groups), GATHER, (Head(rows=rows),)),
            stage(1, ShuffleInput(stage_ids=(0,)), ResultOutput(), (Head(rows=rows),)),
        ),
    )


def starts(commands: list[ev.Command], stage_id: int) -> list[ev.StartTask]:
    return [command for command in commands if isinstance(command, ev.StartTask) and command.stage_id == stage_id]


def test_no_task_is_started_once_the_rows_are_there_and_those_under_way_are_cancelled() -> None:
    plan = head_plan(15, *[10] * 1000)
    coordinator = make_coordinator(plan, member(0), member(1))
    agents = Agents(plan, coordinator)
    at_once = 2 * (1 + TASKS_AHEAD)
    told: list[ev.Command] = []

    def tell(event: ev.Event) -> list[ev.Command]:
        commands = heard(coordinator, event)
        told.extend(commands)
        return commands

    for command in tell(ev.JobStarted()):
        for event in agents.answer(command):
            tell(event)
    first = starts(told, 0)
    assert len(first) == at_once
    for command in first[:2]:
        for event in agents.answer(command):
            tell(event)
    (reader,) = starts(told, 1)
    assert len(starts(told, 0)) == at_once + 1  # the first that ended made room for one more
    ((stage_id, attempts),) = reader.inputs
    assert stage_id == 0
    assert attempts == (0, 0, *[NO_ATTEMPT] * 998)
    cancelled = {(command.stage_id, command.task) for command in told if isinstance(command, ev.CancelTask)}
    assert cancelled == {(0, task) for task in range(2, at_once + 1)}
    for event in agents.answer(first[2]):
        assert tell(event) == []  # it counts no more
    for event in agents.answer(reader):
        tell(event)
    for event in agents.answer(ev.CheckAgents(table=agents.tables[0])):
        tell(event)
    finish = told[-1]
    assert isinstance(finish, ev.Finish)
    (receipt,) = finish.finished.shuffles
    assert receipt.partial
    assert receipt.rows_in == receipt.rows_out == 20
    assert (
        sum(part.rows for part in finish.finished.partitions) == 20
    )  # in this world a head takes all that it is given


def test_rows_that_are_too_few_have_every_task_run() -> None:
    plan = head_plan(1000, 10, 20, 30)
    coordinator = make_coordinator(plan, member(0))
    world = Agents(plan, coordinator)
    commands = Walk(agents=world, rng=random.Random(1), blows=0).run(1)
    assert len(answer_of(world, commands)) == 60
    assert isinstance(finish := commands[-1], ev.Finish) and not finish.finished.shuffles[0].partial


@settings(max_examples=300, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    num_agents=st.integers(2, 4),
    groups=st.lists(st.integers(0, 30), min_size=1, max_size=12),
    rows=st.integers(0, 60),
    fickle=st.booleans(),
    blows=st.integers(0, 3),
)
def test_the_rows_are_there_once_whoever_dies_and_whenever(
    *, seed: int, num_agents: int, groups: list[int], rows: int, fickle: bool, blows: int
) -> None:
    plan = head_plan(rows, *groups)
    coordinator = make_coordinator(plan, *[member(index) for index in range(num_agents)])
    world = Agents(plan, coordinator, fickle=fickle)
    commands = Walk(agents=world, rng=random.Random(seed), blows=blows).run(num_agents)
    answer = Counter(answer_of(world, commands))
    made = [one for one in starts(commands, 0) if not isinstance(one.split, StoredSplit)]
    splits = {command.task: command.split for command in made}
    there = Counter(row for split in splits.values() for row in source_rows(split))
    assert answer <= there
    assert answer.total() >= min(rows, sum(groups))
    assert_ended_once_everywhere(commands)


@pytest.mark.parametrize(
    ("steps", "output", "wanted"),
    [
        ((Head(rows=7),), GATHER, 7),
        ((Sort(sorting=(("k", "ascending"),)), Head(rows=7)), GATHER, None),
        ((Head(rows=7),), ResultOutput(), None),
        ((Head(rows=7),), HashShuffle(keys=("k",)), None),
        ((), GATHER, None),
    ],
    ids=["head", "head of sorted rows", "head of a gathered stage", "head before a join", "no head"],
)
def test_only_a_head_of_rows_in_no_order_wants_no_more_than_its_rows(
    steps: tuple, output: HashShuffle | ResultOutput, wanted: int | None
) -> None:
    assert rows_wanted(stage(0, scan(1), output, steps)) == wanted


def test_files_that_are_not_needed_are_not_read(tmp_path: Path) -> None:
    for index in range(60):
        pq.write_table(pa.table({"x": range(200 * index, 200 * index + 200)}), tmp_path / f"{index:02}.parquet")
    with InProcessCluster(2, **{"jobs.split_bytes": 1024}) as cluster:
        session = cluster.connect()
        dataset = session.read_parquet(tmp_path)
        for index in range(30, 60):
            (tmp_path / f"{index:02}.parquet").unlink()
        with dataset.head(300).run() as result:
            assert result.num_rows == 300
            assert result.receipt.exact
            (shuffle,) = result.receipt.shuffles
            assert shuffle.partial
            assert 300 <= shuffle.rows_in < 30 * 200
        with pytest.raises(Exception, match="does not see"):
            dataset.sort_by("x").head(300).run()
        cluster.check_nothing_held()


@pytest.mark.parametrize("rows", [0, 1, 100])
def test_a_head_behind_any_shuffle_has_its_rows_and_an_exact_receipt(rows: int) -> None:
    table = pa.table({"x": range(10)})
    with InProcessCluster(2) as cluster:
        source = cluster.connect().from_table(table)
        for dataset in (source, source.group_by("x").aggregate([]), source.repartition("x"), source.sort_by("x")):
            with dataset.head(rows).run() as result:
                answer = result.to_table()["x"].to_pylist()
                assert len(answer) == len(set(answer)) == min(rows, 10) and set(answer) <= set(range(10))
                assert result.receipt.exact, str(result.receipt)
                assert rows == 0 or result.receipt.shuffles[-1].rows_in >= len(answer)
        cluster.check_nothing_held()
