"""Names what goes wrong on a Flight port: which agent, during what, within which deadline, as one of sabot.errors."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.flight as fl

from sabot.errors import (
    InternalError,
    JobCancelled,
    LimitReached,
    PeerError,
    PeerLost,
    PeerRefused,
    SabotError,
    ShuffleIntegrityError,
    UsageError,
)

# The codes that an agent writes in front of its messages.
_MARKED = re.compile(r"\[sabot:(\d+)\](.*?)(?:\[/sabot\]|$)", re.DOTALL)
_FACTS = re.compile(r"\(((?:\w+=[^,()]*)(?:, \w+=[^,()]*)*)\)$")
_KINDS: dict[int, type[SabotError]] = {
    1: UsageError,
    2: PeerLost,
    3: PeerRefused,
    4: ShuffleIntegrityError,
    5: LimitReached,
    6: JobCancelled,
    7: InternalError,
    8: UsageError,
}


@contextmanager
def errors_named(address: str, what: str, timeout_s: float) -> Iterator[None]:
    """Raises what Flight raises inside as one of sabot.errors; an agent's own failure keeps its type and facts."""
    try:
        yield
    except (fl.FlightError, pa.ArrowException, OSError) as error:
        raise _named(error, address, what, timeout_s) from error


def _named(error: Exception, address: str, what: str, timeout_s: float) -> SabotError:
    text = str(error)
    marked = _MARKED.search(text)
    if marked is not None and int(marked[1]) in _KINDS:
        return _KINDS[int(marked[1])](marked[2], **_facts_of(marked[2]))
    if isinstance(error, fl.FlightTimedOutError):
        return PeerLost(
            f"{what}: agent {address} did not finish within {timeout_s:g} s; "
            "see whether it still runs (sabot-agent agents), then run the job again",
            address=address,
            deadline_s=timeout_s,
        )
    if isinstance(error, (fl.FlightUnavailableError, fl.FlightCancelledError)):
        return PeerLost(
            f"{what}: the connection to agent {address} broke or was refused; "
            "see whether it still runs (sabot-agent agents), then run the job again",
            address=address,
        )
    return PeerError(f"{what} failed at agent {address}: {text}; see its log", address=address)


def _facts_of(message: str) -> dict[str, str | int]:
    found = _FACTS.search(message)
    pairs = found[1].split(", ") if found else []
    facts: dict[str, str | int] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        facts[name] = int(value) if value.isdigit() else value
    return facts
