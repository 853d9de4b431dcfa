"""What may be done to a morsel: a Python function, an Arrow expression, or a pipeline of such steps.

Each becomes one native operator, whose expressions are bound once per schema. A morsel runs through all its steps in
one go; only a call takes the GIL, and a call in a worker process does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeAlias, runtime_checkable

import pyarrow as pa
import pyarrow.compute as pc

from sabot.errors import UsageError
from sabot.native._native import Operator
from sabot.slots.workers import WorkerPool
from sabot.wire.packed_function import PackedFunction, pack_function

TIMEOUT_S_MAX = 7 * 24 * 3600

MorselFunction = Callable[[pa.RecordBatch], pa.RecordBatch | None]
PipelineStep = tuple[Any, ...]

_FORMS = (
    '("filter", expression), ("project", names, expressions), ("call", function) or ("worker", function, timeout_s)'
)


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
    """Steps in order, each `("filter", expression)`, `("project", names, expressions)`, `("call", function)` or
    `("worker", function, timeout_s)`, which calls the function in a process of `workers`. With a fourth item, True,
    rows that cost the function its process come out as they came, marked in their schema's metadata.

    Accepted wherever a function or an expression is. A filter drops the rows for which its expression is null.
    """

    def __init__(self, steps: Sequence[PipelineStep], *, workers: WorkerPool | None = None) -> None:
        self._workers = workers
        self._native_operator = Operator(" -> ".join(_step_name(step) for step in steps) or "nothing")
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
            case ("worker", function, timeout_s, *kept) if callable(function) or isinstance(function, PackedFunction):
                add_worker_call(self._native_operator, function, self._workers, timeout_s, keep_failed=kept == [True])
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


def _step_name(step: PipelineStep) -> str:
    match step:
        case ("call" | "worker", PackedFunction(name=name), *_):
            return name
        case ("call" | "worker", function, *_) if callable(function):
            return function_name(function)
        case (kind, *_):
            return str(kind)
    return "nothing"


def add_worker_call(
    operator: Operator,
    function: MorselFunction | PackedFunction,
    workers: WorkerPool | None,
    timeout_s: float | None,
    *,
    keep_failed: bool = False,
) -> None:
    """Adds a call of `function` in a worker process, `timeout_s` at most for a morsel; None: any time."""
    if workers is None:
        raise UsageError("a call in a worker process needs workers; give the WorkerPool of a TaskSlotManager")
    if timeout_s is not None and (isinstance(timeout_s, bool) or not 0.001 <= timeout_s <= TIMEOUT_S_MAX):
        raise UsageError(f"timeout_s is {timeout_s!r}; give seconds from 0.001 to {TIMEOUT_S_MAX:,}, or None")
    packed = pack_function(function, "" if isinstance(function, PackedFunction) else function_name(function))
    operator.add_worker_call(workers.native, workers.function(packed), timeout_s or 0.0, keep_failed)


def check_no_timeout(timeout_s: float | None) -> None:
    """Refuses a time limit for what runs in a slot's own thread."""
    if timeout_s is not None:
        raise UsageError("timeout_s needs processes=True: what runs in a slot's thread cannot be stopped in mid-call")


def operator_in_processes(
    function: FunctionOrExpression, workers: WorkerPool, timeout_s: float | None = None
) -> Operator:
    """The native operator that calls `function` in worker processes; an expression runs natively in the slots."""
    if isinstance(function, pc.Expression):
        return native_operator(function)
    if isinstance(function, HasNativeOperator) or not callable(function):
        raise UsageError(f"processes=True takes a function or an expression, not a {type(function).__qualname__}")
    operator = Operator(function_name(function))
    add_worker_call(operator, function, workers, timeout_s)
    return operator


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
