"""Headers as they stand on the wire. Everyone on a chunk's way reads its header, and here each is read once."""

from __future__ import annotations

from functools import lru_cache

from sabot.native import _native


@lru_cache(maxsize=1 << 12)
def decode_header(header: bytes) -> _native.HeaderFields:
    return _native.decode_header(header)
