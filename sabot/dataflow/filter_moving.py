"""Filters go down the plan as far as the answer stays the same: to the files, whose parts they leave out, and before
shuffles, so that fewer rows cross the wire.

A condition goes down through other filters, renamed columns, sort_by, repartition and union, to the sides of a join
whose rows the join gives for themselves, and below a grouping whose keys it is about. Where it would see rows that it
does not see now, it must be one that has an answer for all of them. Pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import groupby
from operator import and_
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.function_nodes import MapBatchesNode, MapPartitionsNode
from sabot.dataflow.join_types import LEFT, RIGHT, SIDES_TO_CUT, JoinedColumn, joined_columns
from sabot.dataflow.plan import (
    AggregateNode,
    FilterNode,
    JoinNode,
    Node,
    OneInput,
    ProjectNode,
    RepartitionNode,
    SortNode,
)
from sabot.dataflow.union import UnionNode
from sabot.native._native import always_answers, conjuncts, named_columns, renamed


@dataclass(frozen=True, slots=True, kw_only=True)
class _Condition:
    """A part of a filter; `filter` tells which, and `passed` what it has come through."""

    expression: pc.Expression
    filter: int
    passed: tuple[str, ...] = ()


_Conditions = tuple[_Condition, ...]
_Moved = Callable[[_Condition], _Condition | None]  # None: it stays


def with_filters_moved(root: Node) -> Node:
    """The same rows and columns, with the filters as far down as they may be."""
    return _placed(root, ())


def _placed(node: Node, above: _Conditions) -> Node:  # noqa: PLR0911 - one per kind of node
    """The node's rows that pass what is `above`, of which the first was the lowest."""
    match node:
        case FilterNode():
            parts = conjuncts(node.expression)
            own = tuple(_Condition(expression=part, filter=id(node), passed=node.passed) for part in parts)
            return _placed(node.child, (*own, *above))
        case ProjectNode():
            return _through(node, above, lambda condition: _below_projection(condition, node))
        case SortNode():
            return _through(node, above, lambda condition: _by(condition, "sort_by"))
        case RepartitionNode():
            return _through(node, above, lambda condition: _by(condition, "repartition"))
        case UnionNode():
            below = tuple(_by(condition, "the union") for condition in above)
            return _changed(node, parts=tuple(_placed(part, below) for part in node.parts))
        case AggregateNode():
            return _through(node, above, lambda condition: _below_grouping(condition, node))
        case JoinNode():
            return _through_join(node, above)
        case OneInput():
            return _filtered(_changed(node, child=_placed(node.child, ())), above)
        case _:
            return _filtered(node, above)


def _through(node: OneInput, above: _Conditions, moved: _Moved) -> Node:
    below, kept = _parted(above, moved, node.schema if above else None)
    return _filtered(_changed(node, child=_placed(node.child, below)), kept)


def _parted(above: _Conditions, moved: _Moved, schema: pa.Schema | None) -> tuple[_Conditions, _Conditions]:
    """What goes on and what stays. One that may fail does not overtake one that stays: it would see more rows."""
    below: list[_Condition] = []
    kept: list[_Condition] = []
    for condition in above:
        gone = None if kept and not always_answers(condition.expression, schema) else moved(condition)
        if gone is None:
            kept.append(condition)
        else:
            below.append(gone)
    return tuple(below), tuple(kept)


def _filtered(node: Node, conditions: _Conditions) -> Node:
    """The node under what has come to it, a filter for each that there was."""
    for _, parts in groupby(conditions, key=lambda condition: (condition.filter, condition.passed)):
        members = list(parts)
        together = reduce(and_, (member.expression for member in members))
        node = FilterNode(child=node, expression=together, passed=members[0].passed)
    return node


def _changed(node: Node, **inputs: Any) -> Node:
    """The node over other inputs; itself where they are the same."""
    if all(_same(getattr(node, name), value) for name, value in inputs.items()):
        return node
    if isinstance(node, MapBatchesNode | MapPartitionsNode):
        inputs["declared"] = node.schema  # so that the user's function is not called again to learn it
    return replace(node, **inputs)


def _same(old: Any, new: Any) -> bool:
    if isinstance(old, tuple):
        return all(one is other for one, other in zip(old, new, strict=True))
    return old is new


def _by(condition: _Condition, what: str, names: Mapping[str, str] | None = None) -> _Condition:
    """The condition below `what`, about the columns that have the new names there."""
    expression = condition.expression if names is None else renamed(condition.expression, names)
    return replace(condition, expression=expression, passed=(*condition.passed, what))


def _columns(condition: _Condition) -> Sequence[str]:
    """The columns that it is about; none where that is not known or there are none: then it stays."""
    return named_columns(condition.expression) or ()


def _has_repeated_names(schema: pa.Schema) -> bool:
    return len(set(schema.names)) < len(schema.names)


