"""What the eight types of join give: which columns under which names, and which side may be read in parts.

Names, order and suffixes are those of `pyarrow.Table.join`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sabot.dataflow.stage import Join, JoinType

LEFT, RIGHT = 0, 1

SIDES_TO_CUT: dict[JoinType, tuple[int, ...]] = {
    "inner": (LEFT, RIGHT),
    "left outer": (LEFT,),
    "left semi": (LEFT,),
    "left anti": (LEFT,),
    "right outer": (RIGHT,),
    "right semi": (RIGHT,),
    "right anti": (RIGHT,),
    "full outer": (),
}
"""The sides of which each task may have a part, beside a copy of the other side: those where no row of the copied side
is given for itself, since every copy would give it."""

_ONE_SIDED: dict[JoinType, int] = {"left semi": LEFT, "left anti": LEFT, "right semi": RIGHT, "right anti": RIGHT}


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinedColumn:
    """A column of the answer, and where it is from by position: of both sides where the left side's key stands for the
    right side's, too.
    """

    name: str
    left: int | None = None
    right: int | None = None


def gives_both_sides(step: Join) -> bool:
    """Whether the answer has columns of both sides."""
    return step.join_type not in _ONE_SIDED


def joined_columns(step: Join, left: Sequence[str], right: Sequence[str]) -> list[JoinedColumn]:
    """The columns of the answer in order, where the sides have the columns `left` and `right`."""
    one_side = _ONE_SIDED.get(step.join_type)
    from_left = [] if one_side == RIGHT else list(range(len(left)))
    from_right = [] if one_side == LEFT else list(range(len(right)))
    if step.coalesce_keys:
        match step.join_type:
            case "inner" | "left outer":
                from_right = [j for j in from_right if right[j] not in step.right_keys]
            case "right outer":
                from_left = [i for i in from_left if left[i] not in step.keys]
            case "full outer":
                return _coalesced(step, left, right)
    left_names, right_names = {left[i] for i in from_left}, {right[j] for j in from_right}
    return [
        *(JoinedColumn(name=_suffixed(left[i], step.left_suffix, right_names), left=i) for i in from_left),
        *(JoinedColumn(name=_suffixed(right[j], step.right_suffix, left_names), right=j) for j in from_right),
    ]


def _coalesced(step: Join, left: Sequence[str], right: Sequence[str]) -> list[JoinedColumn]:
    """Of a full outer join: each left key has the values of its right one where there is no left row."""
    right_key_of = dict(zip(step.keys, step.right_keys, strict=True))
    columns = []
    for i, name in enumerate(left):
        if name in right_key_of:
            columns.append(JoinedColumn(name=name, left=i, right=right.index(right_key_of[name])))
        else:
            columns.append(JoinedColumn(name=_suffixed(name, step.left_suffix, right), left=i))
    columns += [
        JoinedColumn(name=_suffixed(name, step.right_suffix, left), right=j)
        for j, name in enumerate(right)
        if name not in step.right_keys
    ]
    return columns


def _suffixed(name: str, suffix: str | None, other_side: Sequence[str] | set[str]) -> str:
    return name + suffix if suffix and name in other_side else name
