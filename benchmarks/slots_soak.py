"""Everything that slots can do, at random and at once: nothing may be lost, doubled or left behind."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import CancelledError
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from sabot.errors import UsageError
from sabot.slots import Morsel, MorselOperator, MorselSource, TaskSlotManager

CALLERS = 4
SLOTS_MOST = 6


class SoakError(Exception):
    """A promise that was not kept."""


class FailedOnPurpose(Exception):  # an event, not a fault
    """What a failing function raises."""


def soak(seconds: float, seed: int) -> None:
    """Raises SoakError, or prints what was done."""
    print(f"soak: {seconds:g} s, seed {seed}")
    until = time.monotonic() + seconds
    counts = {"calls": 0, "morsels": 0, "failed": 0, "cancelled": 0, "resized": 0, "pools": 0}
    errors: list[BaseException] = []
    numbers = pa.record_batch({"a": pa.array(range(4096), pa.int64())})
    first: tuple[int, int, int] | None = None
    rng = random.Random(seed)
    while time.monotonic() < until and not errors:
        _one_pool(rng, numbers, min(until, time.monotonic() + 1.0), counts, errors)
        counts["pools"] += 1
        first = first or _left_behind()  # libraries' own threads and files, made at first use
        gone_by = time.monotonic() + 5  # the system lists a thread for a moment after it was joined
        while any(left > before for left, before in zip(_left_behind(), first, strict=True)):
            if time.monotonic() > gone_by:
                raise SoakError(f"threads, files, bytes were {first} after the first pool and are {_left_behind()}")
            time.sleep(0.01)
    if errors:
        raise errors[0]
    print(
        "  "
        + ", ".join(f"{count} {what}" for what, count in counts.items())
        + f"; threads, files, bytes kept: {_left_behind()}"
    )


def _one_pool(
    rng: random.Random, numbers: pa.RecordBatch, until: float, counts: dict[str, int], errors: list[BaseException]
) -> None:
    with TaskSlotManager(num_slots=rng.randint(1, 3)) as manager:

        def call(own: random.Random) -> None:
            try:
                while time.monotonic() < until and not errors:
                    _one_call(manager, own, numbers, counts)
            except BaseException as error:
                errors.append(error)

        callers = [threading.Thread(target=call, args=(random.Random(rng.random()),)) for _ in range(CALLERS)]
        for caller in callers:
            caller.start()
        while time.monotonic() < until and not errors:
            slots = manager.get_num_slots()
            if slots > 1 and rng.random() < 0.5:
                manager.remove_slots(rng.randint(1, slots - 1))
            elif slots < SLOTS_MOST:
                manager.add_slots(1)
            counts["resized"] += 1
            time.sleep(rng.uniform(0, 0.01))
        for caller in callers:
            caller.join()
        idle_by = time.monotonic() + 5  # a cancelled call still passes through its slot, which nobody waits for
        while not errors and (manager.get_queue_depth() or manager.get_available_slots() < manager.get_num_slots()):
            if time.monotonic() > idle_by:
                raise SoakError(f"work is left in the pool: {manager.get_slot_stats()}")
            time.sleep(0.001)


def _one_call(manager: TaskSlotManager, rng: random.Random, numbers: pa.RecordBatch, counts: dict[str, int]) -> None:
    counts["calls"] += 1
    share = {"job": rng.choice([None, "a", "b"]), "weight": rng.choice([None, 1.0, 3.0])}
    source = rng.choice(list(MorselSource))
    rows = rng.randint(1, 400)
    morsels = [Morsel(numbers, start, min(rows, 4096 - start), source=source) for start in range(0, 4096, rows)]
    counts["morsels"] += len(morsels)
    what = rng.randrange(5)
    if what == 0:
        results = manager.execute_morsels(morsels, pc.field("a") + 1, **share)
        _same(numbers, [result.batch.column(0) for result in results], 1)
    elif what == 1:
        ended = sorted(manager.execute_morsels(morsels, lambda part: part, ordered=False, **share), key=_morsel_id)
        _same(numbers, [result.batch.column(0) for result in ended], 0)
    elif what == 2:
        operator = MorselOperator(lambda part: part, manager=manager, morsel_bytes=rows * 8, **share)
        answers = operator.process(numbers.slice(start, 512) for start in range(0, 4096, 512))
        _same(numbers, [answer.column(0) for answer in answers], 0)
    elif what == 3:
        _fail(manager, morsels, rng.randrange(len(morsels)), share, counts)
    else:
        _nest_and_cancel(manager, numbers, counts)


def _fail(
    manager: TaskSlotManager, morsels: list[Morsel], at: int, share: dict[str, object], counts: dict[str, int]
) -> None:
    first = morsels[at].start_row

    def fail(part: pa.RecordBatch) -> None:
        if part["a"][0].as_py() == first:
            raise FailedOnPurpose

    try:
        manager.execute_morsels(morsels, fail, **share)
    except FailedOnPurpose:
        counts["failed"] += 1
        return
    raise SoakError("a morsel failed and nobody was told")


def _nest_and_cancel(manager: TaskSlotManager, numbers: pa.RecordBatch, counts: dict[str, int]) -> None:
    def nest() -> int:
        return len(manager.execute_morsels([Morsel(numbers, 0, 1)] * 3, lambda part: part))

    for future in [manager.call_in_slot(nest) for _ in range(5)]:
        if counts["calls"] % 2:
            future.cancel()
        try:
            if future.result(30) != 3:
                raise SoakError("a nested call gave a wrong answer")
        except CancelledError:
            counts["cancelled"] += 1
        except UsageError as error:
            raise SoakError("a call was skipped without a shutdown") from error


def _same(numbers: pa.RecordBatch, columns: list[pa.Array], added: int) -> None:
    if not pa.chunked_array(columns).equals(pa.chunked_array([pc.add(numbers["a"], added)])):
        raise SoakError("rows were lost, doubled, reordered or wrong")


def _morsel_id(result: object) -> int:
    return int(result.morsel_id)  # type: ignore[attr-defined]  # a MorselResult


def _left_behind() -> tuple[int, int, int]:
    """Native threads, file descriptors and Arrow's bytes of this process."""
    return (
        len(list(Path("/proc/self/task").iterdir())),
        len(list(Path("/proc/self/fd").iterdir())),
        pa.total_allocated_bytes(),
    )
