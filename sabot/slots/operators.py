"""What may be done to a morsel: a Python function, an Arrow expression, or a pipeline of such steps.

Each becomes one native operator, whose expressions are bound once per schema. A morsel runs through all its steps in
one go; only a call takes the GIL.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

from sabot.errors import UsageError
from sabot.native._native import Operator

MorselFunction = Callable[[pa.RecordBatch], pa.RecordBatch | None]
PipelineStep = tuple[Any, ...]

_FORMS = '("filter", expression), ("project", names, expressions) or ("call", function)'


@runtime_checkable
class HasNativeOperator(Protocol):
    """Whatever brings its own native operator: Pipeline, MorselOperator."""

    @property
    def native_operator(self) -> Operator: ...


FunctionOrExpression: TypeAlias = MorselFunction | pc.Expression | HasNativeOperator


def function_name(function: Callable[..., Any]) -> str:
    """A callable's name for messages and statistics; that of what it calls where it is a functools.partial."""
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", None) or type(function).__qualname__)


class Pipeline:
    """Steps in order, each `("filter", expression)`, `("project", names, expressions)` or `("call", function)`.

    Accepted wherever a function or an expression is. A filter drops the rows for which its expression is null.
    """

    def __init__(self, steps: Sequence[PipelineStep]) -> None:
        self._native_operator = Operator(" -> ".join(str(step[0]) for step in steps if step) or "nothing")
        for step in steps:
            self._add(step)

    @property
    def native_operator(self) -> Operator:
        return self._native_operator

    def _add(self, step: PipelineStep) -> None:
        match step:
            case ("filter", pc.Expression() as expression):
                self._native_operator.add_filter(expression)
            case ("project", [*names], [*expressions]):
                self._add_project(names, expressions)
            case ("call", function) if callable(function):
                self._native_operator.add_call(function, function_name(function))
            case _:
                raise UsageError(f"{step!r} is no step of a pipeline; give {_FORMS}")

    def _add_project(self, names: list[Any], expressions: list[Any]) -> None:
        if len(names) != len(expressions):
            raise UsageError(
                f"a projection has {len(names)} names for {len(expressions)} expressions; give one for each"
            )
        if not all(isinstance(name, str) for name in names):
            raise UsageError(f"the names of a projection must be str: {names!r}")
        if not all(isinstance(expression, pc.Expression) for expression in expressions):
            raise UsageError(f"a projection is made of pyarrow.compute.Expression objects: {expressions!r}")
        self._native_operator.add_project(names, expressions)


def native_operator(fn_or_expression: FunctionOrExpression) -> Operator:
    """The native operator of a function (or any callable), an expression, a Pipeline or a MorselOperator.

    A boolean expression keeps the rows for which it is true; another gives one column, named `str(expression)`.
    """
    if isinstance(fn_or_expression, HasNativeOperator):
        return fn_or_expression.native_operator
    if isinstance(fn_or_expression, pc.Expression):
        operator = Operator(str(fn_or_expression))
        operator.add_filter_or_column(fn_or_expression)
        return operator
    if not callable(fn_or_expression):
        raise UsageError(
            f"an operator must be a function, a pyarrow.compute.Expression or a Pipeline, "
            f"not {type(fn_or_expression).__qualname__}"
        )
    operator = Operator(function_name(fn_or_expression))
    operator.add_call(fn_or_expression, operator.name)
    return operator
