"""Dealing a stage's input out to tasks: parts of files for scans, pieces for tables, partitions after a shuffle."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from sabot.dataflow.stage import (
    FilePart,
    FilesSplit,
    JobPlan,
    PartitionSplit,
    ScanInput,
    ShuffleInput,
    Split,
    Stage,
    TableInput,
    TableSplit,
)
from sabot.errors import InternalError

# With two tasks for each slot, a slot that is done early takes over another's second one.
_SPLITS_PER_SLOT = 2

# Into how many ranges of lines a text file's share of a task may be cut, and how many there are at most.
_RANGES_PER_SPLIT = 64
_RANGES_MAX = 1 << 16

PIECE_BYTES = 8 << 20
"""What a task reads at once of files, in one slot: more where a row group has more."""
_PIECE_ROWS_MAX = 1 << 14
_PIECE_PART = 4  # of what may be read at once: lines may have some times as many bytes once they are numbers


def splits_of(stage: Stage, plan: JobPlan, *, num_partitions: int | None, split_bytes: int, slots: int) -> list[Split]:
    """The splits of the stage's tasks, in task order: at least one, so that every stage has a schema and a receipt.

    `num_partitions` is that of the shuffles that the stage reads, `split_bytes` the size of a task's files' parts
    that is aimed at, `slots` those of all agents.
    """
    source = stage.input
    match source:
        case ScanInput():
            return list(_file_splits(source, split_bytes, slots))
        case TableInput():
            pieces = plan.uploads.get(source.table_id, ())
            if not pieces:
                raise InternalError(
                    f"table {source.table_id} of job {plan.job_id} was not uploaded; please report this"
                )
            ordered = sorted(pieces, key=lambda piece: piece.index)
            return [TableSplit(table_id=source.table_id, piece=piece) for piece in ordered]
        case ShuffleInput():
            if not num_partitions:
                raise InternalError(f"stage {stage.stage_id} reads a shuffle without partitions; please report this")
            return [PartitionSplit(partition=partition) for partition in range(num_partitions)]


def _file_splits(source: ScanInput, split_bytes: int, slots: int) -> Sequence[FilesSplit]:
    size_bytes = sum(file.size_bytes for file in source.files)
    range_bytes = max(1, split_bytes // _RANGES_PER_SPLIT, size_bytes // _RANGES_MAX)
    units = [unit for index in range(len(source.files)) for unit in _units(source, index, range_bytes)]
    return [FilesSplit(parts=joined_parts(run)) for run in _packed(units, split_bytes, slots)] or [FilesSplit(parts=())]


def _units(source: ScanInput, index: int, range_bytes: int) -> Iterator[FilePart]:
    """The smallest parts of that file which a task may read."""
    file = source.files[index]
    if source.format == "parquet" or file.num_row_groups:
        for group in range(file.num_row_groups) if source.row_groups is None else source.row_groups[index]:
            rows = file.row_group_rows[group] if group < len(file.row_group_rows) else None
            yield FilePart(file=file, row_groups=(group,), rows=rows)
    elif file.cut_at_lines and file.size_bytes:
        for start in range(0, file.size_bytes, range_bytes):
            byte_range = (start, min(start + range_bytes, file.size_bytes))
            yield FilePart(file=file, row_groups=None, rows=None, byte_range=byte_range)
    else:
        yield FilePart(file=file, row_groups=None, rows=None)


def _packed(units: Sequence[FilePart], split_bytes: int, slots: int) -> list[Sequence[FilePart]]:
    """Neighbouring parts in runs of about equal size."""
    if not units:
        return []
    sizes = [max(1, part_bytes(unit)) for unit in units]
    total = sum(sizes)
    count = max(min(len(units), _SPLITS_PER_SLOT * slots), min(len(units), -(-total // max(split_bytes, 1))))
    runs: list[Sequence[FilePart]] = []
    start, taken = 0, 0
    for index, size in enumerate(sizes):
        taken += size
        runs_left = count - len(runs) - 1
        units_left = len(units) - index - 1
        # A run ends where its share of the bytes is reached, and early where each later run needs a part.
        if runs_left and (units_left == runs_left or taken * count >= total * (len(runs) + 1)):
            runs.append(units[start : index + 1])
            start = index + 1
    runs.append(units[start:])
    return runs


def part_bytes(part: FilePart) -> int:
    """About the bytes of the part, as row groups are uncompressed and everything else is in its file; of row groups of
    unknown size their rows.
    """
    file = part.file
    if part.byte_range is not None:
        return part.byte_range[1] - part.byte_range[0]
    if part.row_groups is None:
        return file.size_bytes
    return sum(
        max(0, sizes[group]) for sizes in [file.row_group_bytes or file.row_group_rows] for group in part.row_groups
    )


def joined_parts(parts: Iterable[FilePart]) -> tuple[FilePart, ...]:
    """The parts in order, neighbours of one file made one."""
    found: list[FilePart] = []
    for part in parts:
        last = found[-1] if found else None
        if last is None or last.file is not part.file:
            found.append(part)
        elif last.row_groups is not None and part.row_groups is not None:
            rows = None if last.rows is None or part.rows is None else last.rows + part.rows
            found[-1] = replace(last, row_groups=(*last.row_groups, *part.row_groups), rows=rows)
        elif last.byte_range is not None and part.byte_range is not None and last.byte_range[1] == part.byte_range[0]:
            found[-1] = replace(last, byte_range=(last.byte_range[0], part.byte_range[1]))
        else:
            found.append(part)
    return tuple(found)


def piece_bytes(read_bytes_max: int) -> int:
    """Of a piece, where so much (0: any number) may be read at once."""
    return min(PIECE_BYTES, read_bytes_max // _PIECE_PART) if read_bytes_max else PIECE_BYTES


def pieces_of(part: FilePart, piece_bytes: int) -> Iterator[FilePart]:
    """The part cut into what is read at once: one row group, or as many small ones as have `piece_bytes` together, and
    not very many rows: packed in dictionaries they may be many times as large in memory as the footer says."""
    if part.byte_range is not None:
        first, end = part.byte_range
        for start in range(first, end, piece_bytes):
            yield replace(part, byte_range=(start, min(start + piece_bytes, end)))
    elif part.row_groups is None:
        yield part
    else:
        taken: list[FilePart] = []
        for group in part.row_groups:
            rows = part.file.row_group_rows[group] if group < len(part.file.row_group_rows) else None
            one = FilePart(file=part.file, row_groups=(group,), rows=rows)
            together = [*taken, one]
            if taken and (
                sum(map(part_bytes, together)) > piece_bytes or sum(it.rows or 0 for it in together) > _PIECE_ROWS_MAX
            ):
                yield from joined_parts(taken)
                taken = []
            taken.append(one)
        yield from joined_parts(taken)


def home_partition(task: int, *, tasks: int, num_partitions: int) -> int:
    """Where a task of a HomeShuffle sends its rows: its own partition, or one of fewer that neighbours share."""
    return task if tasks <= num_partitions else task * num_partitions // tasks


def home_tasks(partition: int, *, tasks: int, num_partitions: int) -> range:
    """The tasks whose `home_partition` that is."""
    if tasks <= num_partitions:
        return range(partition, min(partition + 1, tasks))
    return range(-(-partition * tasks // num_partitions), -(-(partition + 1) * tasks // num_partitions))
