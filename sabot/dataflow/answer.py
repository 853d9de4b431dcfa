"""Takes the whole answer of a Dataset in one call, which no agent's death between its job and its fetch may spoil."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from sabot.dataflow.quarantine_notice import tell_quarantined
from sabot.dataflow.session_protocol import ResultProtocol
from sabot.errors import PeerLost

log = logging.getLogger("sabot.dataflow")

_RUNS_MAX = 3

T = TypeVar("T")


def whole_answer(run: Callable[[], ResultProtocol], fetch: Callable[[ResultProtocol], T]) -> T:
    """What `fetch` makes of the result that `run` gives. A result of which a part is lost with its agent before it is
    fetched is computed once more: nobody has seen it. PeerLost where that happens three times.
    """
    for _ in range(_RUNS_MAX - 1):
        result = run()
        try:
            return _fetched(result, fetch)
        except PeerLost as error:
            log.warning("a part of the answer is lost, computing it again error=%s", error.message)
    return _fetched(run(), fetch)


def _fetched(result: ResultProtocol, fetch: Callable[[ResultProtocol], T]) -> T:
    try:
        answer = fetch(result)
        tell_quarantined(result, stacklevel=4)
    finally:
        result.close()
    return answer
