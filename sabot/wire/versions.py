"""Which versions must agree between the two ends of a control channel, and the check that says so.

Plans and failures travel as pickles and rows as Arrow, so Sabot's version, pyarrow's major, Python's minor and the
protocol must be the same on both sides.
"""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

from sabot.errors import PeerRefused
from sabot.wire.agent_pb2 import Versions

PROTOCOL = 3
"""Counted up by every change that an older agent or client would misread."""


def my_versions() -> Versions:
    """This process's versions."""
    return Versions(
        sabot=_installed("sabot"),
        pyarrow_major=int(_installed("pyarrow").partition(".")[0]),
        python=".".join(platform.python_version_tuple()[:2]),
        protocol=PROTOCOL,
    )


@cache
def _installed(package: str) -> str:
    """As its metadata say, which take half a millisecond to read, and every call about a job is checked."""
    return metadata.version(package)


def check_versions(theirs: Versions, *, mine: Versions | None = None, peer: str = "the other side") -> None:
    """Raises PeerRefused, naming every pair that differs, unless `peer` with its versions `theirs` fits to us."""
    mine = my_versions() if mine is None else mine
    pairs = {
        "sabot": (mine.sabot, theirs.sabot, mine.sabot == theirs.sabot),
        "pyarrow": (mine.pyarrow_major, theirs.pyarrow_major, mine.pyarrow_major == theirs.pyarrow_major),
        "Python": (mine.python, theirs.python, mine.python == theirs.python),
        "protocol": (mine.protocol, theirs.protocol, mine.protocol == theirs.protocol),
    }
    wrong = [f"{name} {ours} here, {other or 'none'} there" for name, (ours, other, fits) in pairs.items() if not fits]
    if wrong:
        raise PeerRefused(
            f"versions of {peer} do not fit to this process: {'; '.join(wrong)}. Install the same versions on both.",
            differences=wrong,
        )
