"""A task starts when its working memory is reserved whole, and waits as data until then."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import cast

import pytest

from sabot.agent.tasks.task_room import TaskRoom
from sabot.native._native import Ledger

LIMIT = 1000  # so that 750 may be reserved
WAIT_S = 20.0


class Tasks:
    """Tasks of one room; each holds what it reserved until it is told to end."""

    def __init__(self, ledger: Ledger, *, guard: bool = True) -> None:
        self.ledger = ledger
        self.room = TaskRoom(ledger, guard=guard)
        self.running: list[str] = []
        self.flags: dict[str, threading.Event] = {}
        self._ends: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._changed = asyncio.Condition()

    async def start(self, name: str, num_bytes: int) -> None:
        self.flags[name] = threading.Event()
        self._ends[name] = asyncio.Event()
        self._tasks[name] = asyncio.ensure_future(self._run(name, num_bytes))
        await asyncio.sleep(0)

    async def end(self, name: str) -> None:
        self._ends[name].set()
        await self._tasks[name]

    async def cancel_call(self, name: str) -> None:
        self._tasks[name].cancel()
        await asyncio.gather(self._tasks[name], return_exceptions=True)

    async def wait_for(self, names: list[str]) -> None:
        async with asyncio.timeout(WAIT_S), self._changed:
            await self._changed.wait_for(lambda: self.running == names)

    async def _run(self, name: str, num_bytes: int) -> None:
        async with self.room.reserved(num_bytes, self.flags[name]):
            self.running.append(name)
            await self._tell()
            await self._ends[name].wait()
            self.running.remove(name)
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def run(test: Callable[[Tasks], Awaitable[None]], *, guard: bool = True) -> None:
    async def inner() -> None:
        tasks = Tasks(Ledger(LIMIT), guard=guard)
        await test(tasks)
        assert tasks.room.parked == 0
        assert tasks.ledger.snapshot()["tasks"] == 0

    asyncio.run(inner())


def test_tasks_that_fit_run_at_once_and_the_next_waits_for_their_end() -> None:
    async def test(tasks: Tasks) -> None:
        await tasks.start("a", 400)
        await tasks.start("b", 300)
        await tasks.start("c", 400)
        await tasks.wait_for(["a", "b"])
        assert tasks.room.parked == 1
        assert tasks.ledger.snapshot()["tasks"] == 700
        await tasks.end("a")
        await tasks.wait_for(["b", "c"])
        await tasks.end("b")
        await tasks.end("c")

    run(test)


def test_without_the_guard_all_start() -> None:
    async def test(tasks: Tasks) -> None:
        for name in ("a", "b", "c"):
            await tasks.start(name, 400)
        await tasks.wait_for(["a", "b", "c"])
        assert tasks.ledger.snapshot()["tasks"] == 1200
        for name in ("a", "b", "c"):
            await tasks.end(name)

    run(test, guard=False)


def test_task_larger_than_the_limit_runs_alone() -> None:
    async def test(tasks: Tasks) -> None:
        await tasks.start("small", 100)
        await tasks.start("huge", 5000)
        await tasks.start("later", 100)
        await tasks.wait_for(["small"])
        await tasks.end("small")
        await tasks.wait_for(["huge"])
        await tasks.end("huge")
        await tasks.wait_for(["later"])
        await tasks.end("later")

    run(test)


def test_the_task_that_may_always_run_starts_when_nobody_frees_memory_any_more() -> None:
    async def test(tasks: Tasks) -> None:
        tasks.ledger.reserve_task(700)  # somebody else's promise
        tasks.ledger.freeing = True  # and a disk that is slow
        await tasks.start("a", 100)
        assert tasks.room.parked == 1
        assert tasks.ledger.snapshot()["tasks"] == 800, "its room is asked for"
        await asyncio.to_thread(setattr, tasks.ledger, "freeing", False)
        await tasks.wait_for(["a"])
        await tasks.end("a")
        tasks.ledger.unreserve_task(700)

    run(test)


def test_the_task_that_may_always_run_starts_below_the_high_water_mark() -> None:
    async def test(tasks: Tasks) -> None:
        tasks.ledger.reserve_task(700)
        tasks.ledger.freeing = True
        await tasks.start("a", 100)
        assert tasks.room.parked == 1
        await asyncio.to_thread(tasks.ledger.unreserve_task, 300)
        await tasks.wait_for(["a"])
        await tasks.end("a")
        tasks.ledger.unreserve_task(400)

    run(test)


def test_task_that_is_cancelled_while_memory_is_freed_for_it_gives_its_room_back() -> None:
    async def test(tasks: Tasks) -> None:
        tasks.ledger.freeing = True
        await tasks.start("a", 800)
        assert tasks.room.parked == 1
        await tasks.cancel_call("a")
        await tasks.start("b", 100)
        await tasks.wait_for(["b"])
        await tasks.end("b")

    run(test)


def test_memory_freed_by_others_admits_who_waits() -> None:
    async def test(tasks: Tasks) -> None:
        await tasks.start("a", 100)
        tasks.ledger.reserve_task(600)  # somebody else's promise
        await tasks.start("b", 100)
        await tasks.wait_for(["a"])
        assert tasks.room.parked == 1
        await asyncio.to_thread(tasks.ledger.unreserve_task, 600)
        await tasks.wait_for(["a", "b"])
        await tasks.end("a")
        await tasks.end("b")

    run(test)


@pytest.mark.parametrize("which", ["b", "c"])
def test_parked_task_whose_job_has_ended_is_let_go_without_a_reservation(which: str) -> None:
    async def test(tasks: Tasks) -> None:
        for name in ("a", "b", "c"):
            await tasks.start(name, 700)
        await tasks.wait_for(["a"])
        tasks.flags[which].set()
        tasks.room.look_again()
        await tasks.wait_for(["a", which])
        assert tasks.ledger.snapshot()["tasks"] == 700
        await tasks.end(which)
        await tasks.end("a")
        left = "c" if which == "b" else "b"
        await tasks.wait_for([left])
        await tasks.end(left)

    run(test)


def test_nothing_is_freed_any_more_for_a_task_that_was_cancelled_while_it_waited() -> None:
    async def test(tasks: Tasks) -> None:
        await tasks.start("a", 700)
        await tasks.wait_for(["a"])
        await tasks.start("b", 700)
        assert tasks.ledger.bytes_to_free > 0
        tasks.flags["b"].set()
        tasks.room.look_again()
        await tasks.wait_for(["a", "b"])
        assert tasks.ledger.bytes_to_free == 0
        await tasks.end("b")
        await tasks.end("a")

    run(test)


def test_cancelled_call_leaves_its_place_to_the_next() -> None:
    async def test(tasks: Tasks) -> None:
        await tasks.start("a", 500)
        await tasks.start("b", 700)
        await tasks.start("c", 200)
        await tasks.wait_for(["a"])
        await tasks.cancel_call("b")
        await tasks.wait_for(["a", "c"])
        await tasks.cancel_call("a")
        await tasks.end("c")

    run(test)


def test_memory_freed_between_a_refusal_and_the_wait_starts_the_task() -> None:
    class FreedMeanwhile:
        """A ledger in which memory comes free right after it refused."""

        def __init__(self) -> None:
            self.ledger = Ledger(LIMIT)
            self.ledger.reserve_task(700)

        def try_reserve_task(self, num_bytes: int) -> bool:
            reserved = self.ledger.try_reserve_task(num_bytes)
            if not reserved:
                self.ledger.unreserve_task(700)
            return reserved

        def __getattr__(self, name: str) -> object:
            return getattr(self.ledger, name)

    async def inner() -> None:
        tasks = Tasks(cast(Ledger, FreedMeanwhile()))
        await tasks.start("a", 10)
        await tasks.start("b", 400)
        await tasks.wait_for(["a", "b"])
        await tasks.end("a")
        await tasks.end("b")

    asyncio.run(inner())
