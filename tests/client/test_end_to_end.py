"""Jobs over one, two and four real agents give pyarrow's answers, and what goes wrong arrives with its type."""

from __future__ import annotations

import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from sabot import LocalCluster
from sabot.client.session import Session
from sabot.errors import UsageError

HELD = re.compile(r"^sabot_shuffle_(?:stored|published)_bytes\{.*\} (.*)$", re.MULTILINE)
ROWS = 20_000
ORDERS = pa.table(
    {
        "id": pa.array(range(ROWS), pa.int64()),
        "customer": pa.array([i * 7919 % 997 for i in range(ROWS)], pa.int64()),
        "amount": pa.array([None if i % 31 == 0 else i % 100 / 4 for i in range(ROWS)], pa.float64()),
        "kind": pa.array([("new", "old", "lost")[i % 3] for i in range(ROWS)]).dictionary_encode(),
    }
)
CUSTOMERS = pa.table(
    {
        "customer": pa.array(range(0, 1200, 2), pa.int64()),
        "name": pa.array([f"customer {i}" for i in range(0, 1200, 2)]),
    }
)


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda count: f"{count} agents")
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    with LocalCluster(agents=request.param, slots=1) as running:
        yield running


@pytest.fixture
def session(cluster: LocalCluster) -> Iterator[Session]:
    with cluster.connect(progress=False) as connected:
        yield connected


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("orders")
    for part in range(5):
        pq.write_table(ORDERS.slice(part * ROWS // 5, ROWS // 5), folder / f"part-{part}.parquet", row_group_size=1500)
    return folder


def held_bytes(cluster: LocalCluster) -> list[float]:
    """What each agent holds of jobs: chunks, uploads and results."""
    return [sum(map(float, HELD.findall(metrics_of(agent.http_address)))) for agent in cluster.agents]


def metrics_of(address: str) -> str:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def rows_of(table: pa.Table, key: str) -> list[dict[str, object]]:
    return list(table.sort_by(key).to_pylist())


def test_files_come_back_whole(session: Session, orders: Path) -> None:
    table = session.read_parquet(orders).to_table()
    assert rows_of(table, "id") == ORDERS.to_pylist()
    assert table.schema.field("kind").type == ORDERS.schema.field("kind").type


def test_a_table_comes_back_whole_and_in_order(session: Session) -> None:
    table = session.from_table(ORDERS).to_table()
    assert table.to_pylist() == ORDERS.to_pylist()
    assert table.schema == ORDERS.schema


def test_filter_join_group_and_sort_give_the_answer_of_pyarrow(session: Session, orders: Path) -> None:
    answer = (
        session.read_parquet(orders / "*.parquet", columns=["customer", "amount"])
        .filter(pc.field("amount") > 3)
        .join(session.from_table(CUSTOMERS), "customer", join_type="inner")
        .group_by("name")
        .aggregate([("amount", "sum"), ([], "count_all"), ("amount", "max")])
        .sort_by([("count_all", "descending"), ("name", "ascending")])
        .to_table()
    )
    expected = (
        ORDERS.select(["customer", "amount"])
        .filter(pc.field("amount") > 3)
        .join(CUSTOMERS, "customer", join_type="inner")
        .group_by("name")
        .aggregate([("amount", "sum"), ([], "count_all"), ("amount", "max")])
        .sort_by([("count_all", "descending"), ("name", "ascending")])
    )
    assert answer.schema.names == expected.schema.names
    for name in ("name", "count_all", "amount_max"):
        assert answer[name].to_pylist() == expected[name].to_pylist()
    assert answer["amount_sum"].to_pylist() == pytest.approx(expected["amount_sum"].to_pylist(), rel=1e-9)


def test_csv_files_are_read(session: Session, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("k,v\n1,x\n2,y\n")
    (tmp_path / "b.csv").write_text("k,v\n3,z\n")
    table = session.read_csv([tmp_path / "a.csv", tmp_path / "b.csv"]).to_table()
    assert rows_of(table, "k") == [{"k": 1, "v": "x"}, {"k": 2, "v": "y"}, {"k": 3, "v": "z"}]


def test_relative_paths_are_those_of_the_client(
    session: Session, orders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(orders.parent)
    assert session.read_parquet(f"{orders.name}/part-0.parquet").count_rows() == ROWS // 5


def test_a_million_rows_are_shuffled_and_every_one_accounted_for(session: Session, cluster: LocalCluster) -> None:
    ids = pa.table({"id": pa.array(range(1_200_000), pa.int64())})
    with session.from_table(ids).repartition("id", 16).run() as result:
        (shuffle,) = result.receipt.shuffles
        assert (shuffle.rows_in, shuffle.rows_out, shuffle.lost, shuffle.doubled) == (1_200_000, 1_200_000, 0, 0)
        assert shuffle.num_partitions == 16
        assert shuffle.sum_in == shuffle.sum_out != 0
        assert (shuffle.wire_bytes > 0) == (len(cluster.agents) > 1)
        assert result.to_table().sort_by("id") == ids


@pytest.mark.parametrize("processes", [True, False])
def test_map_batches_runs_the_function_on_the_agents(session: Session, cluster: LocalCluster, processes: bool) -> None:
    def with_place(batch: pa.RecordBatch) -> pa.RecordBatch:
        import os

        import psutil

        agents = [parent for parent in psutil.Process().parents() if "sabot.client.leash" in str(parent.cmdline())]
        place = "worker" if agents else "agent"
        agent = agents[0].pid if agents else os.getpid()
        rows = batch.num_rows
        return pa.record_batch(
            {
                "id": batch["id"],
                "pid": pa.array([agent] * rows, pa.int64()),
                "place": pa.array([place] * rows, pa.string()),
            }
        )

    table = session.from_table(ORDERS).map_batches(with_place, processes=processes).to_table()
    assert table["id"].to_pylist() == list(range(ROWS))
    assert set(table["pid"].to_pylist()) == {agent.pid for agent in cluster.agents}
    assert set(table["place"].to_pylist()) == {"worker" if processes else "agent"}


def test_the_exception_of_a_function_arrives_as_itself_with_its_place(session: Session, orders: Path) -> None:
    def picky(batch: pa.RecordBatch) -> pa.RecordBatch:
        if batch.num_rows:
            raise LookupError("no such customer: 12")
        return batch

    with pytest.raises(LookupError, match="no such customer: 12") as caught:
        session.read_parquet(orders).map_batches(picky).to_table()
    notes = "\n".join(caught.value.__notes__)
    for word in ("agent=local-", "stage=", "task=", "morsel=", "in picky"):
        assert word in notes


def test_a_function_that_returns_something_else_is_a_usage_error(session: Session, orders: Path) -> None:
    def listing(batch: pa.RecordBatch) -> object:
        return batch.to_pylist() if batch.num_rows else batch

    with pytest.raises(UsageError, match=r"listing returned a list"):
        session.read_parquet(orders).map_batches(listing).to_table()  # type: ignore[arg-type]


def test_a_missing_file_and_a_missing_column_name_the_nearest(session: Session, orders: Path) -> None:
    with pytest.raises(UsageError, match=r"part-9\.parquet(.|\n)*part-\d\.parquet"):
        session.read_parquet(orders / "part-9.parquet")
    with pytest.raises(UsageError, match="did you mean 'customer'"):
        session.read_parquet(orders, columns=["custmer"])


def test_a_file_that_changed_after_it_was_read_is_refused(session: Session, tmp_path: Path) -> None:
    pq.write_table(CUSTOMERS, tmp_path / "c.parquet")
    dataset = session.read_parquet(tmp_path / "c.parquet")
    pq.write_table(CUSTOMERS.slice(0, 3), tmp_path / "c.parquet")
    with pytest.raises(UsageError, match=r"c\.parquet"):
        dataset.to_table()


def test_a_written_dataset_can_be_read_again(session: Session, orders: Path, tmp_path: Path) -> None:
    session.read_parquet(orders).repartition("customer", 3).write_dataset(tmp_path / "out").close()
    assert rows_of(pq.read_table(tmp_path / "out"), "id") == ORDERS.to_pylist()


def test_a_closed_result_frees_what_the_agents_held(session: Session, cluster: LocalCluster) -> None:
    result = session.from_table(ORDERS).repartition("customer").run()
    assert all(held > 0 for held in held_bytes(cluster))
    result.close()
    session.close()  # waits for what it has still to release
    assert held_bytes(cluster) == [0] * len(cluster.agents)


def test_a_failed_job_leaves_nothing_with_the_agents(session: Session, cluster: LocalCluster) -> None:
    def fail(batch: pa.RecordBatch) -> pa.RecordBatch:
        return batch if batch.num_rows == 0 else 1 / 0  # type: ignore[return-value]

    with pytest.raises(ZeroDivisionError):
        session.from_table(ORDERS).repartition("customer").map_batches(fail).to_table()
    assert held_bytes(cluster) == [0] * len(cluster.agents)
