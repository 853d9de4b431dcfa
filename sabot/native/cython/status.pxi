# The one funnel from native failures to sabot.errors.

import re as _re

from pyarrow.lib cimport check_status as _arrow_check_status

from sabot import errors as _errors

cdef extern from "sabot/native/status.h" namespace "sabot" nogil:
    cdef enum class Code(int32_t):
        kOther, kUsage, kPeerLost, kPeerRefused, kIntegrity, kLimit, kCancelled, kInternal, kUnhashableKey, kTaskFailed
    Code CodeOf(const CStatus& status)
    string PlainMessage(const CStatus& status)

_CLASS_OF_CODE = {
    <int32_t>Code.kUsage: _errors.UsageError,
    <int32_t>Code.kPeerLost: _errors.PeerLost,
    <int32_t>Code.kPeerRefused: _errors.PeerRefused,
    <int32_t>Code.kIntegrity: _errors.ShuffleIntegrityError,
    <int32_t>Code.kLimit: _errors.LimitReached,
    <int32_t>Code.kCancelled: _errors.JobCancelled,
    <int32_t>Code.kInternal: _errors.InternalError,
    <int32_t>Code.kUnhashableKey: _errors.UsageError,
    <int32_t>Code.kTaskFailed: _errors.TaskFailed,
}
# A native message ends with its facts: "... (shuffle=s, partition=3, agent=127.0.0.1:8816)".
_FACTS = _re.compile(r"\(((?:\w+=[^,()]*)(?:, \w+=[^,()]*)*)\)$")

_NUMBERS = {"partition", "task", "attempt", "sequence", "morsel", "exit_code", "signal", "timeout_ms"}  # an id is a text, though it may look like a number


def _facts_of(str message):
    found = _FACTS.search(message)
    if found is None:
        return {}
    facts = {}
    for pair in found.group(1).split(", "):
        name, _, value = pair.partition("=")
        if name in ("self", "message"):  # out of an odd id: no fact of ours, and a parameter of the exception
            continue
        facts[name] = int(value) if name in _NUMBERS and value.isdecimal() else value
    return facts


cdef object error_of(const CStatus& status):
    """The exception that `status` stands for, or None for a plain Arrow error."""
    kind = _CLASS_OF_CODE.get(<int32_t>CodeOf(status))
    if kind is None:
        return None
    message = PlainMessage(status).decode("utf-8", "replace")
    return kind(message, **_facts_of(message))


cdef int check(const CStatus& status) except -1 nogil:
    """Raises what `status` stands for; 0 where it is OK."""
    if status.ok():
        return 0
    with gil:
        error = error_of(status)
        if error is not None:
            raise error
    return _arrow_check_status(status)
