"""What a coordinator writes down of its job, so that another agent can go on where it was. Pure.

A journal is the state of the job's stages as bytes, and the commits since. Every living agent of the job keeps it, and
no reader starts before all of them have what it was given: whoever of them is left knows which attempts count. What is
rare (a lost agent, a stage that starts or begins anew) is written down as a new state, which takes the old one's place.
"""

from __future__ import annotations

import pickle
from collections.abc import Collection
from dataclasses import dataclass

from sabot.agent.coordination.job_stages import MADE_ANEW, JobStages
from sabot.agent.coordination.running import Running
from sabot.wire.agent_pb2 import JobJournal, RunTaskReply

_TAIL_BYTES_MIN = 64 * 1024

Mark = tuple[int, int]
"""How far a journal goes: the number of its state, and the records since. Ordered."""

NOTHING: Mark = (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """An attempt counts from here on."""

    stage_id: int
    running: Running
    reply: RunTaskReply
    now_s: float

    def packed(self) -> bytes:
        """Bare values, since every task has one; what the task reads is in the state."""
        one = self.running
        stored = one.split if one.moves else None
        running = (one.task, one.agent, one.attempt, one.partitions, one.since_s, one.second, stored)
        return pickle.dumps((self.stage_id, running, self.reply.SerializeToString(), self.now_s))


class WrittenJournal:
    """The coordinator's side, over the stages whose changes it is told of. What nobody asks for is never packed."""

    def __init__(self, stages: JobStages, epoch: int) -> None:
        self._stages = stages
        self._epoch = epoch
        self._number = 0
        self._state = b""
        self._records: list[bytes] = []
        self._record_bytes = 0
        self._stale = True  # the state is to be packed anew
        self._kept: dict[int, Mark] = {}  # by agent: what it has confirmed
        self._asked: tuple[Mark, bool] | None = None  # to be recorded, and whether it was urgent

    @property
    def end(self) -> Mark:
        """Where what has been told so far will have been written."""
        return (self._number + 1, 0) if self._stale else (self._number, len(self._records))

    def commit(self, record: Committed) -> None:
        """The stages have taken the attempt."""
        if self._stale:
            return  # the state will have it
        packed = record.packed()
        self._records.append(packed)
        self._record_bytes += len(packed)
        # As much as the state at most, so that a job's journal stays as small as its state.
        self._stale = self._record_bytes > max(_TAIL_BYTES_MIN, 2 * len(self._state))

    def rewrite(self) -> None:
        """The stages have changed otherwise than by a commit."""
        self._stale = True

    def asks(self, urgent: bool) -> bool | None:
        """Whether there is something to be recorded that was not asked for yet: how urgent it is, or None."""
        if self._asked == (self.end, urgent):
            return None
        self._asked = (self.end, urgent)
        return urgent

    def open_gates(self, agents: Collection[int]) -> None:
        """A stage may start when all agents know which attempts it reads: whoever goes on knows what it was given."""
        for run in self._stages:
            if run.gate is not None and self.is_kept_by_all(agents, run.gate):
                run.gate = None

    def update_for(self, agent: int) -> JobJournal | None:
        """What the agent lacks; None: nothing."""
        if self.is_kept_by(agent, self.end):
            return None
        if self._stale:
            self._state = _packed(self._stages)
            self._number += 1
            self._records.clear()
            self._record_bytes, self._stale = 0, False
        number, first = self._kept.get(agent, NOTHING)
        if number != self._number:
            return self._message(self._state, 0)
        return self._message(b"", first)

    def confirmed(self, agent: int, mark: Mark) -> None:
        """The agent keeps what was written up to `mark`."""
        self._kept[agent] = max(self._kept.get(agent, NOTHING), mark)

    def is_kept_by(self, agent: int, mark: Mark) -> bool:
        return self._kept.get(agent, NOTHING) >= mark

    def is_kept_by_all(self, agents: Collection[int], mark: Mark) -> bool:
        """Whether each of `agents` has confirmed what was written up to `mark`."""
        return all(self.is_kept_by(agent, mark) for agent in agents)

    def _message(self, state: bytes, first: int) -> JobJournal:
        return JobJournal(
            epoch=self._epoch, number=self._number, state=state, first=first, records=self._records[first:]
        )


class KeptJournal:
    """An agent's side: the newest journal that it was given, unopened. Updates may come twice or too late."""

    def __init__(self) -> None:
        self._epoch = 0
        self._number = 0
        self._state = b""
        self._records: list[bytes] = []

    def keep(self, update: JobJournal) -> bool:
        """Whether it is kept; not, where something before it is missing."""
        known, told = (self._epoch, self._number), (update.epoch, update.number)
        if told < known:
            return True  # it was overtaken, and all that it says is in what overtook it
        if update.state and told > known:
            self._epoch, self._number = told
            self._state, self._records = update.state, []
        elif told > known:
            return False
        if update.first > len(self._records):
            return False
        self._records[update.first : update.first + len(update.records)] = update.records
        return True

    def message(self) -> JobJournal:
        """The whole of it."""
        return JobJournal(epoch=self._epoch, number=self._number, state=self._state, records=self._records)


def end_of(update: JobJournal) -> Mark:
    """How far the journal of an agent goes that keeps `update`."""
    return update.number, update.first + len(update.records)


def journal_mark(journal: JobJournal) -> tuple[int, int, int]:
    """Of the journals of several agents that with the highest mark says most: each goes on where a shorter one ends."""
    return journal.epoch, journal.number, len(journal.records)


def restore(stages: JobStages, journal: JobJournal) -> None:
    """Puts new stages of the same plan into the state that is written; nothing is under way in it."""
    if journal.state:
        _unpack(stages, journal.state)
    for packed in journal.records:
        stage_id, (task, agent, attempt, partitions, since_s, second, stored), reply, now_s = pickle.loads(packed)
        running = Running(
            task=task,
            agent=agent,
            attempt=attempt,
            partitions=partitions,
            split=stored or stages[stage_id].splits[task],
            since_s=since_s,
            second=second,
        )
        stages.repeat_commit(stage_id, running, RunTaskReply.FromString(reply), now_s)


def _packed(stages: JobStages) -> bytes:
    """The whole state but for the plan."""
    own = {name: value for name, value in vars(stages).items() if name not in MADE_ANEW}
    return pickle.dumps((own, {run.stage.stage_id: run.parts() for run in stages}))


def _unpack(stages: JobStages, state: bytes) -> None:
    """Into stages of the same plan; nothing is under way in them."""
    own, runs = pickle.loads(state)
    vars(stages).update(own)
    for stage_id, parts in runs.items():
        stages[stage_id].restore(parts)
