"""An agent that cuts sorts into ranges of single rows where the slots want as many. Run as a process."""

from __future__ import annotations

from sabot.agent.range_choice import RangeRule
from sabot.cli.main import main

FINE = RangeRule(rows_min=1)

if __name__ == "__main__":
    RangeRule.within = classmethod(lambda cls, memory_bytes_max: FINE)  # type: ignore[method-assign]
    main()
