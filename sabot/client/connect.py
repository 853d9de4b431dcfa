"""Makes a session with a cluster through the control port of any of its agents."""

from __future__ import annotations

import os
from collections.abc import Iterable

from sabot.client.control import ControlClient
from sabot.client.session import Session
from sabot.errors import UsageError
from sabot.slots.job_share import check_weight
from sabot.slots.workers.nursery_main import in_worker
from sabot.wire.addresses import parse_address
from sabot.wire.convert import from_agent
from sabot.wire.py_modules import pack_modules

Modules = Iterable[str | os.PathLike[str]]


def connect(
    address: str,
    *,
    timeout_s: float = 10.0,
    progress: bool | None = None,
    py_modules: Modules = (),
    weight: float = 1.0,
    job_timeout_s: float | None = None,
    broadcast_bytes_max: int | None = None,
) -> Session:
    """A session through the agent at `address`, HOST:PORT of its control port.

    `timeout_s` bounds this call and every later control call. `progress` shows each job's progress on standard error:
    None does so in a terminal only. `py_modules` are .py files and package folders that functions of the jobs import;
    they travel along. Jobs that run at the same time share each agent's slots by `weight`, from 0.001 to 1,000,000: a
    job of weight 3 gets three times the slot time of one of weight 1. A job that has not ended after `job_timeout_s`
    is cancelled with LimitReached, unless it has a `timeout_s` of its own. A side of a join that is expected to have at
    most `broadcast_bytes_max` is copied to every agent: 0 never, None as the agent's configuration says. UsageError for
    what is no address, PeerLost where no agent answers, PeerRefused where versions do not fit.
    """
    if in_worker():
        raise UsageError(
            "sabot.connect inside a worker: a function that waits for other jobs would hold its slot meanwhile; run "
            "one job after the other from the program that submits them"
        )
    modules = pack_modules(py_modules)
    check_weight(weight)
    _check_broadcast(broadcast_bytes_max)
    control = ControlClient(str(parse_address(address, what="the agent's address")), timeout_s=timeout_s)
    try:
        hello = control.hello()
        return Session(
            control,
            from_agent(hello.agent),
            members=[from_agent(member) for member in hello.members],
            progress=progress,
            py_modules=modules,
            weight=weight,
            job_timeout_s=job_timeout_s,
            broadcast_bytes_max=hello.broadcast_bytes_max if broadcast_bytes_max is None else broadcast_bytes_max,
            peer_deadline_s=hello.peer_deadline_s or None,
        )
    except BaseException:
        control.close()
        raise


def _check_broadcast(bytes_max: int | None) -> None:
    if bytes_max is not None and (isinstance(bytes_max, bool) or not isinstance(bytes_max, int) or bytes_max < 0):
        raise UsageError(f"broadcast_bytes_max is a number of bytes from 0 on, or None, not {bytes_max!r}")
