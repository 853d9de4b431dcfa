"""What running readers were given, which whoever takes the job over must know of: it is what a journal is for."""

from __future__ import annotations

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.owner_table import coordinator_of
from sabot.agent.coordination.takeover import Identity

Attempt = tuple[int, int, int]  # stage, task, attempt


class Readers:
    """Of one job: the attempts under way that read others, as its coordinators have said."""

    def __init__(self) -> None:
        self._epoch = 0  # of the latest coordinator
        self._given: dict[Attempt, tuple[frozenset[Identity], frozenset[Attempt]]] = {}  # and who was to know
        self._read: dict[Attempt, dict[tuple[int, int, int], int]] = {}  # by (stage, partition, task) the attempt

    def started(self, command: ev.StartTask, keepers: frozenset[Identity]) -> None:
        """`keepers` live, and are to know what the attempt reads."""
        given = {
            (stage_id, task, attempt)
            for stage_id, attempts in command.inputs
            for task, attempt in zip(command.read_tasks or range(len(attempts)), attempts, strict=True)
        }
        given |= {(copy.stage_id, *read) for copy in command.copies for read in enumerate(copy.attempts)}
        if given and coordinator_of(command.epoch) == coordinator_of(self._epoch):
            self._given[command.stage_id, command.task, command.attempt] = keepers, frozenset(given)

    def reads(self, reader: Attempt, read: dict[tuple[int, int, int], int]) -> set[Attempt]:
        """The reader is given these attempts; those of others under way that are given another one of them."""
        same = [other for other in self._read if other[0] == reader[0]]
        others = {
            other for other in same for key, attempt in read.items() if self._read[other].get(key, attempt) != attempt
        }
        self._read[reader] = read
        return others

    def ended(self, stage_id: int, task: int, attempt: int) -> None:
        self._given.pop((stage_id, task, attempt), None)
        self._read.pop((stage_id, task, attempt), None)

    def unknown_to(self, coordinator: Coordinator, keepers: frozenset[Identity]) -> set[Attempt]:
        """What was given to running readers that the job's next coordinator knows nothing of, though one of its
        `keepers` was to know. What earlier ones start from now on is refused.
        """
        self._epoch = coordinator.epoch
        given = {one for kept_by, given in self._given.values() if keepers & kept_by for one in given}
        self._given.clear()  # they count no more
        self._read.clear()
        return {one for one in given if not _is_known(coordinator, *one)}


def _is_known(coordinator: Coordinator, stage_id: int, task: int, attempt: int) -> bool:
    tasks = coordinator._stages[stage_id]._tasks
    return task < len(tasks) and any(attempt == known for known, _ in tasks[task].commits)
