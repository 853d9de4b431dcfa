"""When the tasks of each stage first started and last ended, by the coordinator's own clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from sabot.agent.coordination import job_events as ev
from sabot.wire.agent_pb2 import StageProgress

Stages = TypeVar("Stages", bound=Iterable[StageProgress])


class StageTimes:
    """Told of every event and what came of it; `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._started_s: dict[int, float] = {}
        self._ended_s: dict[int, float] = {}

    def note(self, event: ev.Event, commands: Iterable[ev.Command]) -> None:
        """The event has just been handled, and the commands given."""
        now_s = self._clock()
        if isinstance(event, ev.TaskSucceeded):
            self._ended_s[event.stage_id] = now_s
        for command in commands:
            if isinstance(command, ev.StartTask):
                self._started_s.setdefault(command.stage_id, now_s)

    def filled(self, stages: Stages) -> Stages:
        """The same, with how long each stage took, or takes up to now."""
        now_s = self._clock()
        for stage in stages:
            started_s = self._started_s.get(stage.stage_id)
            if started_s is not None:
                done = stage.tasks_total > 0 and stage.tasks_done >= stage.tasks_total
                ended_s = self._ended_s.get(stage.stage_id, now_s) if done else now_s
                stage.elapsed_s = max(0.0, ended_s - started_s)
        return stages
