"""Failures as gRPC carries them: a status code for any tool, the failure itself in the trailing metadata for ours."""

from __future__ import annotations

import grpc

from sabot import errors
from sabot.wire.agent_pb2 import Failure
from sabot.wire.failure import from_failure, to_failure

FAILURE_KEY = "sabot-failure-bin"
FAILURE_METADATA_BYTES_MAX = 128 * 1024
_DETAILS_CHARACTERS_MAX = 2000

_CODES: dict[type[BaseException], grpc.StatusCode] = {
    errors.ConfigError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.UsageError: grpc.StatusCode.INVALID_ARGUMENT,
    errors.PeerLost: grpc.StatusCode.UNAVAILABLE,
    errors.PeerRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.PeerError: grpc.StatusCode.UNAVAILABLE,
    errors.JobCancelled: grpc.StatusCode.CANCELLED,
    errors.ShuffleIntegrityError: grpc.StatusCode.DATA_LOSS,
    errors.LimitReached: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.JobError: grpc.StatusCode.ABORTED,
    errors.SabotError: grpc.StatusCode.INTERNAL,
}


def status_of(error: BaseException) -> tuple[grpc.StatusCode, str, tuple[tuple[str, bytes], ...]]:
    """Code, details and trailing metadata to end a call with."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), grpc.StatusCode.UNKNOWN)
    failure = to_failure(error, bytes_max=FAILURE_METADATA_BYTES_MAX)
    return code, str(error)[:_DETAILS_CHARACTERS_MAX], ((FAILURE_KEY, failure.SerializeToString()),)


def error_of(error: grpc.RpcError, *, address: str, deadline_s: float) -> BaseException:
    """What the agent at `address`, called with that deadline, or the connection to it has to say."""
    for key, value in error.trailing_metadata() or ():
        if key == FAILURE_KEY:
            return from_failure(Failure.FromString(value))
    code, details = error.code(), error.details()
    match code:
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            said = _lost(address, f"did not answer within {deadline_s:g} s", deadline_s)
        case grpc.StatusCode.UNAVAILABLE:
            said = _lost(address, f"cannot be reached (tried for at most {deadline_s:g} s: {details})", deadline_s)
        case grpc.StatusCode.UNIMPLEMENTED:
            said = errors.PeerRefused(
                f"{address} is no control port of this version of Sabot; give the control port of an agent "
                "(sabot-agent start prints it, 8815 by default), not its Flight or HTTP port",
                address=address,
            )
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            said = errors.LimitReached(f"agent {address} refused a message as too large: {details}", address=address)
        case grpc.StatusCode.CANCELLED:
            said = errors.JobCancelled(f"the call to agent {address} was cancelled")
        case _:
            said = errors.InternalError(f"agent {address} failed with {code}: {details}; see its log and report it")
    return said


def _lost(address: str, how: str, deadline_s: float) -> errors.SabotError:
    return errors.PeerLost(
        f"agent {address} {how}; see whether it runs (sabot-agent status --agent {address}), or start one with "
        "sabot-agent start",
        address=address,
        deadline_s=deadline_s,
    )
