"""Learns for a client what columns a function of his returns: it is called once without rows, in a worker process.

The call runs in a slot of its own, made for it, so that it waits for no morsel of a job that runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pyarrow as pa

from sabot.dataflow.learned_schema import no_rows
from sabot.errors import PeerRefused
from sabot.slots import Morsel, TaskSlotManager
from sabot.slots.operators import Pipeline
from sabot.slots.workers import WorkerPool
from sabot.wire.agent_pb2 import LearnSchemaReply, LearnSchemaRequest
from sabot.wire.failure import to_failure
from sabot.wire.packed_function import PackedFunction
from sabot.wire.py_modules import PyModules

LEARNING_MAX = 32
"""Functions whose schema an agent learns at a time: each has a slot and a worker of its own."""


class SchemaLearner:
    """`new_workers` gives the worker processes of one call."""

    def __init__(self, *, agent_id: str, new_workers: Callable[[str, PyModules | None], WorkerPool]) -> None:
        self._agent_id = agent_id
        self._new_workers = new_workers
        self._learning = 0

    async def learn(self, request: LearnSchemaRequest) -> LearnSchemaReply:
        """What the function gives for no rows; what it raises is in the reply. Cancelling it kills the worker."""
        if self._learning >= LEARNING_MAX:
            raise PeerRefused(
                f"agent {self._agent_id} learns the schemas of {LEARNING_MAX} functions already; pass schema=, or try "
                "again",
                agent=self._agent_id,
            )
        self._learning += 1
        try:
            return await self._learn(request)
        finally:
            self._learning -= 1

    async def _learn(self, request: LearnSchemaRequest) -> LearnSchemaReply:
        modules = PyModules(names=tuple(request.module_names), archive=request.modules) if request.modules else None
        workers = self._new_workers(f"schema of {request.name}", modules)
        slot = TaskSlotManager(1, timeline_morsels=0)
        try:
            function = PackedFunction(name=request.name, pickled=request.function)
            pipeline = Pipeline([("worker", function, request.timeout_s)], workers=workers)
            rows = no_rows(pa.ipc.read_schema(pa.py_buffer(request.schema)))
            result = await asyncio.wrap_future(slot.enqueue_morsel(Morsel(batch=rows), pipeline))
        except Exception as error:
            error.add_note(f"agent={self._agent_id}")
            return LearnSchemaReply(failure=to_failure(error))
        finally:
            workers.close()
            await asyncio.shield(asyncio.to_thread(slot.shutdown, drain=False))
        assert result.batch is not None, "a probe gives a batch without rows, never None"
        return LearnSchemaReply(schema=result.batch.schema.serialize().to_pybytes())
