"""One agent of a shuffle benchmark, as a process of its own: it is told what to do over a pipe, and says when it has.

Rows lie in its memory before the clock starts. What it measures of itself is its CPU time, user and system.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import threading
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sabot.native._native import Ledger
from sabot.shuffle import HashPartitioning, ShuffleTransport
from sabot.slots import TaskSlotManager

SCATTER_BYTES = 32 << 20
TIMEOUT_S = 300.0


class BenchAgent:
    """An agent of one slot in a process of its own."""

    def __init__(self, files: Sequence[Path] = (), **options: Any) -> None:
        ours, theirs = multiprocessing.Pipe()
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=_serve, args=(theirs, list(files), options), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe: Connection = ours
        self.address: str = self.wait()

    def tell(self, verb: str, *arguments: object) -> None:
        """Starts `verb` there; `wait` gives its answer."""
        self._pipe.send((verb, arguments))

    def wait(self) -> Any:
        """The answer to what was told."""
        answer = self._pipe.recv()
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def ask(self, verb: str, *arguments: object) -> Any:
        """Tells and waits."""
        self.tell(verb, *arguments)
        return self.wait()

    def close(self) -> None:
        """Ends the process."""
        self._pipe.close()
        self._process.join(30)
        self._process.kill()


def _serve(pipe: Connection, files: list[Path], options: dict[str, Any]) -> None:
    with TaskSlotManager(num_slots=1) as slots:
        ledger = Ledger()
        ledger.start_watch()  # as AgentContext does: without, no block of memory is used twice
        agent = _Agent(slots, ShuffleTransport(slot_pool=slots.native_pool, ledger=ledger, **options), files)
        pipe.send(agent.transport.address)
        while True:
            try:
                verb, arguments = pipe.recv()
            except EOFError:
                break
            try:
                pipe.send(getattr(agent, verb)(*arguments))
            except Exception as error:
                pipe.send(error)
        agent.close()


class _Agent:
    def __init__(self, slots: TaskSlotManager, transport: ShuffleTransport, files: list[Path]) -> None:
        self.transport = transport
        self._slots = slots
        self._rows = [batch for file in files for batch in pq.read_table(file).to_batches()]
        self._looping = False
        self._loops: list[threading.Thread] = []

    def count_rows(self) -> int:
        return sum(batch.num_rows for batch in self._rows)

    def cpu_s(self) -> float:
        """User and system seconds of this process."""
        times = os.times()
        return times.user + times.system

    def start(self, shuffle_id: str, num_partitions: int, agents: list[str], key: str | None) -> None:
        by_hash = None if key is None else HashPartitioning((key,))
        self.transport.start_shuffle(shuffle_id, num_partitions, agents, partitioning=by_hash)

    def send_all(self, shuffle_id: str) -> None:
        """Partitions the rows, 32 MiB at a time, and sends them."""
        gathered: list[pa.RecordBatch] = []
        size = 0
        for batch in self._rows:
            gathered.append(batch)
            size += batch.nbytes
            if size >= SCATTER_BYTES:
                self.transport.send_rows(shuffle_id, pa.Table.from_batches(gathered), timeout_s=TIMEOUT_S)
                gathered, size = [], 0
        if gathered:
            self.transport.send_rows(shuffle_id, pa.Table.from_batches(gathered), timeout_s=TIMEOUT_S)
        self.transport.finish_shuffle(shuffle_id, timeout_s=TIMEOUT_S)

    def receive(self, shuffle_id: str, partitions: list[int]) -> int:
        """Reads the partitions, audited; gives how many rows they have."""
        rows = 0
        for partition in partitions:
            for batch in self.transport.receive_partition(shuffle_id, partition, timeout_s=TIMEOUT_S):
                rows += batch.num_rows
        return rows

    def shuffle(self, shuffle_id: str, partitions: list[int]) -> int:
        """Sends what it has and receives what is its own."""
        self.send_all(shuffle_id)
        return self.receive(shuffle_id, partitions)

    def end(self, shuffle_id: str) -> None:
        self.transport.end_shuffle(shuffle_id)
        gc.collect()

    def send_chunks(self, shuffle_id: str, count: int, file: Path, target: str) -> None:
        """Sends the batch of an IPC file `count` times to `target`, as it is."""
        batch = pa.ipc.open_file(file.read_bytes()).get_batch(0)
        for _ in range(count):
            self.transport.send_partition(shuffle_id, 0, batch, target_agent=target)
        self.transport.finish_shuffle(shuffle_id, timeout_s=TIMEOUT_S)

    def loop(self, on: bool) -> None:
        """Keeps the slot busy with Python, and the GIL with it, until told to stop."""
        self._looping = on
        if on:
            self._slots.call_in_slot(self._spin)

    def _spin(self) -> None:
        total = 0
        while self._looping:
            total += 1

    def close(self) -> None:
        self._looping = False
        self.transport.close()


def both(agents: Sequence[BenchAgent], tell: Callable[[int, BenchAgent], None]) -> list[Any]:
    """What all agents answer to what each is told, at once."""
    for index, agent in enumerate(agents):
        tell(index, agent)
    return [agent.wait() for agent in agents]
