"""Grouping a task's rows before they are sent, given up where it hardly reduces them.

The first rows are grouped by themselves. Where nearly each of them was a group, the others go on as groups of one row,
which costs a projection instead of a hash table, and the owner's final grouping gives the same answer. Where equal keys
lie side by side, as in files sorted by them, the others are grouped piece by piece: nothing is gained by more rows at a
time, and a small hash table stays in the cache. What is decided depends on the rows and their order alone, so that a
task that is replayed on the same rows decides the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain

import pyarrow as pa
import pyarrow.compute as pc

Batches = list[pa.RecordBatch]

PROBED_ROWS = 262_144
"""Enough for a few groups of many rows each to show, and few enough that a hash table of them stays in the cache."""

_GIVEN_UP_ABOVE = 0.75  # groups per row
_RUNS_PER_GROUP_MAX = 1.25


def group_in_part(
    stream: Iterator[Batches],
    *,
    keys: Sequence[str],
    gather: Callable[[Iterator[Batches]], pa.Table],
    group: Callable[[pa.Table], pa.Table],
    pass_on: Callable[[Iterator[Batches]], Iterator[Batches]],
    look: Callable[[Callable[[], bool]], bool],
    probed_rows: int = PROBED_ROWS,
) -> Iterator[Batches]:
    """The stream's rows as partial groups, of which a key may have several. `group`, `pass_on` and `look`, which calls
    its argument, do the work in slots.
    """
    piece, others = _first_rows(stream, probed_rows)
    rows = gather(iter([piece]))
    groups = group(rows)
    yield groups.to_batches()
    del piece
    if groups.num_rows > _GIVEN_UP_ABOVE * rows.num_rows:
        yield from pass_on(others)
        return
    if rows.num_rows < probed_rows:
        return
    clustered = look(partial(_lie_in_runs, rows, keys, groups.num_rows))
    del rows, groups
    rows_at_a_time = probed_rows if clustered else None
    while (following := next(others, None)) is not None:
        others = chain([following], others)
        piece, others = _first_rows(others, rows_at_a_time)
        del following
        yield group(gather(iter([piece]))).to_batches()


def _first_rows(stream: Iterator[Batches], rows_wanted: int | None) -> tuple[Batches, Iterator[Batches]]:
    """Exactly that many rows, however the batches are cut, or all; and the others."""
    first: Batches = []
    left = rows_wanted
    for batches in stream:
        for position, batch in enumerate(batches):
            if left is None:
                first.append(batch)
                continue
            first.append(batch.slice(0, left))
            left -= first[-1].num_rows
            if not left:
                rest = [batch.slice(first[-1].num_rows), *batches[position + 1 :]]
                kept = [batch for batch in rest if batch.num_rows]
                return first, chain([kept] if kept else [], stream)
    return first, iter(())


def _lie_in_runs(rows: pa.Table, keys: Sequence[str], groups: int) -> bool:
    """Whether the rows of most groups follow each other."""
    changes = [pc.not_equal(_plain(rows[key].slice(1)), _plain(rows[key].slice(0, rows.num_rows - 1))) for key in keys]
    changed = changes[0].fill_null(True)
    for change in changes[1:]:
        changed = pc.or_(changed, change.fill_null(True))
    runs = 1 + (pc.sum(changed).as_py() or 0)
    return bool(runs <= _RUNS_PER_GROUP_MAX * groups)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
