"""Makes a session with a cluster through the control port of any of its agents."""

from __future__ import annotations

import os
from collections.abc import Iterable

from sabot.client.control import ControlClient
from sabot.client.session import Session
from sabot.errors import UsageError
from sabot.slots.workers.nursery_main import in_worker
from sabot.wire.addresses import parse_address
from sabot.wire.convert import from_agent
from sabot.wire.py_modules import pack_modules

Modules = Iterable[str | os.PathLike[str]]


def connect(
    address: str, *, timeout_s: float = 10.0, progress: bool | None = None, py_modules: Modules = ()
) -> Session:
    """A session through the agent at `address`, HOST:PORT of its control port.

    `timeout_s` bounds this call and every later control call. `progress` shows each job's progress on standard error:
    None does so in a terminal only. `py_modules` are .py files and package folders that functions of the jobs import;
    they travel along. UsageError for what is no address, PeerLost where no agent answers, PeerRefused where versions do
    not fit.
    """
    if in_worker():
        raise UsageError(
            "sabot.connect inside a worker: a function that waits for other jobs would hold its slot meanwhile; run "
            "one job after the other from the program that submits them"
        )
    modules = pack_modules(py_modules)
    control = ControlClient(str(parse_address(address, what="the agent's address")), timeout_s=timeout_s)
    try:
        return Session(control, from_agent(control.hello().agent), progress=progress, py_modules=modules)
    except BaseException:
        control.close()
        raise
