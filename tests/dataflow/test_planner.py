"""Where plans are cut, and what crosses the cuts."""

from __future__ import annotations

import cloudpickle
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.dataflow.dataset import Dataset
from sabot.dataflow.plan import tables_of
from sabot.dataflow.planner import plan_job
from sabot.dataflow.stage import (
    Aggregate,
    Filter,
    HashShuffle,
    Head,
    JobPlan,
    Join,
    MapBatches,
    Project,
    ResultOutput,
    RoundRobinShuffle,
    ShuffleInput,
    Sort,
    TableInput,
    WriteOutput,
    shuffle_id,
)
from sabot.errors import UsageError
from sabot.wire.packed_function import PackedFunction
from tests.dataflow.interpreter import InterpreterSession

SESSION = InterpreterSession()
TABLE = pa.table({"k": [1, 2], "j": ["a", "b"], "x": [1.0, 2.0]})


def dataset() -> Dataset:
    return SESSION.from_table(TABLE)


def plan_of(planned: Dataset) -> JobPlan:
    return plan_job(planned._node, job_id="job")


def shape(planned: Dataset) -> list[tuple[list[type], object]]:
    """Per stage: the kinds of its steps, and its output."""
    return [([type(step) for step in stage.steps], stage.output) for stage in plan_of(planned).stages]


def test_steps_without_a_shuffle_are_one_stage() -> None:
    planned = dataset().filter(pc.field("k") > 0).select(["k"]).map_batches(lambda batch: batch)
    assert shape(planned) == [([Filter, Project, MapBatches], ResultOutput())]
    (stage,) = plan_of(planned).stages
    assert isinstance(stage.input, TableInput)


def test_a_join_shuffles_both_sides_by_their_keys() -> None:
    right = dataset().rename_columns({"k": "key", "x": "z", "j": "i"})
    plan = plan_of(dataset().join(right, ["k", "j"], ["key", "i"]))
    assert [stage.output for stage in plan.stages] == [
        HashShuffle(keys=("k", "j")),
        HashShuffle(keys=("key", "i")),
        ResultOutput(),
    ]
    assert plan.stages[2].input == ShuffleInput(stage_ids=(0, 1))
    assert [type(step) for step in plan.stages[2].steps] == [Join]


def test_each_stage_comes_after_its_inputs_and_carries_its_place_as_id() -> None:
    side = dataset().group_by("k").aggregate([("x", "sum")])
    plan = plan_of(
        side.join(side, "k", right_suffix="_r").group_by([]).aggregate([("x_sum", "sum")]).sort_by("x_sum_sum")
    )
    assert [stage.stage_id for stage in plan.stages] == list(range(len(plan.stages)))
    for stage in plan.stages:
        if isinstance(stage.input, ShuffleInput):
            assert all(stage_id < stage.stage_id for stage_id in stage.input.stage_ids)


def test_a_grouping_that_can_be_split_shuffles_partial_aggregates() -> None:
    planned = dataset().select(["k", "x"]).group_by("k").aggregate([("x", "sum")])
    assert shape(planned) == [([Project, Aggregate], HashShuffle(keys=("k",))), ([Aggregate], ResultOutput())]
    assert plan_of(planned).stages[0].schema.names == ["k", "x_sum"]


def test_a_grouping_that_cannot_be_split_shuffles_rows() -> None:
    planned = dataset().group_by("k").aggregate([("x", "list")])
    assert shape(planned) == [([Project], HashShuffle(keys=("k",))), ([Aggregate], ResultOutput())]


def test_a_grouping_without_keys_gathers() -> None:
    planned = dataset().group_by([]).aggregate([("x", "sum")])
    assert [stage.output for stage in plan_of(planned).stages] == [HashShuffle(keys=()), ResultOutput()]


def test_a_sort_gathers_and_sorts_once() -> None:
    assert shape(dataset().sort_by("k")) == [([], HashShuffle(keys=())), ([Sort], ResultOutput())]


def test_a_sorted_head_sends_no_more_than_its_rows_from_each_task() -> None:
    expected = [([Sort, Head], HashShuffle(keys=())), ([Sort, Head], ResultOutput())]
    assert shape(dataset().sort_by("k").head(3)) == expected
    through = dataset().sort_by("k").append_column("y", pc.field("x") + 1).head(3)
    assert shape(through) == [expected[0], ([Sort, Head, Project], ResultOutput())]


