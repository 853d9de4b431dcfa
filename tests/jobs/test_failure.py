"""Failures keep what they are across the wire."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable

import pyarrow as pa
import pytest

from sabot.errors import (
    ConfigError,
    InternalError,
    LimitReached,
    PeerLost,
    SabotError,
    ShuffleIntegrityError,
    TaskFailed,
    UsageError,
)
from sabot.wire.agent_pb2 import Failure
from sabot.wire.failure import FAILURE_BYTES_MAX, from_failure, to_failure


class TwoArgumentsError(Exception):
    """Cannot be pickled as Exception does it: its args are not its arguments."""

    def __init__(self, row: int, reason: str) -> None:
        super().__init__(f"row {row}: {reason}")
        self.row = row


class NoTextError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text for you")


def raised(error: BaseException) -> BaseException:
    """`error` with a traceback, as it is after it was raised."""
    try:
        raise error
    except BaseException as caught:
        return caught


def over_the_wire(error: BaseException) -> BaseException:
    return from_failure(Failure.FromString(to_failure(error).SerializeToString()))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no such colour"),
        KeyError("k"),
        OSError(2, "No such file or directory", "/data/x.parquet"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
        pa.ArrowInvalid("not a table"),
        pa.ArrowKeyError("nope"),
    ],
)
def test_exception_arrives_as_itself(error: Exception) -> None:
    received = over_the_wire(raised(error))
    assert type(received) is type(error)
    assert received.args == error.args
    assert str(received) == str(error)


@pytest.mark.parametrize(
    "kind", [UsageError, ConfigError, PeerLost, ShuffleIntegrityError, LimitReached, InternalError]
)
def test_own_errors_keep_type_facts_and_notes(kind: type[SabotError]) -> None:
    error = kind("agent b did not answer", address="10.0.0.2:8815", partition=3)
    error.add_note("while task 4 ran")
    received = over_the_wire(error)
    assert type(received) is kind
    assert received.message == "agent b did not answer"
    assert received.facts == {"address": "10.0.0.2:8815", "partition": 3}
    assert received.__notes__ == ["while task 4 ran"]


def test_notes_and_remote_traceback_are_kept() -> None:
    def explode_in_user_code() -> None:
        raise ValueError("bad")

    try:
        explode_in_user_code()
    except ValueError as error:
        error.add_note("agent=b")
        received = over_the_wire(error)
    assert received.__notes__[0] == "agent=b"
    assert "explode_in_user_code" in received.__notes__[-1]


def test_usage_errors_carry_no_traceback() -> None:
    assert not hasattr(over_the_wire(raised(UsageError("no column x"))), "__notes__")


def test_the_cause_is_in_the_traceback_text() -> None:
    try:
        try:
            raise KeyError("inner")
        except KeyError as inner:
            raise ValueError("outer") from inner
    except ValueError as error:
        received = over_the_wire(error)
    assert "KeyError: 'inner'" in received.__notes__[-1]


def test_exception_with_its_own_init_arrives_as_itself() -> None:
    received = over_the_wire(raised(TwoArgumentsError(7, "is odd")))
    assert isinstance(received, TwoArgumentsError)
    assert (str(received), received.row) == ("row 7: is odd", 7)


def test_exception_class_of_a_function_arrives_as_itself() -> None:
    class LocalError(Exception):
        pass

    assert str(over_the_wire(raised(LocalError("here")))) == "here"


def test_unpicklable_argument_arrives_as_task_failed_with_text_notes_and_trace() -> None:
    error = ValueError("locked by", threading.Lock())
    error.add_note("morsel=3")
    received = over_the_wire(raised(error))
    assert type(received) is TaskFailed
    assert "ValueError" in str(received) and "locked by" in str(received)
    assert received.__notes__[0] == "morsel=3"
    assert "Traceback" in received.__notes__[1]


def test_exception_without_text_still_travels() -> None:
    assert isinstance(over_the_wire(raised(NoTextError())), NoTextError)


@pytest.mark.parametrize("make", [lambda: SystemExit(3), KeyboardInterrupt])
def test_exit_of_user_code_does_not_exit_the_client(make: Callable[[], BaseException]) -> None:
    received = over_the_wire(raised(make()))
    assert type(received) is TaskFailed


def test_class_that_the_receiver_lacks_arrives_as_task_failed(tmp_path) -> None:
    (tmp_path / "only_there.py").write_text("class Odd(Exception):\n    pass\n")
    code = """
        import sys
        sys.path.insert(0, sys.argv[1])
        from only_there import Odd
        from sabot.wire.failure import to_failure
        sys.stdout.buffer.write(to_failure(Odd("strange")).SerializeToString())
    """
    packed = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], check=True, capture_output=True
    ).stdout
    received = from_failure(Failure.FromString(packed))
    assert type(received) is TaskFailed
    assert str(received) == "only_there.Odd: strange"


@pytest.mark.parametrize("bytes_max", [FAILURE_BYTES_MAX, 6000])
def test_size_is_bounded_and_the_ends_of_the_text_survive(bytes_max: int) -> None:
    error = raised(ValueError("begin " + "é" * (3 << 20) + " end"))
    failure = to_failure(error, bytes_max=bytes_max)
    assert failure.ByteSize() <= bytes_max
    received = str(from_failure(failure))
    assert received.startswith("ValueError: begin") and received.endswith(" end")


def test_small_exception_with_a_huge_note_stays_itself() -> None:
    error = ValueError("small")
    error.add_note("n" * (3 << 20))
    failure = to_failure(raised(error))
    assert failure.ByteSize() <= FAILURE_BYTES_MAX
    assert isinstance(from_failure(failure), (ValueError, TaskFailed))


def test_own_error_with_unpicklable_facts_keeps_its_type() -> None:
    received = over_the_wire(PeerLost("agent b is gone", lock=threading.Lock()))
    assert type(received) is PeerLost
    assert str(received) == "agent b is gone"
