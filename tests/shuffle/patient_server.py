"""A peer that says when it answers: a plain `pyarrow.flight` server of the chunk protocol for tests of senders."""

from __future__ import annotations

import queue
import threading
from contextlib import suppress

import pyarrow as pa
from pyarrow import flight

from tests.shuffle import wire

WAIT_S = 20.0


class PatientServer(flight.FlightServerBase):
    """Takes chunks and manifests; each is answered when the test lets it, in order on its stream."""

    def __init__(self) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"
        self.arrived: queue.Queue[tuple[int, wire.Header]] = queue.Queue()  # the stream's number, what came
        self.ended: queue.Queue[int] = queue.Queue()  # numbers of the streams that have ended
        self._may_answer = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._streams = 0

    def do_put(
        self,
        _context: flight.ServerCallContext,
        _descriptor: flight.FlightDescriptor,
        reader: flight.MetadataRecordBatchReader,
        writer: flight.FlightMetadataWriter,
    ) -> None:
        with self._lock:
            number = self._streams
            self._streams += 1
        writer.write(pa.py_buffer(wire.encode_ack(wire.Header(shuffle_id="", kind=wire.CREDIT))))
        pending: queue.Queue[wire.Header | None] = queue.Queue()
        done: queue.Queue[None] = queue.Queue()
        # Not joined, and its kind said: else Python would keep an entry for this thread, which is gRPC's.
        threading.Thread(target=self._answer, args=(pending, writer, done), name="answers", daemon=True).start()
        try:
            for message in reader:
                header = wire.decode_header(message.app_metadata.to_pybytes())
                self.arrived.put((number, header))
                pending.put(header)
        finally:
            pending.put(None)
            done.get()
            self.ended.put(number)

    def _answer(
        self,
        pending: queue.Queue[wire.Header | None],
        writer: flight.FlightMetadataWriter,
        done: queue.Queue[None],
    ) -> None:
        with suppress(pa.ArrowException):
            while (header := pending.get()) is not None:
                self._may_answer.acquire()
                writer.write(pa.py_buffer(wire.encode_ack(header)))
        done.put(None)

    def next(self) -> tuple[int, wire.Header]:
        """The stream and header of the next message; fails where none comes."""
        return self.arrived.get(timeout=WAIT_S)

    def answer(self, count: int = 1) -> None:
        """Lets so many messages be answered, now or when they come."""
        self._may_answer.release(count)

    def answer_all(self) -> None:
        """From now on everything is answered at once."""
        self._may_answer.release(1_000_000)
