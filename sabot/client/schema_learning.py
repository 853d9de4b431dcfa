"""Asks an agent what columns a function returns, and remembers the answer as long as the function lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

import pyarrow as pa

from sabot.client.control import ControlClient
from sabot.client.coordinators import Coordinators
from sabot.client.watchdog import Watchdog
from sabot.dataflow.learned_schema import SchemaProbe
from sabot.wire.agent_pb2 import LearnSchemaReply, LearnSchemaRequest
from sabot.wire.failure import from_failure
from sabot.wire.packed_function import pack_function
from sabot.wire.py_modules import PyModules

LEARN_TIMEOUT_S = 60.0
"""Of the function's call without rows: a first import of a large library takes its time."""

_Known = dict[tuple[str, bytes], pa.Schema]  # by the kind of call and the columns given


class SchemaLearning:
    """One for each session, whose modules travel along."""

    def __init__(self, coordinators: Coordinators, py_modules: PyModules | None, watchdog: Watchdog) -> None:
        self._coordinators = coordinators
        self._watchdog = watchdog
        self._py_modules = py_modules
        self._known: MutableMapping[Callable[..., Any], _Known] = weakref.WeakKeyDictionary()

    def learn(self, probe: SchemaProbe, schema: pa.Schema) -> pa.Schema:
        """The columns for no rows of `schema`; UsageError, whose cause is what the function raised."""
        given = schema.serialize().to_pybytes()
        try:
            known = self._known.setdefault(probe.function, {})
        except TypeError:  # neither hashable nor weakly referable: it is asked about anew
            known = {}
        found = known.get((probe.what, given))
        if found is None:
            found = known[probe.what, given] = self._ask(probe, given)
        return found

    def _ask_one(self, control: ControlClient, request: LearnSchemaRequest) -> LearnSchemaReply:
        timeout_s = LEARN_TIMEOUT_S + self._coordinators.timeout_s
        return self._watchdog.call(
            lambda _: control.learn_schema(request, timeout_s=timeout_s),
            address=self._coordinators.agent.flight_address,
            what=f"the call of {request.name} without rows",
        )

    def _ask(self, probe: SchemaProbe, given: bytes) -> pa.Schema:
        request = LearnSchemaRequest(
            name=probe.name,
            function=pack_function(probe, probe.name).pickled,
            schema=given,
            timeout_s=LEARN_TIMEOUT_S,
        )
        if self._py_modules is not None:
            request.module_names.extend(self._py_modules.names)
            request.modules = self._py_modules.archive
        reply = self._coordinators.ask(lambda control: self._ask_one(control, request))
        if not reply.HasField("failure"):
            return pa.ipc.read_schema(pa.py_buffer(reply.schema))
        error = from_failure(reply.failure)
        told = probe.failed(error)
        if told is error:
            raise error
        raise told from error
