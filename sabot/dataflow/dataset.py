"""The lazy table that users hold: `pyarrow.Table`'s names, arguments and answers, computed by a session's agents.

Every method checks its arguments at once and gives a new Dataset; nothing is computed until rows are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc

from sabot.dataflow.answer import whole_answer
from sabot.dataflow.columns import check_columns, names_list
from sabot.dataflow.explain import explain_job
from sabot.dataflow.function_nodes import MapBatchesNode, MapPartitionsNode, map_batches_node, map_partitions_node
from sabot.dataflow.function_steps import BatchFunction, OnError, PartitionCallable
from sabot.dataflow.group_by import DatasetGroupBy
from sabot.dataflow.join_arguments import join_step
from sabot.dataflow.known_rows import known_rows
from sabot.dataflow.pandas_needed import check_pandas
from sabot.dataflow.plan import (
    FilterNode,
    HeadNode,
    JoinNode,
    Node,
    ProjectNode,
    RepartitionNode,
    SortNode,
)
from sabot.dataflow.planner import plan_job
from sabot.dataflow.quarantine_notice import tell_quarantined
from sabot.dataflow.ranges import SortKey
from sabot.dataflow.sampling import sample_node
from sabot.dataflow.session_protocol import JobProtocol, ResultProtocol, SessionProtocol
from sabot.dataflow.stage import Head, Sort
from sabot.dataflow.union import PromoteOptions, union_of
from sabot.dataflow.write_arguments import write_output
from sabot.errors import UsageError

if TYPE_CHECKING:
    from sabot.dataflow.persisted_dataset import PersistedDataset

_ORDERS = ("ascending", "descending")
_NULL_PLACEMENTS = ("at_start", "at_end")


class Dataset:
    """Rows that a session's agents will compute; made by the session's readers, `from_table` and other Datasets."""

    def __init__(self, session: SessionProtocol, node: Node) -> None:
        self._session = session
        self._node = node

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns; may have the function of a `map_batches` called without rows."""
        return self._node.schema

    @property
    def column_names(self) -> list[str]:
        """The columns' names, in order."""
        return list(self.schema.names)

    def filter(self, expression: pc.Expression) -> Dataset:
        """The rows for which `expression` is true, neither false nor null."""
        return self._then(FilterNode(child=self._node, expression=expression))

    def select(self, columns: Sequence[str | int]) -> Dataset:
        """The columns of these names or positions, in the order given."""
        if isinstance(columns, str):
            raise UsageError(f"select: takes a list of columns; write select([{columns!r}])")
        return self._project([self._name_of(column) for column in columns], what="select")

    def drop_columns(self, columns: str | Sequence[str]) -> Dataset:
        """All columns but these."""
        dropped = names_list(columns, "drop_columns:")
        check_columns(dropped, self.schema, "drop_columns")
        return self._project([name for name in self.schema.names if name not in dropped], what="drop_columns")

    def append_column(self, name: str | pa.Field, expression: pc.Expression) -> Dataset:
        """All columns and one more, last; a `pa.Field` as name also casts the value to its type."""
        if isinstance(name, pa.Field) and isinstance(expression, pc.Expression):
            name, expression = name.name, expression.cast(name.type)
        if not isinstance(name, str):
            raise UsageError(f"append_column: takes a name, not {type(name).__name__}")
        kept = self.schema.names
        check_columns(kept, self.schema, "append_column")
        expressions = (*(pc.field(column) for column in kept), expression)
        return self._then(
            ProjectNode(child=self._node, names=(*kept, name), expressions=expressions, what="append_column")
        )

    def rename_columns(self, names: Sequence[str] | Mapping[str, str]) -> Dataset:
        """New names for all columns, or for those that a mapping from old to new names has."""
        old = self.schema.names
        if isinstance(names, Mapping):
            check_columns(list(names), self.schema, "rename_columns")
            new = [names.get(name, name) for name in old]
        else:
            new = list(names)
        if len(new) != len(old):
            raise UsageError(f"rename_columns: there are {len(old)} columns, but {len(new)} names were given")
        return self._project(old, new, what="rename_columns")

    def map_batches(
        self,
        fn: BatchFunction,
        batch_rows: int | None = None,
        schema: pa.Schema | None = None,
        processes: bool = True,
        on_error: OnError = "raise",
        *,
        timeout_s: float | None = None,
    ) -> Dataset:
        """What `fn` returns for each RecordBatch; None for no rows.

        `fn` runs on the agents, in worker processes of this job; `timeout_s` bounds one call. The batches are of any
        size, with `batch_rows` of exactly so many rows, but the last of each task. `processes=False` runs it in the
        agents themselves, which saves a copy of each batch; it may then crash them. Without `schema` it is also called
        with a batch without rows, once, in a worker on an agent, to learn what columns it returns.

        `on_error="quarantine"` leaves out the batches on which it raises, returns what it must not, takes its process
        down or runs into `timeout_s`, and keeps them with what went wrong: `Result.quarantine`.
        """
        node = map_batches_node(
            self._node,
            fn,
            learn=self._session.learn_schema,
            batch_rows=batch_rows,
            schema=schema,
            processes=processes,
            on_error=on_error,
            timeout_s=timeout_s,
        )
        return Dataset(self._session, node)

    def map_partitions(
        self,
        fn: PartitionCallable,
        schema: pa.Schema | None = None,
        processes: bool = True,
        *,
        timeout_s: float | None = None,
    ) -> Dataset:
        """What `fn` returns for each partition, given as a `pyarrow.Table`: a table, a RecordBatch, anything with
        `__arrow_c_stream__` (frames of Polars and pandas, relations of DuckDB), or None for no rows.

        Partitions are those of the last shuffle (`repartition`, `group_by`, `join`), and of a source what one task
        reads; `fn` is not called for empty ones. All else is as for `map_batches`.
        """
        node = map_partitions_node(
            self._node,
            fn,
            learn=self._session.learn_schema,
            schema=schema,
            processes=processes,
            timeout_s=timeout_s,
        )
        return Dataset(self._session, node)

    def join(  # noqa: PLR0917 - as pyarrow.Table.join
        self,
        right: Dataset,
        keys: str | Sequence[str],
        right_keys: str | Sequence[str] | None = None,
        join_type: str = "left outer",
        left_suffix: str | None = None,
        right_suffix: str | None = None,
        coalesce_keys: bool = True,
        use_threads: bool = True,
        filter_expression: pc.Expression | None = None,
    ) -> Dataset:
        """What `pyarrow.Table.join` gives, in any order: its eight types of join; null keys match nothing.

        Rows with equal keys match only where `filter_expression`, if given, is true; it may name columns of both sides,
        but none that both have. `use_threads` is taken as pyarrow takes it and changes nothing.
        """
        if not isinstance(right, Dataset):
            raise UsageError(f"join: the right side is a Dataset, not {type(right).__name__}; see Session.from_table")
        if right._session is not self._session:
            raise UsageError("join: the two sides are of different sessions; read both from one")
        step = join_step(
            keys,
            right_keys,
            join_type,
            suffixes=(left_suffix, right_suffix),
            coalesce_keys=coalesce_keys,
            filter_expression=filter_expression,
        )
        return self._then(JoinNode(left=self._node, right=right._node, step=step))

    def group_by(self, keys: str | Sequence[str], use_threads: bool = True) -> DatasetGroupBy[Dataset]:
        """Groups of rows with equal keys, to be aggregated; `[]` puts all rows into one."""
        return DatasetGroupBy(self._node, names_list(keys, "group_by:"), self._then)

    def sort_by(self, sorting: str | Sequence[tuple[str, ...]]) -> Dataset:
        """All rows in order: by a column, or by several (name, "ascending" or "descending"[, "at_start" or "at_end"]).

        Nulls and NaNs come last unless "at_start" is given. Rows that compare equal keep their order.
        """
        keys = [(sorting, "ascending")] if isinstance(sorting, str) else list(sorting)
        for key in keys:
            if (
                not isinstance(key, tuple | list)
                or len(key) not in (2, 3)
                or key[1] not in _ORDERS
                or (len(key) == 3 and key[2] not in _NULL_PLACEMENTS)
            ):
                raise UsageError(
                    f'sort_by: takes a name or a list of (name, "ascending" or "descending"[, null placement]), '
                    f"not {key!r}"
                )
        sort_keys = tuple(cast(SortKey, tuple(key)) for key in keys)
        return self._then(SortNode(child=self._node, step=Sort(sorting=sort_keys)))

    def head(self, num_rows: int) -> Dataset:
        """The first rows of a sorted Dataset; of one that is not sorted, any that many."""
        if not isinstance(num_rows, int) or num_rows < 0:
            raise UsageError(f"head: takes a number of rows from 0 on, not {num_rows!r}")
        return self._then(HeadNode(child=self._node, step=Head(rows=num_rows)))

    def union(self, *others: Dataset, promote_options: PromoteOptions = "none") -> Dataset:
        """All rows of this and the other datasets, equal ones as often as they are there, in any order.

        Columns go together as in `pyarrow.concat_tables`: with "none" all schemas are the same, with "default" columns
        may be missing or of type null, with "permissive" types may be widened.
        """
        for other in others:
            if not isinstance(other, Dataset):
                raise UsageError(f"union: takes Datasets, not {type(other).__name__}; see Session.from_table")
            if other._session is not self._session:
                raise UsageError("union: the datasets are of different sessions; read all from one")
        return self._then(union_of([self._node, *(other._node for other in others)], promote_options))

    def unique(self, columns: str | Sequence[str] | None = None) -> Dataset:
        """The different rows of these columns, or of all; null is a value, too."""
        names = list(self.schema.names) if columns is None else list(names_list(columns, "unique:"))
        return self.select(names).group_by(names).aggregate([])

    def sample(self, fraction: float | None = None, *, num_rows: int | None = None, seed: int | None = None) -> Dataset:
        """Some of the rows, by chance: each with probability `fraction`, or `num_rows` of them, at most all.

        With the same `seed` the same, where the same tasks read the same rows in the same order: from files or tables,
        on as many slots. Without one it is drawn now, so that this Dataset gives the same sample run by run.
        """
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise UsageError(f"sample: seed is an int, not {seed!r}")
        return self._then(sample_node(self._node, fraction, num_rows, seed))

    def repartition(self, keys: str | Sequence[str] | None = None, num_partitions: int | None = None) -> Dataset:
        """The same rows, those with equal keys in one partition; without keys dealt out evenly."""
        if num_partitions is not None and (not isinstance(num_partitions, int) or num_partitions < 1):
            raise UsageError(f"repartition: num_partitions is a number from 1 on, not {num_partitions!r}")
        names = () if keys is None else names_list(keys, "repartition: keys=")
        return self._then(RepartitionNode(child=self._node, keys=names, num_partitions=num_partitions))

    def run(self, *, timeout_s: float | None = None, progress: bool | None = None) -> ResultProtocol:
        """Computes the rows and leaves them with the agents, from where the result can be read again and again.

        LimitReached when that has not ended after `timeout_s`; the wait in a queue counts. `progress` shows bars or
        not, whatever the session does.
        """
        return self._session.run(self._node, timeout_s=timeout_s, progress=progress)

    def submit(self, *, timeout_s: float | None = None) -> JobProtocol:
        """As `run()`, without waiting for the end: the job given has `result()`, `cancel()`, `done()`, `progress`."""
        return self._session.submit(self._node, timeout_s=timeout_s)

    def to_table(self, *, progress: bool | None = None) -> pa.Table:
        """Computes the rows and fetches them; computes them again where an agent is lost with a part of the answer."""
        return whole_answer(lambda: self.run(progress=progress), lambda result: result.to_table())

    def to_pandas(self, **options: Any) -> Any:
        """As `to_table`, as a pandas.DataFrame; `options` are those of pyarrow.Table.to_pandas."""
        check_pandas()
        return whole_answer(self.run, lambda result: result.to_pandas(**options))

    def to_batches(self) -> Iterator[pa.RecordBatch]:
        """Computes the rows when the first batch is asked for, and fetches them batch by batch."""
        result = self.run()
        try:
            tell_quarantined(result, stacklevel=2)
            yield from result.to_batches()
        finally:
            result.close()

    def count_rows(self) -> int:
        """The number of rows: as files' footers and tables have it where that tells, else counted on the agents."""
        rows = known_rows(self._node)
        if rows is not None:
            return rows
        counted = self.group_by([]).aggregate([([], "count_all")]).to_table()
        return int(counted.column(0)[0].as_py())

    def write_dataset(
        self,
        base_dir: str | PurePath,
        format: str = "parquet",
        *,
        basename_template: str | None = None,
        partitioning: Any = None,
        partitioning_flavor: str | None = "hive",
        filesystem: Any = None,
        file_options: Mapping[str, Any] | None = None,
        max_open_files: int | None = None,
        max_rows_per_file: int | None = None,
        max_rows_per_group: int | None = None,
        existing_data_behavior: str = "error",
        timeout_s: float | None = None,
    ) -> ResultProtocol:
        """Writes files on the agents, one for each partition that has rows; all appear when the job has succeeded.

        Takes what pyarrow.dataset.write_dataset takes, but that columns of `partitioning` become folders `key=value`
        unless the flavor is None, and that `file_options` is a dict. The result has no rows; it has the receipt.
        """
        output = write_output(
            base_dir,
            self.schema,
            format=format,
            basename_template=basename_template,
            partitioning=partitioning,
            partitioning_flavor=partitioning_flavor,
            filesystem=filesystem,
            file_options=file_options,
            max_open_files=max_open_files,
            max_rows_per_file=max_rows_per_file,
            max_rows_per_group=max_rows_per_group,
            existing_data_behavior=existing_data_behavior,
        )
        return self._session.run(self._node, output=output, timeout_s=timeout_s)

    def persist(self, *, timeout_s: float | None = None) -> PersistedDataset:
        """Computes the rows now and leaves them with the agents, on disk if need be; jobs that use the Dataset that is
        given read them there, each agent its own.

        They are kept until it is closed, or nobody holds it and what was made from it, until the session is closed, or
        until no job has used them for `jobs.result_lease_s`. A job that needs rows of an agent that is lost since is
        PeerLost: persist them again.
        """
        return self._session.persist(self._node, timeout_s=timeout_s)

    def explain(self, analyze: bool = False) -> str:
        """The stages in which the rows would be computed, where shuffles and broadcasts are, and why.

        With `analyze` the job is run, its answer dropped, and said of each stage what it did: rows, bytes, times,
        slots, skew, what was redone. That text is shown by a prompt as it stands, and by `rich.print` with a table.
        """
        if analyze:
            return self._session.analyze(self._node)
        return explain_job(
            plan_job(self._node, job_id="explain", broadcast_bytes_max=self._session.broadcast_bytes_max)
        )

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows as an Arrow C stream: Polars, DuckDB, pandas and pyarrow read a Dataset as it stands."""
        reader = pa.RecordBatchReader.from_batches(self.schema, self.to_batches())
        stream: object = reader.__arrow_c_stream__(requested_schema)
        return stream

    def __repr__(self) -> str:
        node = self._node
        if isinstance(node, MapBatchesNode | MapPartitionsNode) and not node.schema_is_known:
            return "<sabot.Dataset, columns not learnt yet: see .schema>"
        return f"<sabot.Dataset {', '.join(f'{field.name}: {field.type}' for field in node.schema)}>"

    def _then(self, node: Node) -> Dataset:
        _ = node.schema
        return Dataset(self._session, node)

    def _project(self, columns: Sequence[str], names: Sequence[str] | None = None, *, what: str) -> Dataset:
        check_columns(columns, self.schema, what)
        return self._then(
            ProjectNode(
                child=self._node,
                names=tuple(columns if names is None else names),
                expressions=tuple(pc.field(column) for column in columns),
                what=what,
            )
        )

    def _name_of(self, column: str | int) -> str:
        if isinstance(column, str):
            return column
        names = self.schema.names
        if not isinstance(column, int) or not -len(names) <= column < len(names):
            raise UsageError(f"select: takes names and positions of {len(names)} columns, not {column!r}")
        return str(names[column])
