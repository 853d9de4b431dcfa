"""What a content sum catches: rows that are not the same rows have another sum, whatever was done to them."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

import pyarrow as pa
import pytest

from sabot.native import _native

Rows = list[tuple[int, int]]
TRIALS = 20
BITS = 2**64


def unsplit(x: int) -> int:
    """The number whose `split` (docs/protocol.md) is `x`."""

    def unshift(x: int, by: int) -> int:
        found = x
        for _ in range(64 // by):
            found = x ^ (found >> by)
        return found

    x = unshift(x, 31) * pow(0x94D049BB133111EB, -1, BITS) % BITS
    x = unshift(x, 27) * pow(0xBF58476D1CE4E5B9, -1, BITS) % BITS
    return (unshift(x, 30) - 0x9E3779B97F4A7C15) % BITS


# Of what `bind` multiplies with one of these hashes little is left. (Values whose hashes are 2^63 apart may change
# places unseen, which one pair in 2^64 is; so may those of two keys whose hashes differ in the last bit alone.)
HASHES_OF_LITTLE = [0, 1, 1 << 32, BITS - 1]
NUMBERS: dict[str, Callable[[random.Random], int]] = {
    "yes or no": lambda rng: rng.randrange(2),
    "few": lambda rng: rng.randrange(5),
    "dense": lambda rng: rng.randrange(1 << 20),
    "powers of two": lambda rng: 1 << rng.randrange(64),
    "any": lambda rng: rng.randrange(BITS),
}
VALUES = {**NUMBERS, "of a hash that leaves little": lambda rng: unsplit(rng.choice(HASHES_OF_LITTLE))}


def drop_and_double(rows: Rows, rng: random.Random) -> Rows:
    """A row is lost, and another of its key doubled, where there is one."""
    lost = rng.randrange(len(rows))
    others = [row for row in rows if row[0] == rows[lost][0]]
    return [*rows[:lost], *rows[lost + 1 :], rng.choice(others)]


def swap_values(rows: Rows, rng: random.Random) -> Rows:
    """Two rows give each other their values."""
    i, j = rng.sample(range(len(rows)), 2)
    torn = list(rows)
    torn[i], torn[j] = (rows[i][0], rows[j][1]), (rows[j][0], rows[i][1])
    return torn


def shuffle_values(rows: Rows, rng: random.Random) -> Rows:
    """The whole column comes to lie beside other keys."""
    values = [value for _, value in rows]
    rng.shuffle(values)
    return [(key, value) for (key, _), value in zip(rows, values, strict=True)]


def shift_values(rows: Rows, rng: random.Random) -> Rows:
    """A value rises by as much as another falls, so that their own sum stays."""
    i, j = rng.sample(range(len(rows)), 2)
    by = rng.choice([1, 2, 1 << 31, 1 << 63])
    changed = list(rows)
    changed[i] = (rows[i][0], (rows[i][1] + by) % BITS)
    changed[j] = (rows[j][0], (rows[j][1] - by) % BITS)
    return changed


def flip_bits(rows: Rows, rng: random.Random) -> Rows:
    """The same bit of a few values, so that a sum which xors would stay."""
    changed = list(rows)
    bit = 1 << rng.randrange(64)
    for i in rng.sample(range(len(rows)), rng.choice([1, 2])):
        changed[i] = (rows[i][0], rows[i][1] ^ bit)
    return changed


def swap_columns(rows: Rows, rng: random.Random) -> Rows:
    """Values lie where keys should."""
    return [(value, key) for key, value in rows]


def change_key(rows: Rows, rng: random.Random) -> Rows:
    """A row goes under another's key."""
    i, j = rng.sample(range(len(rows)), 2)
    return [*rows[:i], (rows[j][0], rows[i][1]), *rows[i + 1 :]]


ERRORS = [drop_and_double, swap_values, shuffle_values, shift_values, flip_bits, swap_columns, change_key]


def content_sum(rows: Rows) -> int:
    columns = [pa.array([row[column] for row in rows], pa.uint64()) for column in (0, 1)]
    return int(_native.content_sum(pa.record_batch(columns, ["key", "value"]), ["key"], 1))


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: error.__name__)
def test_sum_tells_rows_from_others_whatever_was_done(error: Callable[[Rows, random.Random], Rows]) -> None:
    rng = random.Random(error.__name__)
    for keys, values in list(product(NUMBERS.values(), VALUES.values())) * TRIALS:
        rows = [(keys(rng), values(rng)) for _ in range(rng.choice([2, 3, 30]))]
        wrong = error(rows, rng)
        assert (content_sum(rows) == content_sum(wrong)) == (sorted(rows) == sorted(wrong)), (rows, wrong)


def test_no_two_values_of_one_key_add_the_same() -> None:
    rng = random.Random(1)
    hashes = [*HASHES_OF_LITTLE, *(rng.randrange(BITS) for _ in range(1000)), *(1 << bit for bit in range(64))]
    for key_hash in [*HASHES_OF_LITTLE, *(rng.randrange(BITS) for _ in range(20))]:
        assert len({_native.bind(key_hash, value) for value in set(hashes)}) == len(set(hashes))


def test_sums_of_two_of_the_first_numbers_are_all_different() -> None:
    # Without keys a row adds its value's hash alone: what was a pair of numbers must not look like another pair.
    hashes = _native.hash_column(pa.array(range(1500))).to_pylist()
    sums = [(a + b) % BITS for i, a in enumerate(hashes) for b in hashes[i:]]
    assert len(set(sums)) == len(sums)


@pytest.mark.parametrize("count", [1, 3, 4, 1023, 1024, 1025, 5000])
def test_sum_is_the_same_in_any_order_and_in_any_parts(count: int) -> None:
    rng = random.Random(count)
    rows = [(rng.randrange(50), rng.randrange(BITS)) for _ in range(count)]
    cut = rng.randrange(1, count) if count > 1 else 1
    parts = content_sum(rows[:cut]) + (content_sum(rows[cut:]) if rows[cut:] else 0)
    rng.shuffle(rows)
    assert content_sum(rows) == parts % BITS
