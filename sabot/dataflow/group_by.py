"""The second half of `Dataset.group_by(keys).aggregate(...)`, and the checks of its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import pyarrow.compute as pc

from sabot.dataflow.plan import AggregateNode, Node
from sabot.dataflow.stage import Aggregate, Aggregation
from sabot.errors import UsageError

DatasetT = TypeVar("DatasetT")


class DatasetGroupBy(Generic[DatasetT]):
    """Groups of a Dataset's rows; made by `Dataset.group_by`."""

    def __init__(self, rows: Node, keys: tuple[str, ...], dataset_of: Callable[[Node], DatasetT]) -> None:
        # No aggregation and no keys is a fault of aggregate(), not of this call.
        if keys:
            _ = AggregateNode(child=rows, step=Aggregate(keys=keys, aggregations=())).schema
        self._rows = rows
        self._keys = keys
        self._dataset_of = dataset_of

    def aggregate(self, aggregations: Sequence[Aggregation]) -> DatasetT:
        """One row per group: its keys, then an aggregate for each (column or columns, function[, options]).

        Functions are those of `pyarrow.TableGroupBy`; columns are named `column_function`, as there.
        """
        checked = [_checked_aggregation(aggregation) for aggregation in aggregations]
        step = Aggregate(keys=self._keys, aggregations=tuple(checked))
        return self._dataset_of(AggregateNode(child=self._rows, step=step))


def _checked_aggregation(aggregation: Any) -> Aggregation:
    match aggregation:
        case (str() | list() | tuple() as target, str() as function):
            options = None
        case (str() | list() | tuple() as target, str() as function, options):
            if options is not None and not isinstance(options, pc.FunctionOptions):
                raise UsageError(f"aggregate: options are a pyarrow.compute.FunctionOptions, not {options!r}")
        case _:
            raise UsageError(f"aggregate: takes (column or columns, function[, options]) tuples, not {aggregation!r}")
    target = target if isinstance(target, str) else tuple(target)
    return (target, function) if options is None else (target, function, options)
