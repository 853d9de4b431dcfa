"""Tasks that group their rows before they send them, and give that up where it does not pay."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.agent.coordination.stage_run import StageRun
from sabot.agent.tasks.partial_grouping import PROBED_ROWS, PartialGrouping
from sabot.dataflow.aggregation import split_aggregation
from sabot.dataflow.execution import apply_table_step
from sabot.dataflow.expressions import project_table
from sabot.dataflow.stage import HashShuffle, PartitionSplit, ScanInput, ShuffleInput, Stage
from sabot.wire.agent_pb2 import RunTaskReply
from tests.dataflow.comparing import assert_same_rows
from tests.jobs.in_process import InProcessCluster

AGGREGATIONS = (("x", "sum"), ("x", "count"), ("x", "mean"), ("x", "min_max"), ([], "count_all"))
PROBED = 8


class Grouped:
    """What a PartialGrouping made of a table whose batches have `batch_rows`."""

    def __init__(self, table: pa.Table, batch_rows: int, *, probed_rows: int = PROBED, bytes_max: int = 0) -> None:
        split = split_aggregation(("k",), AGGREGATIONS, table.schema)
        assert split is not None and split.before is not None and split.partial.each_row is not None
        step, form = split.partial, split.partial.each_row
        rows = project_table(table, split.before.names, split.before.expressions)
        self.grouped: list[int] = []
        self.passed_on = 0

        def group(piece: pa.Table) -> pa.Table:
            self.grouped.append(piece.num_rows)
            return apply_table_step(step, [piece])

        def pass_on(stream: Iterator[list[pa.RecordBatch]]) -> Iterator[list[pa.RecordBatch]]:
            for batches in stream:
                self.passed_on += sum(batch.num_rows for batch in batches)
                yield project_table(pa.Table.from_batches(batches), form.names, form.expressions).to_batches()

        grouping = PartialGrouping(
            step,
            rows.schema,
            call=lambda function: function(),
            group=group,
            pass_on=pass_on,
            probed_rows=probed_rows,
            bytes_max=bytes_max,
        )
        pieces = grouping.run(iter([[batch] for batch in rows.to_batches(max_chunksize=batch_rows)]))
        schema = apply_table_step(step, [rows.schema.empty_table()]).schema
        self.partial = pa.Table.from_batches(
            [pa.RecordBatch.from_arrays(batch.columns, schema=schema) for batches in pieces for batch in batches],
            schema,
        )
        self.answer = apply_table_step(split.final, [self.partial])


def table_of(keys: list[Any]) -> pa.Table:
    values = [None if row % 5 == 0 else row for row in range(len(keys))]
    return pa.table({"k": pa.array(keys, pa.string()), "x": pa.array(values, pa.int32())})


def check(keys: list[Any], batch_rows: int) -> Grouped:
    table = table_of(keys)
    grouped = Grouped(table, batch_rows)
    assert_same_rows(grouped.answer, table.group_by("k", use_threads=False).aggregate(list(AGGREGATIONS)))
    return grouped


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_grouping_is_given_up_where_nearly_every_row_is_a_group(batch_rows: int) -> None:
    grouped = check([str(row) for row in range(40)] + [None, None, "1", "2"], batch_rows)
    assert grouped.grouped == [PROBED]
    assert grouped.passed_on == 44 - PROBED


@pytest.mark.parametrize("way", ["whole", "pieces", "given up"])
def test_no_more_rows_are_grouped_at_a_time_than_may_be_in_memory(way: str) -> None:
    keys = {
        "whole": [str(row % 3) for row in range(200)],
        "pieces": [str(row // 3) for row in range(200)],
        "given up": [str(row) for row in range(200)],
    }[way]
    table = table_of(keys)
    batch_bytes = max(batch.nbytes for batch in table.to_batches(max_chunksize=2))
    grouped = Grouped(table, 2, probed_rows=100, bytes_max=4 * batch_bytes)
    assert_same_rows(grouped.answer, table.group_by("k", use_threads=False).aggregate(list(AGGREGATIONS)))
    assert grouped.grouped and max(grouped.grouped) <= 16
    assert (grouped.passed_on > 0) == (way == "given up")


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_rows_in_runs_of_equal_keys_are_grouped_piece_by_piece(batch_rows: int) -> None:
    grouped = check([str(row // 4) for row in range(42)] + [None] * 4, batch_rows)
    assert grouped.grouped == [PROBED] * 5 + [6]
    assert grouped.passed_on == 0


@pytest.mark.parametrize("batch_rows", [1, 3, 100])
def test_few_groups_in_any_order_are_grouped_all_at_once_after_the_probe(batch_rows: int) -> None:
    grouped = check([str(row % 3) for row in range(42)], batch_rows)
    assert grouped.grouped == [PROBED, 42 - PROBED]


def test_runs_of_equal_numbers_are_groups_without_a_hash_table() -> None:
    keys = [n // 4 for n in range(24_000)] + [7, 8, 9] * 2000
    table = pa.table({"k": keys, "x": pa.array(range(len(keys)), pa.int32())})
    grouped = Grouped(table, 1000, probed_rows=6000)
    assert grouped.grouped == [6000]  # the last piece, of which each row is a run
    assert grouped.partial.num_rows == 6000 + 3
    assert_same_rows(grouped.answer, table.group_by("k", use_threads=False).aggregate(list(AGGREGATIONS)))


def test_runs_whose_keys_come_again_are_no_groups() -> None:
    keys = [n // 4 % 5 for n in range(24_000)]
    table = pa.table({"k": keys, "x": pa.array(range(len(keys)), pa.int32())})
    grouped = Grouped(table, 1000, probed_rows=6000)
    assert grouped.grouped == [6000, 18_000]
    assert grouped.partial.num_rows == 10


@pytest.mark.parametrize("count", [0, 1, PROBED - 1, PROBED, PROBED + 1])
def test_few_rows_are_grouped_once(count: int) -> None:
    grouped = check(["a" if row % 2 else None for row in range(count)], 3)
    assert grouped.grouped == [min(count, PROBED)] + [1] * (count > PROBED)


def test_what_is_decided_does_not_depend_on_how_the_rows_are_cut() -> None:
    for keys in (
        [str(row) for row in range(40)],
        [str(row // 4) for row in range(40)],
        [str(row % 3) for row in range(40)],
    ):
        assert len({check(keys, batch_rows).partial.num_rows for batch_rows in (1, 2, 7, 40)}) == 1


def test_rows_that_do_not_reduce_cross_the_shuffle_as_they_are_and_the_answer_is_exact() -> None:
    count = 2 * PROBED_ROWS + 100_000
    keys = list(range(count // 2)) * 2
    random.Random(5).shuffle(keys)
    table = pa.table({"k": keys, "x": pc.random(count, initializer=5)})
    aggregations = [("x", "sum"), ("x", "mean"), ("x", "count"), ("x", "max")]
    with InProcessCluster(1) as cluster:
        with cluster.connect().from_table(table).group_by("k").aggregate(aggregations).run() as result:
            answer = result.to_table()
            sent = result.stats.stages[0].rows_out
            assert result.receipt.exact
        cluster.check_nothing_held()
    probed = len(set(keys[:PROBED_ROWS]))
    assert sent == probed + count - PROBED_ROWS
    expected = table.group_by("k").aggregate(aggregations).sort_by("k")
    answer = answer.sort_by("k")
    assert answer["k"].equals(expected["k"]) and answer["x_count"].equals(expected["x_count"])
    assert answer["x_max"].equals(expected["x_max"])
    for name in ("x_sum", "x_mean"):
        off = pc.max(pc.abs(pc.divide(pc.subtract(answer[name], expected[name]), expected[name]))).as_py()
        assert off < 1e-9


@pytest.mark.parametrize("shuffled", [True, False])
def test_a_replay_may_have_other_partial_groups_only_where_its_rows_came_in_another_order(shuffled: bool) -> None:
    split = split_aggregation(("k",), (("x", "sum"),), table_of([]).schema)
    assert split is not None
    source = (
        ShuffleInput(stage_ids=(0,))
        if shuffled
        else ScanInput(format="parquet", files=(), columns=None, schema=pa.schema([]))
    )
    stage = Stage(
        stage_id=1,
        label="",
        input=source,
        steps=(split.partial,),
        output=HashShuffle(keys=("k",)),
        schema=pa.schema([("k", pa.string()), ("x_sum", pa.int64())]),
    )
    run = StageRun(stage, tasks_expected=1, repeatable=True)
    run.start([PartitionSplit(partition=0)])
    run.queue(lambda _: None, lambda _: True)
    first = run.take(0, now_s=0.0)
    assert first is not None
    run.commit(first, RunTaskReply(rows_out=10), now_s=0.0)
    replay = replace(first, attempt=1, partitions=frozenset({0}))
    assert run.is_unlike(replay, RunTaskReply(rows_out=11)) is not shuffled
