"""The bytes that docs/protocol.md shows are those that are sent."""

from __future__ import annotations

import re
from pathlib import Path

from tests.shuffle import wire

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
HEADER = wire.Header(
    shuffle_id="s",
    by_hash=True,
    incarnation=7,
    checksum=0x1122334455667788,
    epoch=1,
    task=2,
    attempt=3,
    sequence=4,
    extents=((5, 6, 9),),
    keys=(0,),
    bytes_held=4096,
)


def shown(what: str) -> bytes:
    found = re.search(rf"^\| {what} \| `([0-9a-f]+)` \|$", TEXT, re.MULTILINE)
    assert found is not None
    return bytes.fromhex(found[1])


def test_header_is_as_shown() -> None:
    assert HEADER.encode() == shown("header")
    assert wire.decode_header(shown("header")) == HEADER


def test_acknowledgement_is_as_shown() -> None:
    assert wire.decode_ack(shown("acknowledgement")) == wire.Ack(
        kind=1, repeated=False, code=wire.LIMIT, task=2, attempt=3, sequence=4, granted=8192, message="full"
    )


def test_request_for_credit_is_as_shown() -> None:
    assert wire.request_credit(1 << 20) == shown("request")
