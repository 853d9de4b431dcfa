"""Carries an exception across the wire as itself: type, arguments, notes and the traceback's text.

A failure always holds its text; the exception is there a second time, pickled by value, where that was possible and
small enough. Who receives it gets the exception, or a TaskFailed with the text where it cannot be unpickled here.
"""

from __future__ import annotations

import io
import pickle
import traceback
from typing import Any

import cloudpickle

from sabot import errors
from sabot.errors import InternalError, SabotError, TaskFailed
from sabot.wire.agent_pb2 import Failure

FAILURE_BYTES_MAX = 1 << 20
"""What a failure may measure on the wire; gRPC's trailing metadata needs far less, see `bytes_max`."""


class CarriedFailure(Exception):
    """A failure that came from a worker and is passed on unopened: what it holds is the user's and not run here."""

    def __init__(self, packed: bytes) -> None:
        super().__init__("a failure of a worker, not opened here")
        self.packed = packed


_CUT = "\n[... cut ...]\n"


def to_failure(error: BaseException, *, bytes_max: int = FAILURE_BYTES_MAX) -> Failure:
    """Pack `error`; what does not fit into `bytes_max` is left out: first the traceback, then the exception itself."""
    if isinstance(error, CarriedFailure):
        return _with_notes_added(error)
    failure = Failure(type=_type_name(error), message=_cut(_text_of(error), bytes_max // 8))
    exception = _pickle_exception(error)
    notes = [_cut(str(note), bytes_max // 8) for note in getattr(error, "__notes__", [])]
    trace = _cut(_trace_of(error), bytes_max // 4)
    for kept in ((exception, notes, trace), (exception, notes, ""), (b"", notes, trace), (b"", notes, "")):
        failure.pickled = pickle.dumps(kept)
        if failure.ByteSize() <= bytes_max:
            return failure
    failure.pickled = b""
    return failure


def from_failure(failure: Failure) -> BaseException:
    """The exception that `failure` carries, with its notes and, where it was not Sabot's own, its remote traceback."""
    exception, notes, trace = b"", [], ""
    if failure.pickled:
        parts = io.BytesIO(failure.pickled)
        exception, notes, trace = pickle.load(parts)
        while parts.tell() < len(failure.pickled):
            notes = [*notes, *pickle.load(parts)]
    error = _unpickle_exception(exception) or _from_text(failure)
    present = list(getattr(error, "__notes__", []))
    for note in notes:
        if note not in present:
            error.add_note(note)
    if trace:
        error.add_note(trace)
    return error


def _with_notes_added(carried: CarriedFailure) -> Failure:
    """The failure that is carried; the notes made on its way stand behind its own, as a pickle of their own."""
    try:
        failure = Failure.FromString(carried.packed)
    except Exception:
        return Failure(type="sabot.errors.TaskFailed", message="what the worker sent of its failure cannot be read")
    notes = list(getattr(carried, "__notes__", []))
    if notes and failure.pickled:
        failure.pickled += pickle.dumps(notes)
    return failure


def _type_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:
        return f"(its text cannot be made: {type(broken).__name__})"


def _trace_of(error: BaseException) -> str:
    """The traceback's text, but for our own errors, whose message says what to do."""
    if error.__traceback__ is None or (isinstance(error, SabotError) and not isinstance(error, InternalError)):
        return ""
    try:
        formatted = traceback.TracebackException.from_exception(error)
        formatted.__notes__ = None  # they travel by themselves
        lines = list(formatted.format())
    except Exception:
        lines = traceback.format_tb(error.__traceback__)
    return "Traceback where it was raised:\n" + "".join(lines).rstrip()


def _cut(text: str, chars_max: int) -> str:
    if len(text) <= chars_max:
        return text
    half = max(0, (chars_max - len(_CUT)) // 2)
    return text[:half] + _CUT + text[len(text) - half :]


def _pickle_exception(error: BaseException) -> bytes:
    """`error` in bytes that are known to unpickle here, or nothing.

    An exception whose `__init__` takes other arguments than it hands on cannot be made again by calling it; such a
    one is made without `__init__`.
    """
    if not isinstance(error, Exception):
        return b""  # a SystemExit of the user's function must not end the client's program
    for form in (error, _Parts(error)):
        try:
            packed: bytes = cloudpickle.dumps(form)
            if type(pickle.loads(packed)) is type(error):
                return packed
        except Exception:
            continue
    return b""


class _Parts:
    """Pickles as the exception that it was made from, without calling its `__init__`."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __reduce__(self) -> tuple[Any, ...]:
        return _assemble, (type(self._error), self._error.args, dict(self._error.__dict__))


def _assemble(kind: type[Exception], args: tuple[Any, ...], fields: dict[str, Any]) -> Exception:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(fields)
    return error


def _unpickle_exception(packed: bytes) -> BaseException | None:
    try:
        error = pickle.loads(packed) if packed else None
    except Exception:
        return None
    return error if isinstance(error, BaseException) else None


def _from_text(failure: Failure) -> SabotError:
    module, _, name = failure.type.rpartition(".")
    kind = getattr(errors, name, None) if module == "sabot.errors" else None
    if isinstance(kind, type) and issubclass(kind, SabotError):
        return kind(failure.message)
    return TaskFailed(f"{failure.type}: {failure.message}", type=failure.type)
