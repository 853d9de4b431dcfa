"""What is done to rows where they lie, and what brings rows of several places together without a key or with one."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import strategies as st

from sabot.dataflow.columns import hashable
from sabot.errors import UsageError
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.tables import chunked, shaped_tables

from .arena import Arena, Operation
from .functions import fails_on_some, placed, whole_groups, with_twice

_PREDICATES = [
    pc.field("i") > 2,
    (pc.bit_wise_and(pc.field("i"), 3) == 1) | pc.is_null(pc.field("k")),
    pc.is_valid(pc.field("n")) & pc.is_valid(pc.field("p")),
    pc.field("n").cast(pa.float64(), safe=False) > 0,  # decimals compare with no int64
    ~pc.field("i").isin([0, 1, 5]),
    pc.scalar(True),
]


@st.composite
def _cases(draw: st.DrawFn, **more: st.SearchStrategy[Any]) -> dict[str, Any]:
    table = draw(shaped_tables())
    drawn = {name: draw(strategy) for name, strategy in more.items()}
    return {"table": table, "given": draw(chunked(table)), **drawn}


def _filter(arena: Arena, case: dict[str, Any]) -> None:
    expression = case["expression"]
    arena.same(arena.session.from_table(case["given"]).filter(expression), case["table"].filter(expression))


def _columns(arena: Arena, case: dict[str, Any]) -> None:
    table, chosen = case["table"], case["columns"]
    dataset = arena.session.from_table(case["given"])
    arena.same(dataset.select(chosen), table.select(chosen))
    arena.same(dataset.drop_columns(chosen[:4]), table.drop_columns(chosen[:4]))
    names = {name: f"{name}_new" for name in chosen}
    renamed = dataset.rename_columns(names).append_column("twice", pc.field(names.get("i", "i")) * 2)
    twice = pc.multiply(table["i"], pa.scalar(2, pa.int64()))
    assert renamed.column_names == [*(names.get(name, name) for name in table.column_names), "twice"]
    arena.same(renamed, table.rename_columns(names).append_column("twice", twice))


def _map_batches(arena: Arena, case: dict[str, Any]) -> None:
    table, options = case["table"], dict(case["options"])
    if options.pop("schema"):
        options["schema"] = table.schema.append(pa.field("twice", pa.int64()))
    expected = table.append_column("twice", pc.multiply(table["i"], pa.scalar(2, pa.int64())))
    answer = arena.session.from_table(case["given"]).map_batches(with_twice, **options)
    arena.same(answer, expected.filter(pc.field("i") != 3))


def _quarantine(arena: Arena, case: dict[str, Any]) -> None:
    table = case["table"]
    mapped = arena.session.from_table(case["given"]).map_batches(fails_on_some, batch_rows=1, on_error="quarantine")
    failed = pc.bit_wise_and(pc.field("i"), 7) == 4
    with mapped.run() as result:
        assert_same_rows(result.to_table(), table.filter(~failed))
        assert_same_rows(result.quarantine.select(table.column_names), table.filter(failed))


def _union(arena: Arena, case: dict[str, Any]) -> None:
    table = case["table"]
    less = table.select(["i", "p"]).rename_columns(["i", "q"])
    first, second = arena.session.from_table(case["given"]), arena.session.from_table(less)
    arena.same(first.union(first, first.filter(pc.field("i") < 3)), pa.concat_tables([table, table, table.slice(0, 3)]))
    if pa.types.is_dictionary(table["k"].type) or pa.types.is_dictionary(table["h"].type):
        return  # pyarrow's columns of nulls have other types of dictionaries than its columns of values
    expected = pa.concat_tables([table, less], promote_options="default")
    arena.same(first.union(second, promote_options="default"), expected)


def _unique(arena: Arena, case: dict[str, Any]) -> None:
    table, chosen = case["table"], case["columns"]
    dataset = arena.session.from_table(case["given"])
    keys = [name for name in chosen if hashable(table[name].type)]
    if keys != chosen:
        with pytest.raises(UsageError, match="cannot be a key"):
            dataset.unique(chosen)
    if keys:
        arena.same(dataset.unique(keys), table.select(keys).group_by(keys, use_threads=False).aggregate([]))


def _sample(arena: Arena, case: dict[str, Any]) -> None:
    table = case["table"]
    dataset = arena.session.from_table(case["given"])
    counted = arena.rows(dataset.sample(num_rows=case["rows"], seed=case["seed"]))
    assert counted.num_rows == min(case["rows"], table.num_rows)
    half = dataset.sample(0.5, seed=case["seed"])
    for sample in (counted, arena.rows(half)):
        taken = sample["i"].to_pylist()
        assert len(set(taken)) == len(taken)
        assert_same_rows(sample, table.take(pa.array(taken, pa.int64())))
    arena.same(half, sample)
    arena.same(dataset.sample(1.0), table)
    arena.same(dataset.sample(0.0), table.slice(0, 0))


def _head(arena: Arena, case: dict[str, Any]) -> None:
    table = case["table"]
    answer = arena.rows(arena.session.from_table(case["given"]).head(case["rows"]))
    taken = answer["i"].to_pylist()
    assert len(set(taken)) == len(taken) == min(case["rows"], table.num_rows)
    assert_same_rows(answer, table.take(pa.array(taken, pa.int64())))


def _count(arena: Arena, case: dict[str, Any]) -> None:
    dataset = arena.session.from_table(case["given"])
    assert dataset.count_rows() == case["table"].num_rows
    assert dataset.filter(case["expression"]).count_rows() == case["table"].filter(case["expression"]).num_rows


def _repartition(arena: Arena, case: dict[str, Any]) -> None:
    table, keys, count = case["table"], case["keys"], case["count"]
    dealt = arena.session.from_table(case["given"]).repartition(keys, count)
    answer = arena.rows(dealt.map_partitions(placed, schema=table.schema.append(pa.field("place", pa.string()))))
    assert_same_rows(answer.drop_columns("place"), table)
    sizes = Counter(answer["place"].to_pylist())
    assert count is None or len(sizes) <= count
    if keys is None:
        full = [*sizes.values(), *[0] * ((count or len(sizes)) - len(sizes))]
        assert not full or max(full) - min(full) <= arena.agents, "each task deals its rows in turn"
        return
    places = defaultdict(set)
    for row in answer.select([*keys, "place"]).to_pylist():
        places[tuple(map(_nan_as_text, (row[key] for key in keys)))].add(row["place"])
    assert all(len(found) == 1 for found in places.values()), "equal keys lie in one partition"


def _nan_as_text(value: object) -> object:
    return "nan" if isinstance(value, float) and math.isnan(value) else value


def _map_partitions(arena: Arena, case: dict[str, Any]) -> None:
    expected = whole_groups(case["table"])
    answer = arena.session.from_table(case["given"]).repartition("k").map_partitions(whole_groups)
    arena.same(answer, expected)


def _persist(arena: Arena, case: dict[str, Any]) -> None:
    table = case["table"]
    with arena.session.from_table(case["given"]).repartition("k").persist() as kept:
        assert kept.count_rows() == table.num_rows
        arena.same(kept, table)
        arena.same(kept.filter(case["expression"]), table.filter(case["expression"]))
        counts = [([], "count_all"), ("i", "sum")]
        arena.same(kept.group_by("h").aggregate(counts), table.group_by("h", use_threads=False).aggregate(counts))
    with pytest.raises(UsageError, match="closed"):
        kept.run()


_EXPRESSION = {"expression": st.sampled_from(_PREDICATES[:3])}
_CHOSEN = {"columns": st.lists(st.sampled_from(["k", "h", "n", "p", "i"]), min_size=1, unique=True)}
_SOME = {"rows": st.integers(0, 20), "seed": st.integers(0, 5)}
_OPTIONS = st.fixed_dictionaries(
    {"batch_rows": st.sampled_from([None, 1, 5]), "processes": st.booleans(), "schema": st.booleans()}
)
_PARTITIONS = {"keys": st.sampled_from([None, ["k"], ["k", "h"]]), "count": st.sampled_from([None, 1, 3, 7])}


def _operation(name: str, methods: str, check: Any, **more: Any) -> Operation:
    return Operation(name=name, methods=frozenset(methods.split()), cases=_cases(**more), check=check)


ROWS = (
    _operation("filter", "filter", _filter, expression=st.sampled_from(_PREDICATES)),
    _operation(
        "columns",
        "select drop_columns rename_columns append_column column_names",
        _columns,
        **_CHOSEN,
    ),
    _operation("map_batches", "map_batches", _map_batches, options=_OPTIONS),
    _operation("quarantine", "map_batches", _quarantine),
    _operation("union", "union", _union),
    _operation("unique", "unique", _unique, **_CHOSEN),
    _operation("sample", "sample", _sample, **_SOME),
    _operation("head", "head", _head, **_SOME),
    _operation("count_rows", "count_rows filter", _count, **_EXPRESSION),
    _operation("repartition", "repartition map_partitions", _repartition, **_PARTITIONS),
    _operation("map_partitions", "repartition map_partitions", _map_partitions),
    _operation("persist", "persist filter group_by count_rows run repartition", _persist, **_EXPRESSION),
)
