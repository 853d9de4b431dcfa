"""Futures of work in the slots: settled in the slot, after its counters include the work."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from sabot.errors import JobCancelled, UsageError
from sabot.native._native import MorselResult, MorselRun, SlotPool
from sabot.slots.job_share import JobShare
from sabot.slots.morsel import MorselSource
from sabot.slots.operators import function_name

T = TypeVar("T")


class MorselFuture(Future[MorselResult]):
    """Of one morsel. `cancel()` works until it starts; `running()` stays False, for no Python runs at its start."""

    def __init__(self, run: MorselRun, morsel_id: int) -> None:
        super().__init__()
        self._run = run
        self._morsel_id = morsel_id

    def cancel(self) -> bool:
        """Whether the morsel will not run."""
        self._run.cancel()
        return self.cancelled()

    def settle(self) -> None:
        """Takes over the run's end. Called once, by the pool."""
        try:
            self._run.raise_failure()
        except JobCancelled:
            super().cancel()
            self.set_running_or_notify_cancel()
        except BaseException as error:
            self.set_exception(error)
        else:
            self.set_result(self._run.result(0, self._morsel_id))


def call_in_pool(pool: SlotPool, function: Callable[[], T], source: MorselSource, share: JobShare) -> Future[T]:
    """A future of `function()`, called once in a slot; cancelling works until it starts."""
    future: Future[T] = Future()

    def run() -> Any:
        return function() if future.set_running_or_notify_cancel() else None

    def settle(ran: bool, result: Any, exception: BaseException | None) -> None:
        if not ran:
            if future.set_running_or_notify_cancel():  # of one cancelled it tells those who wait
                future.set_exception(UsageError("the slots were shut down before the call ran"))
        elif future.cancelled():
            return
        elif exception is not None:
            future.set_exception(exception)
        else:
            future.set_result(result)

    is_network = source is MorselSource.NETWORK
    pool.call(run, settle, is_network, share.job, share.weight, name=function_name(function))
    return future
