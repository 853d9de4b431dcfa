"""How many partitions each shuffle of a job has. Pure."""

from __future__ import annotations

from sabot.dataflow.stage import BroadcastShuffle, HashShuffle, JobPlan, RoundRobinShuffle, ShuffleInput
from sabot.errors import InternalError


def choose_partitions(plan: JobPlan, *, default: int, agents: int = 1) -> dict[int, int]:
    """The number of partitions of each shuffle by its stage: the plan's, 1 without keys, as many copies as there are
    agents, else that of the other side of its join, else `default`."""
    chosen: dict[int, int] = {}
    for stage in plan.stages:
        match stage.output:
            case HashShuffle(keys=()):
                chosen[stage.stage_id] = 1
            case BroadcastShuffle():
                chosen[stage.stage_id] = agents
            case HashShuffle(num_partitions=int(count)) | RoundRobinShuffle(num_partitions=int(count)):
                chosen[stage.stage_id] = count
    for stage in plan.stages:
        sides = stage.input.stage_ids if isinstance(stage.input, ShuffleInput) else ()
        fixed = {chosen[side] for side in sides if side in chosen}
        if len(fixed) > 1:
            raise InternalError(
                f"the inputs of stage {stage.stage_id} have {sorted(fixed)} partitions; please report it"
            )
        chosen.update({side: min(fixed, default=default) for side in sides})
    return chosen
