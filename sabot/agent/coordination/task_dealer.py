"""Deals a job's tasks to its agents, by the slots that each has and the tasks that run there. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.job_stages import Ended
from sabot.agent.coordination.task_choice import TaskChoice
from sabot.wire.member import Member

TASKS_AHEAD = 1
"""Tasks given to an agent beyond its slots, so that a slot has work while another task's chunks are confirmed."""


class TaskDealer:
    """Knows what runs where; whoever ends an attempt says so."""

    def __init__(self, choice: TaskChoice, agents: Sequence[Member]) -> None:
        self._choice = choice
        self._slots: list[int] = []
        self._running: list[int] = []
        for agent in agents:
            self.add(agent)

    def add(self, agent: Member) -> None:
        """One more agent, the next by index."""
        self._slots.append(max(1, agent.slots))
        self._running.append(0)

    def slots_of(self, agents: Sequence[int]) -> int:
        return sum(self._slots[agent] for agent in agents)

    def ended(self, agent: int) -> None:
        """An attempt runs there no more."""
        self._running[agent] -= 1

    def cancel(self, ended: Ended) -> list[ev.Command]:
        """What ends these attempts, which count no more."""
        for _, running in ended:
            self.ended(running.agent)
        return [
            ev.CancelTask(agent=running.agent, stage_id=run.stage.stage_id, task=running.task, attempt=running.attempt)
            for run, running in ended
        ]

    def deal(self, agents: Sequence[int]) -> list[ev.Command]:
        """Tasks in turn to agents with room, so that none gets a second one before all have had a first."""
        return [] if self._choice.is_empty() else self._deal(agents, self._choice.take, TASKS_AHEAD)

    def deal_second_attempts(self, agents: Sequence[int]) -> list[ev.Command]:
        """Those of slow tasks to slots that have nothing of the job to do."""
        return self._deal(agents, self._choice.take_slow, 0)

    def _deal(self, agents: Sequence[int], take: Callable[[int], ev.StartTask | None], ahead: int) -> list[ev.Command]:
        commands: list[ev.Command] = []
        open_agents = list(agents)
        while open_agents:
            open_agents = [agent for agent in open_agents if self._running[agent] < self._slots[agent] + ahead]
            dealt = [(agent, take(agent)) for agent in open_agents]
            open_agents = [agent for agent, command in dealt if command is not None]
            commands.extend(command for _, command in dealt if command is not None)
            for agent in open_agents:
                self._running[agent] += 1
        return commands
