"""What a job's functions failed on, as tables: one for each `map_batches(on_error="quarantine")`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from sabot.dataflow.function_steps import MapBatches
from sabot.dataflow.quarantine import quarantine_schema
from sabot.dataflow.stage import JobPlan
from sabot.errors import InternalError
from sabot.wire.agent_pb2 import JobFinished, Quarantined


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """The rows of the batches that `function` failed on, as it was given them, with error_type, error_message,
    error_traceback, error_stage and error_task behind their columns.
    """

    function: str
    stage_id: int
    table: pa.Table


def quarantines_from(plan: JobPlan, finished: JobFinished) -> tuple[Quarantine, ...]:
    """One for each function that was to be called so, in the order of the plan, with no rows where none failed."""
    return tuple(
        Quarantine(
            function=step.name,
            stage_id=stage_id,
            table=_table(
                step, [one for one in finished.quarantined if (one.stage_id, one.position) == (stage_id, position)]
            ),
        )
        for stage_id, position, step in _steps(plan)
    )


def _steps(plan: JobPlan) -> Iterator[tuple[int, int, MapBatches]]:
    for stage in plan.stages:
        steps = [step for step in stage.steps if isinstance(step, MapBatches) and step.on_error == "quarantine"]
        for position, step in enumerate(steps):
            yield stage.stage_id, position, step


def _table(step: MapBatches, parts: list[Quarantined]) -> pa.Table:
    assert step.given is not None, "the planner says what such a function is given"
    schema = quarantine_schema(step.given)
    tables = [schema.empty_table()]
    for part in sorted(parts, key=lambda part: part.task):
        with pa.ipc.open_stream(pa.py_buffer(part.arrow_stream)) as reader:
            table = reader.read_all()
        if table.num_rows != part.rows:
            raise InternalError(
                f"{table.num_rows:,} rows came of the {part.rows:,} that {step.name} failed on in task {part.task} of "
                f"stage {part.stage_id}; please report it"
            )
        tables.append(pa.Table.from_arrays(table.columns, schema=schema))
    return pa.concat_tables(tables)
