"""Worker processes, in which a job's Python functions run: they scale with the slots, and may be killed or crash."""

from sabot.slots.workers.nursery import Nursery
from sabot.slots.workers.pool import WorkerLimits, WorkerPool, log_printed

__all__ = ["Nursery", "WorkerLimits", "WorkerPool", "log_printed"]
