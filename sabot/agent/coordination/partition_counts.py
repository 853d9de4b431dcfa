"""How many partitions each shuffle of a job has, as far as that is known before it runs. Pure."""

from __future__ import annotations

from sabot.agent.coordination.range_choice import RANGES_MAX
from sabot.dataflow.ranges import HomeShuffle, RangeShuffle
from sabot.dataflow.splits import splits_of
from sabot.dataflow.stage import BroadcastShuffle, HashShuffle, JobPlan, RoundRobinShuffle, ShuffleInput
from sabot.errors import InternalError


def choose_partitions(plan: JobPlan, *, default: int, agents: int = 1, split_bytes: int, slots: int) -> dict[int, int]:
    """The number of partitions of each shuffle by its stage: the plan's, 1 without keys, as many copies as there are
    agents, else that of the other side of its join, else `default`. A home shuffle has one for each task, a range
    shuffle as many as there may be: it uses the first of them.
    """
    chosen: dict[int, int] = {}
    for stage in plan.stages:
        match stage.output:
            case HashShuffle(keys=()):
                chosen[stage.stage_id] = 1
            case BroadcastShuffle():
                chosen[stage.stage_id] = agents
            case HashShuffle(num_partitions=int(count)) | RoundRobinShuffle(num_partitions=int(count)):
                chosen[stage.stage_id] = count
            case RangeShuffle():
                chosen[stage.stage_id] = RANGES_MAX
            case HomeShuffle():
                read = chosen.get(stage.input.stage_ids[0], default) if isinstance(stage.input, ShuffleInput) else None
                splits = splits_of(stage, plan, num_partitions=read, split_bytes=split_bytes, slots=slots)
                chosen[stage.stage_id] = len(splits)
    for stage in plan.stages:
        sides = stage.input.stage_ids if isinstance(stage.input, ShuffleInput) else ()
        fixed = {chosen[side] for side in sides if side in chosen}
        if len(fixed) > 1:
            raise InternalError(
                f"the inputs of stage {stage.stage_id} have {sorted(fixed)} partitions; please report it"
            )
        chosen.update({side: min(fixed, default=default) for side in sides})
    return chosen
