"""The worker process: calls functions with morsels, one after the other, until its slot closes the socket.

A morsel is read where it lies, in memory that the slot has sealed against everybody else. An answer is written into
memory that the slot lends for it and copies it out of, or, where it is too large for that, into a sealed memfd. The
process serves one job only, and nothing here outlives it.
"""

from __future__ import annotations

import faulthandler
import fcntl
import mmap
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle  # noqa: F401 - what functions are pickled with, loaded once for all workers
import pyarrow as pa

from sabot.errors import LimitReached
from sabot.wire.failure import to_failure
from sabot.wire.packed_function import PackedFunction

# As in sabot/native/workers/messages.h.
CALL = struct.Struct("=IIQQQQQQ")
REPLY = struct.Struct("=IIQ")
NEW_INPUT, NEW_FUNCTION, NEW_ANSWER = 1, 2, 4
READY, ROWS, NO_ROWS, FAILURE, ROWS_IN_ANSWER = 0, 1, 2, 3, 4
INPUT_KEPT = 1
INPUT_BYTES_KEPT = 16 * 1024 * 1024  # kSharedBytesKept in worker.cc

_SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

MorselFunction = Callable[[pa.RecordBatch], pa.RecordBatch | None]


def serve(data_fd: int, modules_fd: int | None, memory_bytes_max: int) -> None:
    """Answers calls until the socket closes."""
    if modules_fd is not None:
        sys.path.insert(0, f"/proc/self/fd/{modules_fd}")
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    faulthandler.enable(sys.__stderr__)  # type: ignore[arg-type]
    channel = socket.socket(fileno=data_fd)
    channel.send(REPLY.pack(READY, 0, 0))
    worker = _Worker(channel, memory_bytes_max)
    while worker.answer_next():
        pass


class _Worker:
    """The functions and the input memory that this worker has been given."""

    def __init__(self, channel: socket.socket, memory_bytes_max: int) -> None:
        self._channel = channel
        self._memory_bytes_max = memory_bytes_max
        self._functions: dict[int, PackedFunction | MorselFunction] = {}
        self._input: mmap.mmap | None = None
        self._answer_memory: pa.Buffer | None = None

    def answer_next(self) -> bool:
        """Answers one call; False when there are no more."""
        message, fds, _, _ = socket.recv_fds(self._channel, CALL.size, 3)
        if not message:
            return False
        call = CALL.unpack(message)
        flags, _, function_id, function_bytes, input_capacity, input_bytes, answer_capacity, result_bytes_max = call
        if flags & NEW_INPUT:
            self._input = _mapped(fds.pop(0), input_capacity, mmap.PROT_READ)
        if flags & NEW_ANSWER:
            self._answer_memory = pa.py_buffer(_mapped(fds.pop(0), answer_capacity, mmap.PROT_READ | mmap.PROT_WRITE))
        if flags & NEW_FUNCTION:
            fd = fds.pop(0)
            self._functions[function_id] = PackedFunction(name="", pickled=os.pread(fd, function_bytes, 0))
            os.close(fd)
        assert self._input is not None
        view = memoryview(self._input)[:input_bytes]
        kind, size, answer_fd = self._answer(function_id, view, result_bytes_max)
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        kept = 0
        try:
            view.release()
        except BufferError:  # the function has put the rows, or a part of them, somewhere
            kept, self._input = INPUT_KEPT, None
        if input_capacity > INPUT_BYTES_KEPT:  # the slot gives it back, too
            self._input = None
        reply = [REPLY.pack(kind, kept, size)]
        if answer_fd is None:
            self._channel.sendmsg(reply)
        else:
            socket.send_fds(self._channel, reply, [answer_fd])
            os.close(answer_fd)
        return True

    def _answer(self, function_id: int, view: memoryview, result_bytes_max: int) -> tuple[int, int, int | None]:
        """The kind of the answer, its size and its memory. Nothing of the call is referred to after it."""
        try:
            rows = pa.ipc.open_stream(pa.py_buffer(view)).read_next_batch()
            function = self._function(function_id)
            answer = function(rows)
            if answer is None:
                return NO_ROWS, 0, None
            if not isinstance(answer, pa.RecordBatch):
                name = getattr(function, "__qualname__", None) or repr(function)
                raise TypeError(
                    f"the operator {name} must return a pyarrow.RecordBatch or None, not {type(answer).__qualname__}"
                )
            return self._written(answer, result_bytes_max)
        except BaseException as error:
            if isinstance(error, MemoryError):
                error.add_note(
                    f"a worker process may have {self._memory_bytes_max:,} bytes; raise slots.worker_memory_bytes, or "
                    "use smaller morsels"
                )
            if error.__traceback__ is not None:
                error.__traceback__ = error.__traceback__.tb_next or error.__traceback__  # without this function
            failure = to_failure(error).SerializeToString()
            return FAILURE, len(failure), _sealed(lambda path: Path(path).write_bytes(failure))

    def _written(self, answer: pa.RecordBatch, bytes_max: int) -> tuple[int, int, int | None]:
        measured = pa.MockOutputStream()
        _write_stream(measured, answer)
        size = measured.size()
        if size > bytes_max:
            raise LimitReached(
                f"the answer for a morsel measures {size:,} bytes, the limit is {bytes_max:,}; use smaller morsels, or "
                "raise slots.worker_memory_bytes"
            )
        if self._answer_memory is not None and size <= self._answer_memory.size:
            _write_stream(pa.FixedSizeBufferWriter(self._answer_memory), answer)
            return ROWS_IN_ANSWER, size, None
        return ROWS, size, _sealed(lambda path: _write_file(path, answer))

    def _function(self, function_id: int) -> MorselFunction:
        function = self._functions[function_id]
        if isinstance(function, PackedFunction):
            function = self._functions[function_id] = function.load()
        return function


def _mapped(fd: int, size: int, protection: int) -> mmap.mmap:
    try:
        return mmap.mmap(fd, size, flags=mmap.MAP_SHARED, prot=protection)
    finally:
        os.close(fd)


def _write_stream(sink: Any, answer: pa.RecordBatch) -> None:
    with pa.ipc.new_stream(sink, answer.schema) as writer:
        writer.write_batch(answer)


def _write_file(path: str, answer: pa.RecordBatch) -> None:
    with pa.OSFile(path, "wb") as sink:
        _write_stream(sink, answer)


def _sealed(write: Callable[[str], object]) -> int:
    """A sealed memfd with what `write` writes to its path."""
    fd = os.memfd_create("sabot-answer", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        write(f"/proc/self/fd/{fd}")
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(fd)
        raise
    return fd
