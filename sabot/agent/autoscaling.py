"""Drives an Autoscaler with an agent's slots and the loop's clock, where `slots.autoscale` is configured."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from sabot.agent.context import AgentContext
from sabot.slots.autoscale import OBSERVE_EVERY_S, Autoscaler, SlotLoad

log = logging.getLogger("sabot.agent")


async def autoscale(context: AgentContext, scaler: Autoscaler, tell: Callable[[int], Awaitable[object]]) -> None:
    """Until it is cancelled; `tell` is given each new number. A slot that goes finishes its morsel first, so scaling
    happens off the loop.
    """
    loop = asyncio.get_running_loop()
    while True:
        load = slot_load(context, loop.time())
        wanted = scaler.observe(load)
        if wanted != load.num_slots:
            log.info("autoscale slots=%d before=%d queue_depth=%d", wanted, load.num_slots, load.queue_depth)
            await loop.run_in_executor(None, context.scale_slots, wanted)
            await tell(wanted)
        await asyncio.sleep(OBSERVE_EVERY_S)


def slot_load(context: AgentContext, now_s: float) -> SlotLoad:
    """The agent's slots at this moment."""
    stats = context.task_slot_manager.get_slot_stats()
    return SlotLoad(
        now_s=now_s,
        num_slots=len(stats),
        queue_depth=context.task_slot_manager.get_queue_depth(),
        busy_s=sum(slot["total_processing_time_us"] for slot in stats) / 1e6,
    )
