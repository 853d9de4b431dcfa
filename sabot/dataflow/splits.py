"""Dealing a stage's input out to tasks: row groups for scans, pieces for tables, partitions after a shuffle."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

from sabot.dataflow.stage import (
    FilePart,
    FilesSplit,
    JobPlan,
    PartitionSplit,
    ScanInput,
    ShuffleInput,
    SourceFile,
    Split,
    Stage,
    TableInput,
    TableSplit,
)
from sabot.errors import InternalError

# With two tasks for each slot, a slot that is done early takes over another's second one.
_SPLITS_PER_SLOT = 2

_RowGroup = tuple[SourceFile, int]


def splits_of(stage: Stage, plan: JobPlan, *, num_partitions: int | None, split_bytes: int, slots: int) -> list[Split]:
    """The splits of the stage's tasks, in task order: at least one, so that every stage has a schema and a receipt.

    `num_partitions` is that of the shuffles that the stage reads, `split_bytes` the size of a task's row groups that
    is aimed at, `slots` those of all agents.
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
    if source.format == "parquet":
        groups = [(file, group) for index, file in enumerate(source.files) for group in _groups_of(source, index)]
        splits = [FilesSplit(parts=_parts(packed)) for packed in _packed(groups, split_bytes, slots)]
    else:
        splits = [FilesSplit(parts=(FilePart(file=file, row_groups=None, rows=None),)) for file in source.files]
    return splits or [FilesSplit(parts=())]


def _groups_of(source: ScanInput, index: int) -> Sequence[int]:
    """The row groups of that file which are to be read."""
    return range(len(source.files[index].row_group_rows)) if source.row_groups is None else source.row_groups[index]


def _packed(groups: Sequence[_RowGroup], split_bytes: int, slots: int) -> list[Sequence[_RowGroup]]:
    """Neighbouring row groups in runs of about equal size."""
    if not groups:
        return []
    sizes = [_size(group) for group in groups]
    total = sum(sizes)
    count = max(min(len(groups), _SPLITS_PER_SLOT * slots), min(len(groups), -(-total // max(split_bytes, 1))))
    runs: list[Sequence[_RowGroup]] = []
    start, taken = 0, 0
    for index, size in enumerate(sizes):
        taken += size
        runs_left = count - len(runs) - 1
        groups_left = len(groups) - index - 1
        # A run ends where its share of the bytes is reached, and early where each later run needs a row group.
        if runs_left and (groups_left == runs_left or taken * count >= total * (len(runs) + 1)):
            runs.append(groups[start : index + 1])
            start = index + 1
    runs.append(groups[start:])
    return runs


def _size(group: _RowGroup) -> int:
    file, index = group
    if index < len(file.row_group_bytes):
        return max(1, file.row_group_bytes[index])
    return max(1, file.row_group_rows[index])


def _parts(groups: Sequence[_RowGroup]) -> tuple[FilePart, ...]:
    parts = []
    for _, run in groupby(groups, key=lambda group: id(group[0])):
        members = list(run)
        file = members[0][0]
        indices = tuple(index for _, index in members)
        parts.append(FilePart(file=file, row_groups=indices, rows=sum(file.row_group_rows[i] for i in indices)))
    return tuple(parts)


def home_partition(task: int, *, tasks: int, num_partitions: int) -> int:
    """Where a task of a HomeShuffle sends its rows: its own partition, or one of fewer that neighbours share."""
    return task if tasks <= num_partitions else task * num_partitions // tasks


def home_tasks(partition: int, *, tasks: int, num_partitions: int) -> range:
    """The tasks whose `home_partition` that is."""
    if tasks <= num_partitions:
        return range(partition, min(partition + 1, tasks))
    return range(-(-partition * tasks // num_partitions), -(-(partition + 1) * tasks // num_partitions))
