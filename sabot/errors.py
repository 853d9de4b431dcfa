"""The errors that Sabot raises, grouped by whose fault they are.

A message says what happened to which thing, then what to do. Every class survives pickling, so that a failure keeps its
type across the wire.
"""

from __future__ import annotations

from typing import Any

EXIT_USER = 2
EXIT_PEER = 3
EXIT_INTERNAL = 70


class SabotError(Exception):
    """Whatever Sabot raises of its own; `exit_code` is what the command line ends with."""

    exit_code = EXIT_INTERNAL

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.message = message
        self.facts: dict[str, Any] = facts

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore, (type(self), self.message, self.facts, getattr(self, "__notes__", []))


def _restore(kind: type[SabotError], message: str, facts: dict[str, Any], notes: list[str]) -> SabotError:
    error = kind(message, **facts)
    for note in notes:
        error.add_note(note)
    return error


class ConfigError(SabotError):
    """The configuration is wrong; `facts["problems"]` lists every fault with its dotted key."""

    exit_code = EXIT_USER


class UsageError(SabotError):
    """A call, path, column or argument is wrong."""

    exit_code = EXIT_USER


class PeerError(SabotError):
    """Another agent is at fault; `facts["address"]` names it where it is known."""

    exit_code = EXIT_PEER


class PeerLost(PeerError):
    """A peer did not answer within its deadline, or its connection broke."""


class PeerRefused(PeerError):
    """A peer answered and said no: another version, an ended shuffle, a wrong incarnation."""


class JobError(SabotError):
    """A job did not succeed."""


class TaskFailed(JobError):
    """The user's function failed and its exception could not be carried over; the message holds its text."""

    exit_code = EXIT_USER


class JobCancelled(JobError):
    """The job was cancelled by its user, or its client went away."""

    exit_code = EXIT_USER


class JobTakenOver(JobError):
    """Another agent coordinates the job now; what an earlier coordinator wants of it is refused."""

    exit_code = EXIT_PEER


class ShuffleIntegrityError(JobError):
    """Rows or bytes of a shuffle are there and wrong: `facts` has shuffle, partition, task, attempt, agent."""


class LimitReached(SabotError):
    """A limit was hit: the message names it, its value, and the key that raises it."""

    exit_code = EXIT_USER


class InternalError(SabotError):
    """A bug in Sabot; please report it with the message."""
