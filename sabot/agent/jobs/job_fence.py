"""Refuses what an earlier coordinator of a job wants of this agent. Values only; used on the loop's thread."""

from __future__ import annotations

from collections import OrderedDict

from sabot.agent.coordination.owner_table import coordinator_of
from sabot.errors import JobTakenOver

_JOBS_MAX = 4096


class JobFence:
    """Knows the latest coordinator of each job that had more than one, for the last few thousand such jobs."""

    def __init__(self, agent_id: str) -> None:
        self._agent_id = agent_id
        self._latest: OrderedDict[str, int] = OrderedDict()

    def knows_later(self, job_id: str, epoch: int) -> bool:
        """Whether a later coordinator of the job is known than that of `epoch`."""
        return coordinator_of(epoch) < self._latest.get(job_id, 0)

    def admit(self, job_id: str, epoch: int) -> None:
        """JobTakenOver where a later coordinator than that of `epoch` is known; otherwise that one is known now."""
        coordinator, latest = coordinator_of(epoch), self._latest.get(job_id, 0)
        if coordinator < latest:
            raise JobTakenOver(
                f"agent {self._agent_id} takes commands for job {job_id} from its coordinator number {latest + 1}, and "
                f"not from number {coordinator + 1} any more; the job goes on without that one",
                job=job_id,
                agent=self._agent_id,
            )
        if coordinator > latest:
            self._latest[job_id] = coordinator
            while len(self._latest) > _JOBS_MAX:
                self._latest.popitem(last=False)
