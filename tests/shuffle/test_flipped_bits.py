"""Bits that flip on the wire, wherever they hit: rows arrive as they were sent, or an error says that they did not."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from sabot.errors import SabotError, ShuffleIntegrityError
from sabot.shuffle import ShuffleTransport
from tests.shuffle.faulty_proxy import FaultyProxy
from tests.shuffle.test_broken_streams import CHUNKS, all_numbers, numbers, start

MakeTransport = Callable[..., ShuffleTransport]

IN_THE_ROWS = 512 * 1024


def shuffled(make: MakeTransport, flip: int) -> SabotError | None:
    """What a sender hears of a shuffle over a wire that flips one bit; rows that arrived are exact."""
    receiver, sender = make(open_wait_s=10.0), make(streams_per_peer=1, stream_timeout_s=5.0, resume_s=0.5)
    with FaultyProxy(receiver.address) as proxy:
        proxy.flip(flip)
        start(sender, receiver, proxy)
        try:
            for chunk in range(CHUNKS):
                sender.send_partition("s", 1, numbers(chunk))
            sender.finish_shuffle("s", timeout_s=20)
        except SabotError as error:
            return error
    assert receiver.receive_partition("s", 1).read_all().sort_by("a").equals(all_numbers())
    return None


def test_bit_of_the_rows_is_caught_and_named(make_transport: MakeTransport) -> None:
    error = shuffled(make_transport, IN_THE_ROWS)
    assert isinstance(error, ShuffleIntegrityError)
    assert (error.facts["shuffle"], error.facts["task"]) == ("s", 0) and "agent" in error.facts


@pytest.mark.parametrize("seed", range(20))
def test_bit_anywhere_costs_the_shuffle_at_most_and_never_a_row(make_transport: MakeTransport, seed: int) -> None:
    rng = random.Random(seed)
    shuffled(make_transport, rng.choice([rng.randrange(2_000), rng.randrange(CHUNKS << 20)]))
