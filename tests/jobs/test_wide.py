"""Wide shuffles: what a coordinator keeps of one grows with its maps and its partitions, not with their product."""

from __future__ import annotations

import gc
import sys
from types import ModuleType

from google.protobuf.message import Message

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.dataflow.stage import HashShuffle, JobPlan, ResultOutput, ShuffleInput

from .job_world import JOB_ID, World, make_coordinator, member, scan, stage


def wide_plan(maps: int, partitions: int) -> JobPlan:
    return JobPlan(
        job_id=JOB_ID,
        stages=(
            stage(0, scan(*[10] * maps), HashShuffle(keys=("k",), num_partitions=partitions)),
            stage(1, ShuffleInput(stage_ids=(0,)), ResultOutput()),
        ),
    )


def after_the_maps(maps: int, partitions: int) -> Coordinator:
    """A coordinator that has taken the reply of every map and has dealt out the first readers."""
    plan = wide_plan(maps, partitions)
    coordinator = make_coordinator(plan, member(0), member(1))
    world = World(plan=plan, partitions={0: partitions})
    commands = coordinator.handle(ev.JobStarted())
    while commands:
        answers = [world.answer(command) for command in commands if not _reads(command)]
        commands = [command for answer in answers if answer is not None for command in coordinator.handle(answer)]
    return coordinator


def _reads(command: ev.Command) -> bool:
    return isinstance(command, ev.StartTask) and command.stage_id == 1


def bytes_held(root: object) -> int:
    """What is reachable from `root`, protocol messages by what they would take on the wire."""
    seen: set[int] = set()
    total = 0
    left = [root]
    while left:
        held = left.pop()
        if id(held) in seen or isinstance(held, type | ModuleType) or callable(held):
            continue
        seen.add(id(held))
        total += held.ByteSize() if isinstance(held, Message) else sys.getsizeof(held)
        left.extend(gc.get_referents(held))
    return total


def test_coordinator_of_10_000_partitions_keeps_as_much_as_its_maps_and_partitions_need() -> None:
    few, many = bytes_held(after_the_maps(40, 10_000)), bytes_held(after_the_maps(100, 10_000))
    narrow = bytes_held(after_the_maps(40, 1_000))
    assert (many - few) / 60 < 2_000, "bytes for each map more, with 10,000 partitions"
    assert (few - narrow) / 9_000 < 1_000, "bytes for each partition more"
