"""Which side of a join is copied to every agent, by what is known of its size before the job runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from sabot.agent.files.parquet_sizes import decoded_bytes
from sabot.dataflow.dataset import Dataset
from sabot.dataflow.estimates import bytes_at_most, size_of
from sabot.dataflow.join_types import SIDES_TO_CUT
from sabot.dataflow.persisted import PersistedNode
from sabot.dataflow.plan import Node, ScanNode
from sabot.dataflow.planner import plan_job
from sabot.dataflow.pruning import pruned
from sabot.dataflow.repeatable import repeatable_stages
from sabot.dataflow.stage import (
    BroadcastJoin,
    BroadcastShuffle,
    HashShuffle,
    JobPlan,
    Join,
    ResultOutput,
    SourceFile,
)
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.interpreter import InterpreterSession
from tests.dataflow.join_oracle import JOIN_TYPES, join_options, pyarrow_join
from tests.dataflow.tables import join_sides

LIMIT = 1000
SESSION = InterpreterSession(broadcast_bytes_max=LIMIT)
SMALL = pa.table({"k": pa.array(range(10)), "s": [f"{i}" for i in range(10)]})
LARGE = pa.table({"k": pa.array(range(1000)), "v": pa.array(range(1000))})
MEAN = 8.125  # bytes of a nullable int64


def small() -> Dataset:
    return SESSION.from_table(SMALL)


def large() -> Dataset:
    return SESSION.from_table(LARGE)


def plan_of(planned: Dataset, limit: int = LIMIT) -> JobPlan:
    return plan_job(planned._node, job_id="job", broadcast_bytes_max=limit)


def copied(planned: Dataset, limit: int = LIMIT) -> list[int]:
    """The sides that are copied, in the order of the joins."""
    return [step.side for stage in plan_of(planned, limit).stages for step in stage.steps if is_copy(step)]


def is_copy(step: Any) -> bool:
    return isinstance(step, BroadcastJoin)


@pytest.mark.parametrize("join_type", JOIN_TYPES)
def test_small_side_is_copied_where_it_gives_no_row_by_itself(join_type: Any) -> None:
    for side, (left, right) in enumerate([(small(), large()), (large(), small())]):
        expected = [side] if 1 - side in SIDES_TO_CUT[join_type] else []
        assert copied(left.join(right, "k", join_type=join_type)) == expected


def test_of_two_small_sides_the_smaller_one_is_copied() -> None:
    assert copied(small().head(3).join(small(), "k", join_type="inner", right_suffix="_r")) == [0]
    assert copied(small().join(small().head(3), "k", join_type="inner", right_suffix="_r")) == [1]


def test_what_is_just_within_the_limit_is_copied_and_what_is_above_is_not() -> None:
    joined = large().join(small(), "k", join_type="inner")
    size = bytes_at_most(small()._node)
    assert size is not None
    assert copied(joined, size) == [1] and copied(joined, size - 1) == []


def test_side_that_is_not_much_smaller_than_the_other_is_not_copied() -> None:
    side = SESSION.from_table(pa.table({"k": pa.array(range(20_000))}))
    for times, expected in ((30, []), (34, [1])):
        other = SESSION.from_table(pa.table({"k": pa.array(range(times * 20_000))}))
        assert copied(other.join(side, "k", join_type="left semi"), 1 << 20) == expected
        unknown = other.map_batches(lambda batch: batch, schema=other.schema)
        assert copied(unknown.join(side, "k", join_type="left semi"), 1 << 20) == [1]


def test_nothing_is_copied_without_a_limit() -> None:
    assert copied(large().join(small(), "k", join_type="inner"), 0) == []
    nothing = SESSION.from_table(SMALL.slice(0, 0))
    assert copied(large().join(nothing, "k", join_type="inner"), 0) == []


def test_join_goes_on_in_the_stage_of_the_large_side() -> None:
    plan = plan_of(large().filter(pc.field("v") > 1).join(small(), "k", join_type="inner"))
    assert [type(stage.output) for stage in plan.stages] == [BroadcastShuffle, ResultOutput]
    assert plan.stages[1].copied == plan.stages[1].reads == (0,)
    assert plan.stages[0].output == BroadcastShuffle(keys=("k",), bytes_estimated=130, bytes_max=LIMIT)


def test_chain_of_joins_is_one_stage_and_a_shuffled_join_goes_on_with_copies() -> None:
    chain = large().join(small(), "k", join_type="inner").join(small().rename_columns(["v", "t"]), "v")
    assert [len(stage.copied) for stage in plan_of(chain).stages] == [0, 0, 2]
    other = large().rename_columns(["k", "u"])
    plan = plan_of(large().join(other, "k").join(small(), "k"))
    assert [type(step) for step in plan.stages[-1].steps] == [Join, BroadcastJoin]
    assert len(plan.stages[-1].reads) == 3


def test_parts_of_a_union_are_joined_with_the_same_copy() -> None:
    united = large().union(large().filter(pc.field("v") > 500)).join(small(), "k", join_type="inner")
    plan = plan_of(united)
    assert [stage.copied for stage in plan.stages] == [(), (0,), (0,), ()]
    expected = pa.concat_tables([LARGE, LARGE.slice(501)]).join(SMALL, "k", join_type="inner")
    assert_same_rows(united.to_table(), expected)


def test_only_columns_that_are_needed_count() -> None:
    wide = SMALL.append_column("text", pa.array(["x" * 500] * 10))
    joined = large().join(SESSION.from_table(wide), "k", join_type="inner")
    assert copied(joined) == [] and copied(joined.select(["k", "s"])) == [1]


def size(planned: Dataset) -> int | None:
    return bytes_at_most(pruned(planned._node))


def test_sizes_are_bounds() -> None:
    of_small, of_large = size(small()), size(large())
    assert of_small is not None and of_large == 1000 * 16
    assert size(small().filter(pc.field("k") > 5)) == size(small().sort_by("k")) == of_small
    assert size(large().head(10)) == 160
    assert size(large().select(["v"])) == 8000
    assert size(large().append_column("w", pc.field("v") + 1).select(["w"])) == int(1000 * MEAN)
    assert size(large().group_by([]).aggregate([("v", "sum")])) == int(MEAN)
    assert size(large().group_by("k").aggregate([("v", "sum")])) == int(1000 * (8 + MEAN))
    assert size(large().group_by("k").aggregate([("v", "list")])) == 1000 * (8 + 12)
    upper = small().append_column("t", pc.utf8_upper(pc.field("s")))
    assert size(upper.select(["t"])) == SMALL["s"].nbytes and size(upper.select(["s", "t"])) == 2 * SMALL["s"].nbytes
    assert size(large().union(large().head(10))) == 1010 * 16
    mapped = large().map_batches(lambda batch: batch)
    assert size(mapped) is size(large().union(mapped)) is None


def test_joined_rows_may_all_match_and_those_of_one_side_stay_as_many() -> None:
    rows = {
        kind: size_of(pruned(small().join(large(), "k", join_type=kind)._node)).rows  # type: ignore[union-attr]
        for kind in JOIN_TYPES
    }
    assert rows["inner"] == 10 * 1000 and rows["full outer"] == 10 * 1000 + 1010
    assert rows["left semi"] == rows["left anti"] == 10 and rows["right anti"] == 1000


def test_dictionaries_count_as_what_they_stand_for() -> None:
    words = pa.array([f"{'word' * 10}{i % 100:03}" for i in range(1000)])
    plain, encoded = (
        size(SESSION.from_table(pa.table({"w": column}))) for column in (words, words.dictionary_encode())
    )
    assert plain is not None and encoded is not None and plain <= encoded <= 1.1 * plain


FILE = SourceFile(path="a", size_bytes=100, modified_ns=1, row_group_rows=(5, 5), row_group_bytes=(50, 50))


def scan(format: Any, **widths: float) -> Node:
    schema = pa.schema([("k", pa.int64()), ("s", pa.string())])
    return ScanNode(format=format, files=(FILE,), file_schema=schema, column_widths=widths)


def test_files_are_as_large_as_their_footers_say_or_unknown() -> None:
    known = scan("parquet", k=8, s=20.5)
    assert bytes_at_most(known) == 285
    assert bytes_at_most(replace(known, row_groups=((1,),))) == 142  # type: ignore[type-var]
    assert bytes_at_most(scan("parquet", k=8)) is None


def test_persisted_rows_are_known_where_their_widths_are() -> None:
    held: Any = None
    numbers, texts = pa.schema([("k", pa.int64())]), pa.schema([("s", pa.string())])
    assert bytes_at_most(PersistedNode(table_id="p", result=held, result_schema=numbers, rows=8)) == int(8 * MEAN)
    assert bytes_at_most(PersistedNode(table_id="p", result=held, result_schema=texts, rows=8)) is None


def test_csv_has_a_byte_for_each_value_at_least() -> None:
    size = size_of(scan("csv"))
    assert size is not None and size.rows == 50 and size.num_bytes == int(50 * (MEAN + 2 + 4))


@pytest.mark.parametrize("dictionary", [True, False])
def test_footers_tell_about_what_columns_have_in_memory(tmp_path: Any, dictionary: bool) -> None:
    rows = 10_000
    table = pa.table(
        {
            "n": pa.array(range(rows), pa.int32()),
            "word": [f"word {i % 7}" for i in range(rows)],
            "nested": [{"a": i, "b": [f"{i % 10}", "x"]} for i in range(rows)],
            "text": [f"{i:030}" for i in range(rows)],
        }
    )
    path = str(tmp_path / "t.parquet")
    pq.write_table(table, path, row_group_size=1000, use_dictionary=dictionary)
    with pq.ParquetFile(path) as file:
        found = decoded_bytes(file.metadata, file.schema_arrow)
    for name, num_bytes in found.items():
        assert 0.5 * table[name].nbytes <= num_bytes <= 2 * table[name].nbytes, name


GOLDEN = """\
stage 0: read a table
  from  the client's table with columns k, s
  to    broadcast, a copy for every agent: 130 bytes at most are expected, and up to 1,000 \
