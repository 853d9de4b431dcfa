"""Receipts count what is lost and doubled, and say so."""

from __future__ import annotations

import dataclasses

import pytest

from sabot.client.receipt import Receipt, ShuffleReceipt, format_bytes, receipt_from, stats_from
from sabot.wire import agent_pb2


def shuffle(rows_in: int, rows_out: int, *, partial: bool = False, sum_out: int = 7) -> ShuffleReceipt:
    return ShuffleReceipt(
        shuffle_id="j/0",
        stage_id=0,
        num_partitions=4,
        rows_in=rows_in,
        rows_out=rows_out,
        sum_in=7,
        sum_out=sum_out,
        wire_bytes=2048,
        local_bytes=100,
        partial=partial,
    )


def receipt(*shuffles: ShuffleReceipt) -> Receipt:
    return Receipt(job_id="j", shuffles=shuffles, result_rows=3)


def test_equal_counts_and_sums_are_exact() -> None:
    assert receipt(shuffle(10, 10), shuffle(4, 4)).exact


def test_fewer_rows_out_than_in_are_lost() -> None:
    r = receipt(shuffle(10, 7), shuffle(4, 4))
    assert (r.lost, r.doubled, r.exact) == (3, 0, False)


def test_more_rows_out_than_in_are_doubled() -> None:
    r = receipt(shuffle(10, 12), shuffle(4, 4))
    assert (r.lost, r.doubled, r.exact) == (0, 2, False)


def test_a_loss_in_one_shuffle_does_not_hide_a_doubling_in_another() -> None:
    r = receipt(shuffle(10, 8), shuffle(4, 6))
    assert (r.rows_in, r.rows_out, r.lost, r.doubled) == (14, 14, 2, 2)


def test_a_reader_that_stopped_early_lost_nothing() -> None:
    r = receipt(shuffle(10, 2, partial=True, sum_out=1))
    assert (r.lost, r.exact) == (0, True)


def test_equal_counts_with_other_contents_are_not_exact() -> None:
    r = receipt(shuffle(10, 10, sum_out=8))
    assert not r.exact
    assert "contents differ" in str(r)


def test_text_names_every_total_and_every_shuffle() -> None:
    text = str(receipt(shuffle(1_000_000, 1_000_000), shuffle(10, 2, partial=True)))
    assert "rows in 1,000,010, rows out 1,000,002, lost 0, doubled 0; 4.0 KiB over the wire, 200 B local" in text
    assert text.count("shuffle of stage 0, 4 partitions") == 2
    assert "read in part" in text


def test_receipts_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        receipt().result_rows = 4  # type: ignore[misc]


def test_what_the_coordinator_reports_is_kept_field_by_field() -> None:
    message = agent_pb2.ShuffleReceipt(
        shuffle_id="j/0",
        stage_id=0,
        num_partitions=4,
        rows_in=10,
        rows_out=9,
        sum_in=7,
        sum_out=2**64 - 1,
        wire_bytes=2048,
        local_bytes=100,
        partial=True,
    )
    known = {field.name: value for value, field in enumerate(agent_pb2.StageProgress.DESCRIPTOR.fields, 3)}
    stage = agent_pb2.StageProgress(**known | {"label": "sort"})
    finished = agent_pb2.JobFinished(
        shuffles=[message],
        stages=[stage],
        partitions=[agent_pb2.ResultPartition(rows=2), agent_pb2.ResultPartition(rows=5)],
        elapsed_s=1.5,
        agents_lost=["b"],
    )
    made = receipt_from("j", finished)
    assert made == Receipt(job_id="j", shuffles=(shuffle(10, 9, partial=True, sum_out=2**64 - 1),), result_rows=7)
    finished.stages.append(agent_pb2.StageProgress(tasks_redone=2))
    stats = stats_from(finished)
    assert (stats.elapsed_s, stats.agents_lost) == (1.5, ("b",))
    assert stats.tasks_redone == stage.tasks_redone + 2
    assert dataclasses.asdict(stats.stages[0]) == known | {"label": "sort"}


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")]
)
def test_bytes_are_written_in_binary_units(count: int, text: str) -> None:
    assert format_bytes(count) == text