def _below_projection(condition: _Condition, node: ProjectNode) -> _Condition | None:
    names = _columns(condition)
    if not names or _has_repeated_names(node.schema):
        return None
    known = set(node.child.schema.names)
    carried = {
        name: str(value)
        for name, value in zip(node.names, node.expressions, strict=True)
        if str(value) in known and value.equals(pc.field(str(value)))
    }
    if not carried.keys() >= set(names):
        return None
    if all(carried[name] == name for name in names):
        return condition
    return _by(condition, "renamed columns", carried)


def _below_grouping(condition: _Condition, node: AggregateNode) -> _Condition | None:
    names = _columns(condition)
    if not names or _has_repeated_names(node.schema) or not set(names) <= set(node.step.keys):
        return None
    same = all(_tells_equal_keys_apart_never(node.schema, node.child.schema, {name: name}) for name in names)
    if not same or not always_answers(condition.expression, node.schema):
        return None
    return _by(condition, f"the grouping by {', '.join(node.step.keys)}")


def _tells_equal_keys_apart_never(schema: pa.Schema, other: pa.Schema, names: Mapping[str, str]) -> bool:
    """Whether equal keys are the same value, and of the same type: floats may differ in sign or in how they are NaN."""
    return all(
        schema.field(name).type.equals(other.field(old).type)
        and not pa.types.is_floating(schema.field(name).type)
        and not pa.types.is_dictionary(schema.field(name).type)
        for name, old in names.items()
    )


def _through_join(node: JoinNode, above: _Conditions) -> Node:
    sides: tuple[list[_Condition], list[_Condition]] = ([], [])
    schemas = (node.left.schema, node.right.schema)
    columns: dict[str, JoinedColumn] = {}
    if above and not any(map(_has_repeated_names, (node.schema, *schemas))):
        columns = {
            column.name: column for column in joined_columns(node.step, schemas[LEFT].names, schemas[RIGHT].names)
        }
    kept = []
    for condition in above:
        below = _on_sides(condition, node, columns)
        if not below:
            kept.append(condition)
        for side, moved in below.items():
            sides[side].append(moved)
    left, right = (_placed(child, tuple(moved)) for child, moved in zip((node.left, node.right), sides, strict=True))
    return _filtered(_changed(node, left=left, right=right), tuple(kept))


def _on_sides(condition: _Condition, node: JoinNode, columns: Mapping[str, JoinedColumn]) -> dict[int, _Condition]:
    """The condition as it is on the sides to which it goes; none where it stays above the join.

    It goes to a side whose rows the join gives for themselves. Where it is about keys alone it goes to the other side,
    too: rows there that do not pass would meet none. Of a full outer join both sides' rows are given: it must be
    about keys that stand for those of both.
    """
    names = _columns(condition)
    if not names or not set(names) <= columns.keys() or not always_answers(condition.expression, node.schema):
        return {}
    on_left = {name: node.left.schema.names[place] for name in names if (place := columns[name].left) is not None}
    on_right = {name: node.right.schema.names[place] for name in names if (place := columns[name].right) is not None}
    found = (_on_side(node.schema, node.left.schema, on_left), _on_side(node.schema, node.right.schema, on_right))
    given = SIDES_TO_CUT[node.step.join_type]
    what = f"the join on {', '.join(node.step.keys)}"
    if not given:
        keys = len(on_left) == len(on_right) == len(names)
        both = keys and all(
            _tells_equal_keys_apart_never(node.schema, schema, mapping)
            for schema, mapping in ((node.left.schema, on_left), (node.right.schema, on_right))
        )
        return {LEFT: _by(condition, what, on_left), RIGHT: _by(condition, what, on_right)} if both else {}
    for side in given:
        mapping = (on_left, on_right)[side]
        if len(mapping) == len(names) and found[side]:
            moved = {side: _by(condition, what, mapping)}
            beside = _on_other_side(mapping, side, node)
            if beside is not None:
                moved[LEFT + RIGHT - side] = _by(condition, what, beside)
            return moved
    return {}


def _on_side(schema: pa.Schema, side: pa.Schema, names: Mapping[str, str]) -> bool:
    return all(schema.field(name).type.equals(side.field(old).type) for name, old in names.items())


def _on_other_side(names: Mapping[str, str], side: int, node: JoinNode) -> Mapping[str, str] | None:
    """By the answer's names those of the other side's keys, where the columns are keys."""
    keys = (node.step.keys, node.step.right_keys)
    partner = dict(zip(keys[side], keys[LEFT + RIGHT - side], strict=True))
    if not partner.keys() >= set(names.values()):
        return None
    other = (node.left, node.right)[LEFT + RIGHT - side].schema
    beside = {name: partner[old] for name, old in names.items()}
    return beside if _tells_equal_keys_apart_never(node.schema, other, beside) else None
