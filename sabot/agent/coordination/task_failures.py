"""What a failed task says of its cause: whether another attempt may succeed, and whose fault it was. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from sabot.errors import (
    JobCancelled,
    JobTakenOver,
    PeerLost,
    PeerRefused,
    SabotError,
    ShuffleIntegrityError,
    TaskFailed,
)
from sabot.wire.agent_pb2 import Failure
from sabot.wire.failure import from_failure, to_failure
from sabot.wire.member import Member


def is_lost(failure: Failure) -> bool:
    """An agent did not answer, or rows that it should hold are missing."""
    return _is(failure, PeerLost)


def is_ended(failure: Failure) -> bool:
    """The agent has ended a job that goes on: it took the coordinator for lost, and has nothing of the job any more."""
    return _is(failure, JobCancelled)


def is_taken_over(failure: Failure) -> bool:
    """The agent has another coordinator for the job."""
    return _is(failure, JobTakenOver)


def as_lost(failure: Failure, agent: Member) -> Failure:
    """The failure as what it means for the job: nobody has cancelled it."""
    if not is_ended(failure):
        return failure
    return to_failure(
        PeerLost(
            f"agent {agent.agent_id} at {agent.control_address} has ended the job by itself, since it missed the "
            f"coordinator for too long, and no other agent is left ({failure.message}); run the job again",
            agent=agent.agent_id,
            address=agent.control_address,
        )
    )


def is_wrong(failure: Failure) -> bool:
    """Rows are there and wrong."""
    return _is(failure, ShuffleIntegrityError)


def is_retried(failure: Failure) -> bool:
    """Whether it may be the cluster's fault, and no user's function had a part in it."""
    return is_lost(failure) or is_wrong(failure) or _is(failure, PeerRefused)


def is_ours(failure: Failure) -> bool:
    """Whether no function of the user's has raised it."""
    return failure.type.startswith(f"{SabotError.__module__}.") and not _is(failure, TaskFailed)


def shuffle_of(failure: Failure) -> str:
    """The shuffle that the failure names, or nothing."""
    error = from_failure(failure) if is_lost(failure) or is_wrong(failure) else None
    return str(error.facts.get("shuffle", "")) if isinstance(error, SabotError) else ""


def named(failure: Failure, agents: Sequence[Member]) -> Failure:
    """A task's PeerLost says only an address; say whose it is."""
    error = from_failure(failure) if is_lost(failure) else None
    if not isinstance(error, PeerLost) or "agent" in error.facts:
        return failure
    address = error.facts.get("address")
    for agent in agents:
        if address in (agent.flight_address, agent.control_address):
            told = PeerLost(f"agent {agent.agent_id}: {error.message}", **error.facts, agent=agent.agent_id)
            for note in getattr(error, "__notes__", []):
                told.add_note(note)
            return to_failure(told)
    return failure


def with_history(failures: Sequence[Failure]) -> Failure:
    """The last failure of a task, with the earlier ones as notes."""
    *earlier, last = failures
    error = from_failure(last)
    for number, failure in enumerate(earlier, 1):
        error.add_note(f"attempt {number} of {len(failures)} failed before: {failure.type}: {failure.message}")
    return to_failure(error)


def _is(failure: Failure, kind: type[SabotError]) -> bool:
    return failure.type == f"{kind.__module__}.{kind.__qualname__}"


def is_lost_upload(error: Exception) -> bool:
    """Whether rows are gone that their client has: it uploads them once more, and has the job taken over."""
    return isinstance(error, PeerLost) and "upload" in error.facts
