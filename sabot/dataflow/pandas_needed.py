"""What gives pandas frames needs pandas, which Sabot itself does not."""

from __future__ import annotations

import importlib.util

from sabot.errors import UsageError


def check_pandas() -> None:
    """UsageError where pandas is not installed."""
    if importlib.util.find_spec("pandas") is None:
        raise UsageError("to_pandas needs pandas, which is not installed here: pip install pandas, or use to_table()")
