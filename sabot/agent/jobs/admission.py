"""Which of the jobs submitted to an agent run, and which wait for their turn: so many at a time, in order of arrival.

A Place is a job's from its submission to its end, whichever way that comes. Used on the loop's thread only.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterator

from sabot.errors import LimitReached, UsageError

QUEUED_MAX = 4096


class Place:
    """A job's place: in the queue until `turn` is done, then among those that run, until it is left."""

    def __init__(self, job_id: str, weight: float, admission: Admission) -> None:
        self.job_id = job_id
        self.weight = weight
        self.since_s = asyncio.get_running_loop().time()
        self._admission = admission
        self._moved = asyncio.Event()
        self._refusal: Exception | None = None

    @property
    def jobs_ahead(self) -> int | None:
        """How many jobs are to end before this one may start; None: it may."""
        return self._admission.jobs_ahead_of(self)

    async def turn(self) -> AsyncGenerator[int, None]:
        """How many jobs are ahead, now and each time that it is fewer, until none is; raises what it is refused with.

        It waits as long as its job's client does.
        """
        told: int | None = None
        self.check()
        while (ahead := self.jobs_ahead) is not None:
            if ahead != told:
                told = ahead
                yield ahead
            self._moved.clear()
            self.check()
            await self._moved.wait()

    def check(self) -> None:
        """Raises what the job was refused with since it came."""
        if self._refusal is not None:
            raise self._refusal

    def refuse(self, error: Exception) -> None:
        """The job must not start: whoever awaits the turn is told why. The place is still to be left."""
        self._refusal = self._refusal or error
        self._moved.set()

    def look_again(self) -> None:
        """Somebody has left."""
        self._moved.set()

    def leave(self) -> None:
        """The job has ended, or will not start; a second call does nothing."""
        self._admission.leave(self)


class Admission:
    """At most `running_max` jobs at a time; iterates over the places in order of arrival."""

    def __init__(self, running_max: int, *, queued_max: int = QUEUED_MAX) -> None:
        self._running_max = running_max
        self._queued_max = queued_max
        self._places: dict[str, Place] = {}  # the first `running_max` run

    def __iter__(self) -> Iterator[Place]:
        return iter(list(self._places.values()))

    def get(self, job_id: str) -> Place | None:
        return self._places.get(job_id)

    def enter(self, job_id: str, weight: float, *, first: bool = False) -> Place:
        """A place at the end, or before all others for a job that runs already. UsageError where the job has one,
        LimitReached where too many wait already.
        """
        if job_id in self._places:
            raise UsageError(f"job {job_id} runs already; a job_id is used once", job=job_id)
        if len(self._places) >= self._running_max + self._queued_max:
            raise LimitReached(
                f"{self._queued_max} jobs wait here for their turn already; submit the job later, or through another "
                "agent of the cluster, or let more run at a time (key jobs.running_max)",
                key="jobs.running_max",
                limit=self._running_max,
            )
        place = Place(job_id, weight, self)
        self._places = {job_id: place} | self._places if first else self._places | {job_id: place}
        return place

    def jobs_ahead_of(self, place: Place) -> int | None:
        position = list(self._places).index(place.job_id)
        return None if position < self._running_max else position - self._running_max + 1

    def leave(self, place: Place) -> None:
        if self._places.get(place.job_id) is place:
            del self._places[place.job_id]
            for other in self._places.values():
                other.look_again()
