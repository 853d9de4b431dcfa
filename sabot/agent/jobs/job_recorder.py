"""Brings the journals that a job's agents keep up to date: one call at a time to each, with all that has gathered.

Used on the loop's thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.job_journal import end_of
from sabot.wire.agent_pb2 import JobJournal
from sabot.wire.failure import to_failure

GATHER_S = 0.05
"""How long that gathers for which nobody waits: a short job ends before it has cost a call."""

Send = Callable[[int, JobJournal], Coroutine[Any, Any, None]]


class JobRecorder:
    """`send` has an agent keep an update, and raises what it has to say; `post` gets what came of it."""

    def __init__(
        self,
        coordinator: Coordinator,
        *,
        send: Send,
        post: Callable[[ev.Event], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._coordinator = coordinator
        self._send = send
        self._post = post
        self._spawn = spawn
        self._called: set[int] = set()
        self._again: set[int] = set()  # of those that are being called: there is more
        self._timer: asyncio.Handle | None = None
        self._soon = False

    def record(self, *, urgent: bool) -> None:
        """At the end of this turn of the loop where it is urgent, else before long."""
        loop = asyncio.get_running_loop()
        if urgent and not self._soon:
            self.stop()
            self._soon = True
            self._timer = loop.call_soon(self._flush)
        elif self._timer is None:
            self._timer = loop.call_later(GATHER_S, self._flush)

    def stop(self) -> None:
        """Nothing more is sent but what is on its way."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer, self._soon = None, False

    def _flush(self) -> None:
        self._timer, self._soon = None, False
        if self._coordinator.ended:
            return
        for agent in self._coordinator.living:
            if agent in self._called:
                self._again.add(agent)
            else:
                self._bring_up_to_date(agent)

    def _bring_up_to_date(self, agent: int) -> None:
        update = self._coordinator.journal_update(agent)
        if update is not None:
            self._called.add(agent)
            self._spawn(self._call(agent, update))

    async def _call(self, agent: int, update: JobJournal) -> None:
        event: ev.Event = ev.Recorded(agent=agent, mark=end_of(update))
        try:
            await self._send(agent, update)
        except Exception as error:
            event = ev.RecordFailed(agent=agent, failure=to_failure(error))
        finally:
            self._called.discard(agent)
        more = agent in self._again
        self._again.discard(agent)
        if more and agent in self._coordinator.living and not self._coordinator.ended:
            self._bring_up_to_date(agent)
        self._post(event)
