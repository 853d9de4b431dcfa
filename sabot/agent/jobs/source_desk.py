"""Answers what clients and agents ask about files: what a source has, what a filter leaves of it, who sees a path.

Its coroutines run on the daemon's loop; what blocks has threads of its own, so that a file system that does not answer
holds up no ends of jobs.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pyarrow as pa

from sabot.agent.cluster.membership import Membership
from sabot.agent.files.file_listing import pack_filesystem, sees
from sabot.agent.files.path_columns import rows_left
from sabot.agent.files.sources import Source, describe_source
from sabot.agent.jobs.peer_calls import PeerCalls
from sabot.dataflow.scan import PruneRequest, SourceRequest
from sabot.errors import SabotError, UsageError
from sabot.wire.agent_pb2 import (
    DescribeSourceReply,
    DescribeSourceRequest,
    Failure,
    FileLeft,
    PruneSourceReply,
    PruneSourceRequest,
    RunTaskReply,
    SeePathReply,
    SeePathRequest,
    SourceFile,
)
from sabot.wire.failure import to_failure
from sabot.wire.member import Member

_THREADS_MAX = 4
_SEE_TIMEOUT_S = 5.0

T = TypeVar("T")


class SourceDesk:
    """One for a daemon; `close` it with the job driver."""

    def __init__(self, membership: Membership, calls: PeerCalls) -> None:
        self._membership = membership
        self._calls = calls
        self._threads = ThreadPoolExecutor(_THREADS_MAX, thread_name_prefix="sabot-sources")

    async def describe(self, request: DescribeSourceRequest) -> DescribeSourceReply:
        """Lists a source's files as this agent sees them; where it sees none, the error names the agents that do."""
        try:
            return await self._in_thread(lambda: _to_wire(describe_source(_opened(request.request, SourceRequest))))
        except UsageError as error:
            unseen, filesystem = error.facts.pop("unseen", None), error.facts.pop("filesystem", None)
            if unseen is None or len(self._membership.members()) < 2:
                raise
            packed = pack_filesystem(filesystem)
            raise await self.unseen(unseen, packed, error) from error

    async def prune(self, request: PruneSourceRequest) -> PruneSourceReply:
        """What a filter leaves of files that have been listed."""
        left = await self._in_thread(lambda: rows_left(_opened(request.request, PruneRequest)))
        return PruneSourceReply(
            files=[FileLeft(whole=True) if groups is None else FileLeft(row_groups=groups) for groups in left]
        )

    async def see_path(self, request: SeePathRequest) -> SeePathReply:
        """Whether this agent sees a path."""
        return SeePathReply(seen=await self._in_thread(lambda: sees(request.path, request.filesystem)))

    async def unseen(self, path: str, filesystem: bytes, error: UsageError) -> UsageError:
        """The error for a path that an agent does not see: `error`, or which agents do and which do not."""
        seen, not_seen = await self._who_sees(path, filesystem, self._membership.members())
        return _seen_by_some(path, seen, not_seen) if seen and not_seen else error

    async def failure_of(self, reply: RunTaskReply) -> Failure:
        """The failure of a task; where that is a path which its agent does not see, with the names of those that do."""
        if not reply.unseen_path:
            return reply.failure
        seen, not_seen = await self._who_sees(reply.unseen_path, reply.unseen_filesystem, self._membership.members())
        return to_failure(_seen_by_some(reply.unseen_path, seen, not_seen)) if seen and not_seen else reply.failure

    async def check_all_see(self, path: str, members: Sequence[Member]) -> None:
        """UsageError where one of the members does not see a path of the local file systems."""
        seen, not_seen = await self._who_sees(path, b"", members)
        if not_seen:
            raise _seen_by_some(path, seen, not_seen)

    async def _who_sees(
        self, path: str, filesystem: bytes, members: Sequence[Member]
    ) -> tuple[list[Member], list[Member]]:
        """The members that see the path, and those that do not; who does not answer is left out."""
        request = SeePathRequest(path=path, filesystem=filesystem)
        answers = await asyncio.gather(*(self._ask(member, request) for member in members))
        pairs = list(zip(members, answers, strict=True))
        return [member for member, seen in pairs if seen], [member for member, seen in pairs if seen is False]

    async def _ask(self, member: Member, request: SeePathRequest) -> bool | None:
        if member.identity == self._membership.me.identity:
            return bool((await self.see_path(request)).seen)
        try:
            return await self._calls.see_path(member, request, timeout_s=_SEE_TIMEOUT_S)
        except SabotError:
            return None

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _seen_by_some(path: str, seen: Sequence[Member], not_seen: Sequence[Member]) -> UsageError:
    return UsageError(
        f"{path} is seen by {_names(seen)} and not by {_names(not_seen)}; use a folder that every agent finds under "
        "the same path (one that all mount), or to read a URI that all of them reach",
        path=path,
        seen_by=[member.agent_id for member in seen],
        not_seen_by=[member.agent_id for member in not_seen],
    )


def _names(members: Sequence[Member]) -> str:
    return ", ".join(f"agent {member.agent_id}" for member in members) or "no agent"


def _opened(packed: bytes, kind: type[T]) -> T:
    try:
        request = pickle.loads(packed)
    except Exception as error:
        raise UsageError(
            f"what was asked about files cannot be opened by the agent: {error}; a file system or partitioning of your "
            "own must be of a module that the agents have"
        ) from error
    if not isinstance(request, kind):
        raise UsageError(f"a {kind.__name__} was to come and not a {type(request).__name__}")
    return request


def _to_wire(source: Source) -> DescribeSourceReply:
    partitions = b""
    if len(source.path_columns):
        rows = [dict(file.partition) for file in source.files]
        table = pa.Table.from_pylist(rows, schema=source.path_columns)
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        partitions = sink.getvalue().to_pybytes()
    return DescribeSourceReply(
        schema=source.schema.serialize().to_pybytes(),
        partitions=partitions,
        filesystem=pack_filesystem(source.filesystem),
        column_widths=source.column_widths,
        files=[
            SourceFile(
                path=file.path,
                size_bytes=file.size_bytes,
                modified_ns=file.modified_ns,
                row_group_rows=file.row_group_rows,
                row_group_bytes=file.row_group_bytes,
                etag=file.etag,
                cut_at_lines=file.cut_at_lines,
            )
            for file in source.files
        ],
    )
