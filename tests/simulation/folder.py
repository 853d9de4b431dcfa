"""The folder that a job writes to: the real OutputFolder on a real disk, step by step in virtual time.

A use of it runs in a thread of its own, and stands still at every step until the clock goes on, for ever where its
process has died; at any time either that thread runs or the simulator does.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from sabot.agent.coordination import job_events as ev
from sabot.agent.files.output_folder import OutputFolder
from sabot.dataflow.stage import WriteOutput
from sabot.wire.failure import to_failure

if TYPE_CHECKING:
    from .driver import Driver

STEP_S_MAX = 0.01


class _Killed(BaseException):
    """Its process has died."""


class Use:
    """`step` is told by what runs; `advance` lets it run to the next, and is to be called until it is `done`."""

    def __init__(self) -> None:
        self.done = False
        self.next_step = "begin"
        self.error: Exception | None = None
        self._killed = False
        self._goes_on, self._stands = threading.Semaphore(0), threading.Semaphore(0)
        self._thread: threading.Thread | None = None

    def start(self, work: Callable[[], None]) -> None:
        self._thread = threading.Thread(target=self._run, args=(work,), daemon=True)
        self._thread.start()

    def step(self, what: str) -> None:
        self.next_step = what
        self._stands.release()
        self._goes_on.acquire()
        if self._killed:
            raise _Killed

    def advance(self) -> None:
        self._goes_on.release()
        self._stands.acquire()

    def kill(self) -> None:
        """Nothing of it happens any more."""
        self._killed = True
        while not self.done:
            self.advance()
        if self._thread is not None:
            self._thread.join()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            self._goes_on.acquire()
            if not self._killed:
                work()
        except _Killed:
            pass
        except Exception as error:
            self.error = error
        self.done = True
        self._stands.release()


class Folder:
    """One coordinator's, as sabot.agent.jobs.job_folder has it: one thing after the other, and none is cancelled."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._folder: OutputFolder | None = None
        self._use = Use()
        self._waiting: deque[tuple[Callable[[], None], ev.Event | None]] = deque()
        self._busy = False

    def open(self, output: WriteOutput) -> None:
        self._folder = OutputFolder(
            output.folder,
            self._driver.plan.job_id,
            self._driver.epoch,
            existing=output.existing_data_behavior,
            step=self._step,
        )
        self._begin(self._folder.open, ev.FolderOpened())

    def publish(self, files: Sequence[str]) -> None:
        assert self._folder is not None
        self._begin(partial(self._folder.publish, files), ev.FolderPublished())

    def discard(self) -> None:
        if self._folder is not None:
            self._begin(self._folder.discard, None)

    def _step(self, what: str) -> None:
        self._use.step(what)

    def _begin(self, work: Callable[[], None], done: ev.Event | None) -> None:
        self._waiting.append((work, done))
        if not self._busy:
            self._next()

    def _next(self) -> None:
        self._busy = bool(self._waiting)
        if self._waiting:
            work, done = self._waiting.popleft()
            self._use = Use()
            self._use.start(work)
            self._driver.world.uses.append(self._use)
            self._later(done)

    def _later(self, done: ev.Event | None) -> None:
        agent = self._driver.agent
        agent.later(agent.world.rng.uniform(0.0, STEP_S_MAX), partial(self._advance, done))

    def _advance(self, done: ev.Event | None) -> None:
        driver, use = self._driver, self._use
        use.advance()
        if not use.done:
            driver.world.happen(
                "publishing", driver.agent.place, "epoch %#x is about to %s", driver.epoch, use.next_step
            )
            self._later(done)
            return
        driver.world.uses.remove(use)
        if use.error is not None:
            driver.world.say("folder", "epoch %#x: %r", driver.epoch, use.error)
            driver.post(ev.FolderFailed(failure=to_failure(use.error)))
        elif done is not None:
            driver.post(done)
        self._next()
