"""An agent that stands still when it has moved half of the files of a publish, and touches the file HALTED then. Run as
a process.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path

from sabot.agent.files import publish
from sabot.agent.files.publish import Manifest, Step
from sabot.cli.main import main


def halt_in_mid_publish(halted: Path) -> None:
    """From now on, in this process."""
    carry_out = publish._carry_out

    def halting(folder: Path, hidden: Path | None, manifest: Manifest, step: Step) -> None:
        moves = [0]

        def told(what: str) -> None:
            step(what)
            moves[0] += what.startswith("move ")
            if moves[0] > len(manifest.moves) // 2:
                halted.touch()
                threading.Event().wait()

        carry_out(folder, hidden, manifest, told)

    publish._carry_out = halting


if __name__ == "__main__":
    halt_in_mid_publish(Path(os.environ["HALTED"]))
    main()
