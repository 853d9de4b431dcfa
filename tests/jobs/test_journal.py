"""A job's journal: what its coordinator writes, what agents keep of it, and what another coordinator makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sabot.agent.coordination.hot_partitions import HotRule
from sabot.agent.coordination.job_journal import Committed, KeptJournal, WrittenJournal, end_of, restore
from sabot.agent.coordination.job_stages import JobStages
from sabot.agent.coordination.owner_table import EPOCHS_OF_A_COORDINATOR, OwnerTable
from sabot.agent.coordination.range_choice import RangeRule
from sabot.agent.coordination.slow_tasks import SlowRule
from sabot.agent.coordination.takeover import Identity, Inheritance, go_on, inherit, may_coordinate, to_wire_table
from sabot.agent.coordination.task_choice import TaskChoice
from sabot.errors import PeerLost
from sabot.wire.agent_pb2 import Failure, JobJournal, TakeOverJobReply
from sabot.wire.convert import to_agent
from sabot.wire.failure import to_failure

from .job_world import World, group_plan, member

AGENTS = [member(index) for index in range(3)]
LATER = EPOCHS_OF_A_COORDINATOR


class Written:
    """Stages of one job, of six tasks unless there are more row groups, and the journal that is written of them."""

    def __init__(self, *row_groups: int, epoch: int = 0, partitions: int = 4) -> None:
        self.plan = group_plan(*row_groups or [1] * 6)
        self.num_partitions = {0: partitions}
        self.stages = new_stages(self)
        self.journal = WrittenJournal(self.stages, epoch)
        self.choice = TaskChoice(self.stages, SlowRule())
        self.world = World(self.plan, self.num_partitions)
        self.stages.start_what_may(split_bytes=1, slots=3, ranges_wanted=1)

    def commit(self, count: int = 1) -> None:
        """So many more tasks, as the coordinator commits them."""
        for turn in range(count):
            command = self.choice.take(turn % len(AGENTS))
            command = command or next(found for agent in range(3) if (found := self.choice.take(agent)) is not None)
            run = self.stages[command.stage_id]
            running = run.running(command.task, command.attempt)
            assert running is not None
            reply = self.world.reply(command)
            self.stages.commit(run, running, reply)
            self.journal.commit(Committed(stage_id=command.stage_id, running=running, reply=reply, now_s=1.5))

    def update(self, agent: int = 0) -> JobJournal:
        update = self.journal.update_for(agent)
        assert update is not None
        return update

    def confirm(self, agent: int = 0) -> JobJournal:
        """The agent is sent what it lacks, and keeps it."""
        update = self.update(agent)
        self.journal.confirmed(agent, end_of(update))
        return update


def new_stages(written: Written) -> JobStages:
    return JobStages(
        written.plan, AGENTS, num_partitions=written.num_partitions, hot=HotRule(), ranges=RangeRule(rows_min=1)
    )


def restored(written: Written, journal: JobJournal) -> JobStages:
    stages = new_stages(written)
    restore(stages, journal)
    return stages


def facts(stages: JobStages) -> list[Any]:
    """What a coordinator goes by."""
    stage = stages[0]
    return [
        [run.progress() for run in stages],
        dict(stage.todo),
        [stage.attempts_for(partition) for partition in range(4)],
        stages.receipts.rows_sent(0),
        stages.receipts.shuffles(),
        stages.table,
    ]


# What is written


def test_first_update_is_the_state_and_those_after_it_the_commits_since() -> None:
    written = Written()
    assert written.confirm().state
    assert written.journal.update_for(0) is None
    written.commit(2)
    update = written.confirm()
    assert not update.state and update.first == 0 and len(update.records) == 2
    written.commit()
    update = written.confirm()
    assert (update.first, len(update.records)) == (2, 1)


def test_agent_that_has_confirmed_nothing_gets_the_state_and_all_since() -> None:
    written = Written()
    written.confirm(0)
    written.commit(3)
    update = written.update(1)
    assert update.state and len(update.records) == 3


def test_what_was_confirmed_twice_or_too_late_does_not_go_back() -> None:
    written = Written()
    early = end_of(written.confirm())
    written.commit(2)
    written.confirm()
    written.journal.confirmed(0, early)
    assert written.journal.is_kept_by(0, written.journal.end)


def test_journal_that_is_rewritten_is_kept_by_nobody_until_it_is_sent_again() -> None:
    written = Written()
    for agent in range(3):
        written.confirm(agent)
    assert written.journal.is_kept_by_all(range(3), written.journal.end)
    written.journal.rewrite()
    assert not any(written.journal.is_kept_by(agent, written.journal.end) for agent in range(3))
    assert written.confirm(2).state
    assert written.journal.is_kept_by(2, written.journal.end) and not written.journal.is_kept_by(1, written.journal.end)


def test_commit_to_a_journal_that_is_stale_is_in_its_state() -> None:
    written = Written()
    written.commit(4)
    update = written.update()
    assert not update.records
    assert facts(restored(written, update)) == facts(written.stages)


def test_commits_that_outgrow_the_state_become_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sabot.agent.coordination.job_journal._TAIL_BYTES_MIN", 1)
    written = Written(*[1] * 60, partitions=500)
    states, most = 0, 0
    for _ in range(60):
        written.commit()
        update = written.confirm()
        states += bool(update.state)
        most = max(most, sum(map(len, written.update(1).records)) / len(written.update(1).state))
    assert 1 < states < 20
    assert 1 < most < 2.5


def test_stage_starts_when_every_living_agent_has_the_journal_and_not_before() -> None:
    written = Written()
    run = written.stages[1]
    run.gate = written.journal.end
    written.confirm(0)
    written.confirm(2)
    written.journal.open_gates([0, 1, 2])
    assert run.gate is not None
    written.journal.open_gates([0, 2])  # the third is given up
    assert run.gate is None


def test_same_is_asked_for_once_and_again_when_somebody_waits_for_it() -> None:
    journal = Written().journal
    assert journal.asks(False) is False
    assert journal.asks(False) is None
    assert journal.asks(True) is True
    assert journal.asks(True) is None


# What is kept


def test_update_that_comes_twice_is_kept_once() -> None:
    written, kept = Written(), KeptJournal()
    assert kept.keep(written.confirm())
    written.commit(2)
    update = written.confirm()
    assert kept.keep(update) and kept.keep(update)
    assert len(kept.message().records) == 2


def test_update_after_one_that_is_missing_is_refused_and_changes_nothing() -> None:
    written, kept = Written(), KeptJournal()
    kept.keep(written.confirm())
    written.commit()
    written.confirm()  # lost
    written.commit()
    before = kept.message()
    assert not kept.keep(written.update())
    written.journal.rewrite()
    written.journal.confirmed(0, end_of(written.update()))  # lost, too
    written.commit()
    assert not kept.keep(written.update())
    assert kept.message() == before


def test_update_that_was_overtaken_is_taken_and_changes_nothing() -> None:
    written, kept = Written(), KeptJournal()
    old = written.update()
    written.journal.rewrite()
    written.commit()
    kept.keep(written.update())
    before = kept.message()
    assert kept.keep(old)
    assert kept.message() == before


def test_earlier_coordinator_changes_nothing_in_a_later_ones_journal() -> None:
    old, new, kept = Written(), Written(epoch=LATER), KeptJournal()
    for _ in range(5):
        old.journal.rewrite()
        old.confirm()
    kept.keep(new.confirm())
    assert kept.message().epoch == LATER
    old.commit(3)
    kept.keep(old.update())
    assert kept.message().epoch == LATER and not kept.message().records


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["commit", "rewrite", "arrive", "lost", "late"]), min_size=1, max_size=40))
def test_what_an_agent_confirms_is_what_the_coordinator_knew_whatever_is_lost_late_or_doubled(steps: list[str]) -> None:
    written, kept = Written(*[1] * 40), KeptJournal()
    known: dict[tuple[int, int], list[Any]] = {}
    late: list[JobJournal] = []
    for step in steps:
        if step == "commit":
            written.commit()
        elif step == "rewrite":
            written.journal.rewrite()
        elif (update := written.journal.update_for(0)) is not None:
            known[end_of(update)] = facts(written.stages)
            late.append(update)
            if step == "arrive":
                assert kept.keep(update)
                written.journal.confirmed(0, end_of(update))
        if step == "late" and late:
            kept.keep(late[len(late) // 2])
    message = kept.message()
    if message.number:
        assert facts(restored(written, message)) == known[message.number, len(message.records)]


# What another coordinator makes of it


def holds(written: Written, journal: JobJournal, table: OwnerTable | None = None, agents: int = 3) -> TakeOverJobReply:
    table = table or OwnerTable.first(agents=agents, partitions=4)
    named = [to_agent(agent) for agent in AGENTS[:agents]]
    return TakeOverJobReply(held=True, agents=named, num_partitions=[4], table=to_wire_table(table), journal=journal)


def by_identity(*replies: TakeOverJobReply | None) -> dict[Identity, TakeOverJobReply]:
    return {agent.identity: reply for agent, reply in zip(AGENTS, replies, strict=True) if reply is not None}


def taken(written: Written, replies: Sequence[TakeOverJobReply | None]) -> Inheritance:
    inherited = inherit(by_identity(*replies), {})
    assert inherited is not None
    return inherited


def journals(written: Written, *commits: int) -> list[JobJournal]:
    """What an agent keeps after so many commits more each time."""
    kept, found = KeptJournal(), []
    for count in commits:
        written.commit(count)
        kept.keep(written.confirm())
        found.append(JobJournal.FromString(kept.message().SerializeToString()))
    return found


def test_longest_journal_of_those_that_are_left_says_where_the_job_stands() -> None:
    written = Written()
    short, middle, long = journals(written, 0, 2, 2)
    inherited = taken(written, [holds(written, middle), holds(written, long), holds(written, short)])
    assert inherited.journal == long
    assert facts(restored(written, inherited.journal)) == facts(written.stages)


def test_journal_of_an_agent_that_was_given_up_is_not_taken() -> None:
    written = Written()
    short, long = journals(written, 1, 3)
    table = OwnerTable.first(agents=3, partitions=4).without(2)
    inherited = taken(written, [holds(written, short, table), None, holds(written, long)])
    assert inherited.journal == short
    assert inherited.table == table


def test_newest_owner_table_counts_whoever_knows_it() -> None:
    written = Written()
    (journal,) = journals(written, 1)
    table = OwnerTable.first(agents=3, partitions=4).without(1)
    inherited = taken(written, [holds(written, journal), None, holds(written, journal, table)])
    assert inherited.table == table
    assert not inherited.absent


def test_who_does_not_answer_or_has_ended_the_job_is_absent_with_the_reason() -> None:
    written = Written()
    (journal,) = journals(written, 1)
    lost: dict[Identity, Failure] = {AGENTS[1].identity: to_failure(PeerLost("no answer"))}
    replies = by_identity(holds(written, journal), None, TakeOverJobReply(ended=True))
    inherited = inherit(replies, lost)
    assert inherited is not None
    assert inherited.absent[1] == lost[AGENTS[1].identity]
    assert "ended the job by itself" in inherited.absent[2].message


def test_agent_that_means_others_by_their_numbers_is_absent_and_its_journal_is_not_taken() -> None:
    written = Written()
    short, long = journals(written, 1, 2)
    other = holds(written, long, agents=2)
    other.agents[1].incarnation = 99
    inherited = taken(written, [holds(written, short), other, holds(written, short)])
    assert inherited.journal == short
    assert set(inherited.absent) == {1}


def test_job_that_nobody_holds_begins_anew_with_whoever_has_not_ended_it() -> None:
    replies = by_identity(TakeOverJobReply(), TakeOverJobReply(ended=True), TakeOverJobReply())
    assert inherit(replies, {}) is None
    assert [may_coordinate(agent, replies, None) for agent in AGENTS] == [True, False, True]


def test_agent_that_was_given_up_or_is_unknown_cannot_coordinate() -> None:
    written = Written()
    (journal,) = journals(written, 1)
    table = OwnerTable.first(agents=3, partitions=4).without(1)
    replies = by_identity(holds(written, journal, table), holds(written, journal), holds(written, journal, table))
    inherited = inherit(replies, {})
    assert [may_coordinate(agent, replies, inherited) for agent in AGENTS] == [True, False, True]
    assert not may_coordinate(member(7), replies, inherited)


def test_later_coordinator_does_again_what_is_not_written_and_numbers_attempts_from_its_epoch() -> None:
    written = Written()
    (journal,) = journals(written, 4)
    written.commit(1)  # which nobody was told
    inherited = taken(written, [holds(written, journal)] * 3)
    later = Written(epoch=LATER)
    stages = new_stages(later)
    go_on(stages, WrittenJournal(stages, LATER), LATER, inherited)
    assert sorted(stages[0].todo) == [4, 5]
    assert stages.table.epoch == LATER
    for run in stages:
        assert run.gate is not None
        run.gate = None
    command = TaskChoice(stages, SlowRule()).take(0)
    assert command is not None and command.attempt >= LATER


def test_later_coordinator_sends_again_what_lay_with_those_that_are_absent() -> None:
    written = Written()
    (journal,) = journals(written, 6)
    inherited = taken(written, [holds(written, journal), holds(written, journal), None])
    stages = new_stages(written)
    owned = inherited.table.owned_by(2)
    go_on(stages, WrittenJournal(stages, LATER), LATER, inherited)
    assert stages.table.lost == {2} and owned
    assert stages[0].todo == dict.fromkeys(range(6), owned)


def test_second_takeover_goes_on_from_what_the_first_has_written() -> None:
    written = Written()
    (journal,) = journals(written, 4)
    stages = new_stages(written)
    second = WrittenJournal(stages, LATER)
    go_on(stages, second, LATER, taken(written, [holds(written, journal)] * 3))
    kept = KeptJournal()
    kept.keep(journal)
    update = second.update_for(0)
    assert update is not None and kept.keep(update)
    third = new_stages(written)
    go_on(third, WrittenJournal(third, 2 * LATER), 2 * LATER, taken(written, [holds(written, kept.message())] * 3))
    assert sorted(third[0].todo) == [4, 5]
    assert third[0].attempts_for(0)[:4] == stages[0].attempts_for(0)[:4]