def test_a_head_is_taken_per_task_and_once_more_of_all() -> None:
    assert shape(dataset().head(3)) == [([Head], HashShuffle(keys=())), ([Head], ResultOutput())]


def test_what_follows_a_gathering_needs_no_further_one() -> None:
    planned = dataset().select(["k", "x"]).sort_by("k").append_column("z", pc.field("x") + 1)
    planned = planned.filter(pc.field("z") > 1).head(2)
    planned = planned.group_by("k").aggregate([("x", "sum")]).sort_by("k")
    assert shape(planned)[1:] == [([Sort, Project, Filter, Head, Project, Aggregate, Sort], ResultOutput())]


def test_repartition_by_keys_hashes_and_without_keys_deals_out() -> None:
    assert plan_of(dataset().repartition("k", 5)).stages[0].output == HashShuffle(keys=("k",), num_partitions=5)
    assert plan_of(dataset().repartition(num_partitions=5)).stages[0].output == RoundRobinShuffle(num_partitions=5)
    assert plan_of(dataset().repartition("k")).stages[0].output == HashShuffle(keys=("k",))


def test_a_repartition_into_one_counts_as_gathering() -> None:
    assert len(plan_of(dataset().repartition(num_partitions=1).sort_by("k")).stages) == 2


def test_write_output_becomes_the_last_stage_s_output() -> None:
    output = WriteOutput(folder="out", format="parquet")
    plan = plan_job(dataset().sort_by("k")._node, job_id="job", output=output)
    assert plan.stages[-1].output == output
    assert not isinstance(plan.stages[0].output, WriteOutput)


def test_planning_twice_gives_the_same_plan() -> None:
    planned = dataset().filter(pc.field("k") > 1).group_by("k").aggregate([("x", "mean")])
    assert repr(plan_of(planned)) == repr(plan_of(planned))


def test_tables_of_a_plan_are_found_once_each() -> None:
    one, other = dataset(), dataset().select(["k"])
    joined = one.join(one, "k", right_suffix="_r").join(other, "k")
    assert list(tables_of(joined._node).values()) == [TABLE]


def test_a_plan_with_lambdas_expressions_and_options_survives_cloudpickle() -> None:
    offset = 7
    planned = (
        dataset()
        .filter(pc.field("k").isin([1, 2]) & pc.starts_with(pc.field("j"), "a"))
        .map_batches(lambda batch: batch.append_column("n", pc.add(batch["x"], offset)))
        .group_by("k")
        .aggregate([("n", "count", pc.CountOptions(mode="all")), ("n", "tdigest", pc.TDigestOptions(q=[0.1, 0.9]))])
    )
    plan = plan_of(planned)
    travelled: JobPlan = cloudpickle.loads(cloudpickle.dumps(plan))
    assert len(travelled.stages) == len(plan.stages)
    for ours, theirs in zip(plan.stages, travelled.stages, strict=True):
        assert ours.schema.equals(theirs.schema)
        assert (ours.output, ours.input) == (theirs.output, theirs.input)
        assert [type(step) for step in ours.steps] == [type(step) for step in theirs.steps]
    filter_step, call = travelled.stages[0].steps[:2]
    assert isinstance(filter_step, Filter) and isinstance(call, MapBatches)
    assert filter_step.expression.equals(plan.stages[0].steps[0].expression)
    assert isinstance(call.function, PackedFunction)
    assert call.function.load()(pa.record_batch({"x": [1.0]}))["n"].to_pylist() == [8.0]
    assert travelled.stages[1].steps == plan.stages[1].steps


def test_a_column_that_cannot_cross_the_wire_is_refused_by_name() -> None:
    column = pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array([[1]]))
    table = pa.table({"k": [1], "odd": column})
    with pytest.raises(
        UsageError, match=r"column 'odd' of type dictionary<values=list.* cannot be sent between agents"
    ):
        plan_of(InterpreterSession().from_table(table).repartition("k"))


def test_the_shuffle_of_a_stage_is_named_after_job_and_stage() -> None:
    assert shuffle_id("job", 3) == "job/3"
