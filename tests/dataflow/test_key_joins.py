"""The inner join by one whole number or moment, which our own index does in place of Acero's join."""

from __future__ import annotations

import random

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from sabot.dataflow.key_join import PROBED_ROWS, key_join
from sabot.dataflow.stage import Join
from tests.dataflow.comparing import assert_same_rows

STEP = Join(keys=("k",), right_keys=("key",), join_type="inner")


def joined(left: pa.Table, right: pa.Table, side: int | None, step: Join = STEP) -> pa.Table:
    by_key = key_join(step, [left, right], side)
    assert by_key is not None
    others = (right, left)[by_key.side]
    return pa.concat_tables([by_key.join(piece) for piece in by_key.pieces(others)])


def expected(left: pa.Table, right: pa.Table) -> pa.Table:
    return left.join(right, "k", "key", join_type="inner", use_threads=False)


def sides(seed: int, *, left_rows: int, right_rows: int, keys: int) -> tuple[pa.Table, pa.Table]:
    """Of several chunks, with keys that meet none, one or many, and nulls."""
    rng = random.Random(seed)

    def column(rows: int) -> pa.Array:
        return pa.array([rng.choice([None, rng.randrange(keys)]) for _ in range(rows)], pa.int64())

    left = pa.table({"k": column(left_rows), "v": pa.array(range(left_rows), pa.int32())})
    right = pa.table({"w": pa.array([[n] for n in range(right_rows)], pa.list_(pa.int64())), "key": column(right_rows)})
    return pa.concat_tables([left.slice(0, 7), left.slice(7)]), pa.concat_tables([right.slice(0, 3), right.slice(3)])


@pytest.mark.parametrize("side", [0, 1, None])
@pytest.mark.parametrize(("left_rows", "right_rows"), [(200, 30), (30, 200), (0, 20), (20, 0), (0, 0)])
@pytest.mark.parametrize("keys", [60, 1000])
def test_pairs_are_those_of_pyarrow_whichever_side_is_indexed(
    side: int | None, left_rows: int, right_rows: int, keys: int, seed: int
) -> None:
    left, right = sides(seed, left_rows=left_rows, right_rows=right_rows, keys=keys)
    plain = right.set_column(0, "w", pc.list_element(right["w"], 0))  # pyarrow joins no lists
    assert_same_rows(joined(left, plain, side), expected(left, plain))
    nested = joined(left, right, side)
    assert nested["w"].to_pylist() == [[n] for n in joined(left, plain, side)["w"].to_pylist()]


def test_rows_of_many_pieces_find_each_its_one_match() -> None:
    count = 2 * PROBED_ROWS + 5
    left = pa.table({"k": pa.array(range(count), pa.timestamp("us")), "v": range(count)})
    answer = joined(left, pa.table({"key": left["k"], "w": left["v"]}), 1)
    assert answer.num_rows == count
    assert answer["v"].equals(answer["w"])


def test_dictionaries_that_differ_by_chunk_keep_their_values() -> None:
    chunks = [pa.array(["a", "b"]).dictionary_encode(), pa.array(["b", "c"]).dictionary_encode()]
    right = pa.table({"key": pa.array([1, 2, 3, 4]), "w": pa.chunked_array(chunks)})
    left = pa.table({"k": pa.array([4, 3, 2, 1, 5]), "v": pa.chunked_array([*chunks, chunks[0].slice(1)])})
    for side in (0, 1):
        answer = joined(left, right, side).sort_by("k")
        assert [answer[name].to_pylist() for name in ("v", "w")] == [["c", "b", "b", "a"], ["a", "b", "b", "c"]]


@pytest.mark.parametrize(
    "step",
    [
        Join(keys=("k",), right_keys=("key",), join_type="left outer"),
        Join(keys=("k", "v"), right_keys=("key", "w"), join_type="inner"),
        Join(keys=("v",), right_keys=("w",), join_type="inner"),
        Join(keys=("k",), right_keys=("key",), join_type="inner", filter_expression=pc.field("v") == pc.field("w")),
    ],
)
def test_other_joins_are_left_to_acero(step: Join) -> None:
    sides_of = [pa.table({"k": [1], "v": ["x"]}), pa.table({"key": [1], "w": ["x"]})]
    assert key_join(step, sides_of) is None


def test_a_key_of_many_rows_is_left_to_acero_and_a_null_of_many_is_not() -> None:
    sides_of = [pa.table({"k": pa.array([1] * 17 + [2])}), pa.table({"key": pa.array([1, None])})]
    assert key_join(STEP, sides_of, 0) is None
    sides_of[0] = pa.table({"k": pa.array([None] * 17 + [2] * 16)})
    assert key_join(STEP, sides_of, 0) is not None


def test_keys_of_two_types_are_left_to_acero() -> None:
    assert key_join(STEP, [pa.table({"k": pa.array([1], pa.int32())}), pa.table({"key": pa.array([1])})]) is None
