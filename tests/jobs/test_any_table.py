"""Operations on tables made by hypothesis, over agents whose pieces are so small that all of them cross the wire."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings

from sabot import LocalCluster
from tests.dataflow.comparing import assert_same_rows
from tests.dataflow.join_oracle import join_options, pyarrow_join
from tests.dataflow.tables import join_sides

TINY = {
    "SABOT_SLOTS_MORSEL_BYTES": "1024",
    "SABOT_SHUFFLE_SCATTER_BYTES_MAX": "65536",
    "SABOT_SHUFFLE_CHUNK_BYTES_MAX": "65536",
    "SABOT_JOBS_SPLIT_BYTES": "1024",
}
EXAMPLES = settings(max_examples=20)


@pytest.fixture(scope="module", params=[1, 2, 4], ids=lambda count: f"{count} agents")
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in TINY.items():
            patch.setenv(name, value)
        with LocalCluster(agents=request.param, slots=1) as running:
            yield running


@pytest.mark.parametrize("broadcast_bytes_max", [0, 1 << 20], ids=["shuffled", "broadcast"])
def test_any_two_tables_join_as_in_pyarrow(cluster: LocalCluster, broadcast_bytes_max: int) -> None:
    with cluster.connect(progress=False, broadcast_bytes_max=broadcast_bytes_max) as session:

        @EXAMPLES
        @given(sides=join_sides(), options=join_options())
        def joined(sides: tuple[pa.Table, pa.Table], options: dict[str, Any]) -> None:
            left, right = sides
            answer = session.from_table(left).join(session.from_table(right), **options)
            assert_same_rows(answer.to_table(), pyarrow_join(left, right, **options))

        joined()
