"""Finding columns by name and judging their types, so that what is wrong is said at planning, with advice."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

import pyarrow as pa

from sabot.errors import UsageError

_NO_MATCH = re.compile(r"No match for FieldRef\.Name\((.*?)\) in ", re.DOTALL)
_MANY_MATCHES = re.compile(r"Multiple matches for FieldRef\.Name\((.*?)\) in ", re.DOTALL)
_NAMES_SHOWN_MAX = 20


def plain_schema(schema: pa.Schema) -> pa.Schema:
    """The schema with every column nullable and without metadata: what batches of one stage have in common."""
    return pa.schema([pa.field(field.name, field.type) for field in schema])


def table_without_rows(schema: pa.Schema) -> pa.Table:
    """schema.empty_table(), which would make its columns out of Python values: for those pyarrow imports pandas where
    it is installed, 33 MB an agent.
    """
    return pa.Table.from_arrays([pa.nulls(0, field.type) for field in schema], schema=schema)


def names_list(names: str | Iterable[str], what: str) -> tuple[str, ...]:
    """Column names as pyarrow takes them: one, or several. UsageError, led by `what`, for anything else."""
    found = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    for name in found:
        if not isinstance(name, str):
            raise UsageError(f"{what} takes the name of a column, or a list of names, not {name!r}")
    return found


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, case aside; None where nothing is like it."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return by_lower[found[0]] if found else None


def unknown_column(name: str, schema: pa.Schema, what: str) -> UsageError:
    """The error for a column that is not there: its name, the nearest one, and all there are."""
    guess = nearest(name, schema.names)
    advice = f"did you mean {guess!r}? " if guess else ""
    shown = ", ".join(schema.names[:_NAMES_SHOWN_MAX])
    more = f" and {len(schema.names) - _NAMES_SHOWN_MAX} more" if len(schema.names) > _NAMES_SHOWN_MAX else ""
    return UsageError(f"{what}: no column {name!r}; {advice}The columns are: {shown}{more}", column=name, nearest=guess)


def ambiguous_column(name: str, what: str) -> UsageError:
    """The error for a name that several columns have."""
    return UsageError(
        f"{what}: several columns are named {name!r}; give join a left_suffix or right_suffix, or rename before it",
        column=name,
    )


def check_columns(names: Sequence[str], schema: pa.Schema, what: str) -> None:
    """UsageError unless each name is that of exactly one column."""
    for name in names:
        if not isinstance(name, str):
            raise UsageError(f"{what}: column names are str, not {type(name).__name__} ({name!r})")
        count = len(schema.get_all_field_indices(name))
        if count == 0:
            raise unknown_column(name, schema, what)
        if count > 1:
            raise ambiguous_column(name, what)


def arrow_error(error: Exception, schema: pa.Schema, what: str) -> UsageError:
    """What pyarrow said about the user's call, as a UsageError; names of columns are looked up for advice."""
    text = str(error)
    if match := _NO_MATCH.search(text):
        return unknown_column(match[1], schema, what)
    if match := _MANY_MATCHES.search(text):
        return ambiguous_column(match[1], what)
    return UsageError(f"{what}: {text}")


def check_keys(keys: Sequence[str], schema: pa.Schema, what: str) -> None:
    """UsageError unless the keys are columns whose values can be hashed."""
    check_columns(keys, schema, what)
    for key in keys:
        kind = schema.field(key).type
        if not hashable(kind):
            raise UsageError(
                f"{what}: column {key!r} of type {kind} cannot be a key; cast it, or take another column",
                column=key,
                type=str(kind),
            )


def hashable(kind: pa.DataType) -> bool:
    """Whether values of the type may be keys."""
    types = pa.types
    if types.is_dictionary(kind):
        return hashable(kind.value_type)
    return not (
        types.is_nested(kind)
        or types.is_union(kind)
        or types.is_float16(kind)
        or types.is_run_end_encoded(kind)
        or types.is_interval(kind)
        or isinstance(kind, pa.BaseExtensionType)
    )
