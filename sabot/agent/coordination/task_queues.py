"""Which task of a stage an agent takes next, of those that may run now. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection


class TaskQueues:
    """Tasks that one agent must run, tasks that one had better run, and tasks for anyone."""

    def __init__(self) -> None:
        self._pinned: dict[int, deque[int]] = {}
        self._preferred: dict[int, deque[int]] = {}
        self._anywhere: deque[int] = deque()
        self._moves: dict[int, deque[int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def add(self, task: int, *, agent: int | None, preferred: int | None) -> None:
        """Line the task up: `agent` must run it, `preferred` had better; None: whoever."""
        self._count += 1
        if agent is not None:
            self._pinned.setdefault(agent, deque()).append(task)
        elif preferred is not None:
            self._preferred.setdefault(preferred, deque()).append(task)
        else:
            self._anywhere.append(task)

    def add_move(self, task: int, agent: int) -> None:
        """Line the task up for the agent, which is to send on what it holds of its rows."""
        self._count += 1
        self._moves.setdefault(agent, deque()).append(task)

    def take_move(self, agent: int) -> int | None:
        queue = self._moves.get(agent)
        if not queue:
            return None
        self._count -= 1
        return queue.popleft()

    def take(self, agent: int) -> int | None:
        """The next task for `agent`: one that only it may run first, one that another had better run last."""
        queue = self._pinned.get(agent) or self._preferred.get(agent) or self._anywhere
        queue = queue or max(self._preferred.values(), key=len, default=queue)
        if not queue:
            return None
        self._count -= 1
        return queue.popleft()

    def last_of_busiest(self, agents: Collection[int]) -> int | None:
        """The last task of that one of `agents` by which most must be run; None where none must."""
        queue = self._busiest(agents)
        return queue[-1] if queue else None

    def take_last_of_busiest(self, agents: Collection[int]) -> int:
        """Takes that, which there is."""
        queue = self._busiest(agents)
        assert queue is not None
        self._count -= 1
        return queue.pop()

    def _busiest(self, agents: Collection[int]) -> deque[int] | None:
        return max((queue for agent, queue in self._pinned.items() if agent in agents), key=len, default=None)