(jobs.broadcast_bytes_max) the other side of the join need not be shuffled

stage 1: read a table, join on k
  from  the client's table with columns k, v
  then  inner join on k, the right side this agent's copy of stage 0
  to    the result, fetched by the client
"""


def test_explain_says_what_is_copied_how_large_it_is_and_why() -> None:
    assert large().join(small(), "k", join_type="inner").explain() == GOLDEN


def test_join_with_a_copy_is_repeated_unless_an_aggregate_made_its_keys() -> None:
    joined = large().join(small(), "k", join_type="inner").repartition("v")
    assert repeatable_stages(plan_of(joined)) == {0, 1}
    summed = large().group_by("v").aggregate([("k", "sum")])
    by_key = plan_of(summed.join(small(), "v", "k", join_type="inner").repartition("v"))
    assert [type(stage.output) for stage in by_key.stages[:3]] == [BroadcastShuffle, HashShuffle, HashShuffle]
    assert repeatable_stages(by_key) == {0, 1}  # of which side v is, is not looked at
    by_sum = plan_of(summed.join(small(), "k_sum", "k", join_type="inner").repartition("s"))
    assert repeatable_stages(by_sum) == {0, 1}


@given(sides=join_sides(), options=join_options())
def test_any_two_tables_join_as_in_pyarrow(sides: tuple[pa.Table, pa.Table], options: dict[str, Any]) -> None:
    left, right = sides
    session = InterpreterSession(broadcast_bytes_max=1 << 20)
    answer = session.from_table(left).join(session.from_table(right), **options).to_table()
    assert any(stage.copied for stage in session.plans[0].stages) == (options["join_type"] != "full outer")
    assert_same_rows(answer, pyarrow_join(left, right, **options))
