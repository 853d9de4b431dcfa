"""Reading a share of a partition: of the rows that a part of a job's tasks sent, from whoever owns the partition."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from sabot.errors import PeerRefused
from sabot.shuffle.receipts import PartitionRead
from sabot.shuffle.transport import ShuffleTransport


def read_share(
    transport: ShuffleTransport,
    shuffle_id: str,
    partition: int,
    *,
    attempts: Sequence[int],
    share: tuple[int, int],
    keys: Sequence[str] = (),
    epoch: int = 0,
    timeout_s: float = 30.0,
) -> PartitionRead:
    """Share (i, n) is what tasks i, i + n, ... sent; `attempts` has the attempt of every task.

    Batches carry checksums over the wire, and the content sum is computed anew here, bound to `keys` as the senders
    have bound it. PeerLost where the owner does not answer; PeerRefused where `epoch` is not the shuffle's, for then
    another may own the partition than who was sent those rows.
    """
    server = transport.server
    known, owner_of = server.owner_table(shuffle_id)
    if known != epoch:
        raise PeerRefused(
            f"Partition {partition} of shuffle {shuffle_id} is to be pulled in epoch {epoch}; agent "
            f"{transport.address} is in epoch {known}. The task is tried again by the table of now.",
            shuffle=shuffle_id,
            partition=partition,
        )
    owner = server.owners(shuffle_id)[owner_of[partition]]
    if owner == transport.address:
        index, count = share
        mine = list(enumerate(attempts))[index::count]
        return transport.read_partition(shuffle_id, partition, attempts=mine, timeout_s=timeout_s)
    schema = server.schema(shuffle_id) or pa.schema([])
    return transport.client.fetch_share(
        owner,
        shuffle_id,
        partition,
        attempts=attempts,
        share=share,
        key_columns=[schema.names.index(key) for key in keys],
        timeout_s=timeout_s,
    )
