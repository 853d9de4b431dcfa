"""An answer that is lost between its job and its fetch is computed again, a few times; one that is not is never."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest

from sabot.dataflow.answer import whole_answer
from sabot.dataflow.session_protocol import ResultProtocol
from sabot.errors import PeerLost, TaskFailed


class Runs:
    """Gives results, which say whether they are closed."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.results: list[KnownResult] = []

    def __call__(self) -> ResultProtocol:
        if self.error is not None:
            raise self.error
        self.results.append(KnownResult())
        return cast(ResultProtocol, self.results[-1])


class KnownResult:
    quarantines: tuple[Any, ...] = ()

    def __init__(self) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True


def lost(times: int, error: type[PeerLost | TaskFailed] = PeerLost) -> Callable[[ResultProtocol], str]:
    """A fetch that fails so often."""
    left = iter(range(times))

    def fetch(result: ResultProtocol) -> str:
        if next(left, None) is not None:
            raise error("gone")
        return "answer"

    return fetch


@pytest.mark.parametrize("times", [0, 1, 2])
def test_answer_is_computed_again_while_it_is_lost(times: int) -> None:
    runs = Runs()
    assert whole_answer(runs, lost(times)) == "answer"
    assert [result.closed for result in runs.results] == [True] * (times + 1)


def test_answer_that_is_lost_three_times_is_given_up() -> None:
    runs = Runs()
    with pytest.raises(PeerLost, match="gone"):
        whole_answer(runs, lost(3))
    assert [result.closed for result in runs.results] == [True] * 3


def test_other_failures_and_those_of_the_job_are_not_tried_again() -> None:
    runs = Runs()
    with pytest.raises(TaskFailed, match="gone"):
        whole_answer(runs, lost(1, TaskFailed))
    assert [result.closed for result in runs.results] == [True]
    failing = Runs(PeerLost("an agent that held a table"))
    with pytest.raises(PeerLost, match="held a table"):
        whole_answer(failing, lost(0))
