"""An agent that cuts sorts into as many ranges as the slots want, however few their rows. Run as a process."""

from __future__ import annotations

from sabot.agent.coordination.range_choice import RangeRule
from sabot.cli.main import main

FINE = RangeRule(rows_min=1)


def cut_finely() -> None:
    """From now on, in this process."""
    RangeRule.within = classmethod(lambda cls, memory_bytes_max: FINE)  # type: ignore[method-assign]


if __name__ == "__main__":
    cut_finely()
    main()
