"""The life of one job as a state machine: events in, commands out, without I/O, clock or threads.

It chooses the number of partitions, starts a stage when all its inputs are done, places tasks, and folds receipts. An
agent that is lost is given up: its partitions get other owners under a new epoch, and what it held and is still needed
is sent again; one that leaves sends it on. What counts is written down with all agents before anybody reads it, so that
another coordinator can go on where this one is lost. The job ends once, with an answer or a failure, and with one
EndJob for every agent that it ever asked to prepare; or without a word where it was taken over. Whoever drives it
carries out the commands in order and reports what came of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination import task_failures as tf
from sabot.agent.coordination.departures import Departures
from sabot.agent.coordination.hot_partitions import HotRule
from sabot.agent.coordination.job_answer import files_of, finished
from sabot.agent.coordination.job_journal import Committed, WrittenJournal
from sabot.agent.coordination.job_stages import JobStages
from sabot.agent.coordination.newcomers import Newcomers
from sabot.agent.coordination.partition_counts import choose_partitions
from sabot.agent.coordination.range_choice import RangeRule
from sabot.agent.coordination.running import Running
from sabot.agent.coordination.slow_tasks import SlowRule
from sabot.agent.coordination.stage_progress import progress_of
from sabot.agent.coordination.stage_run import StageRun
from sabot.agent.coordination.takeover import Inheritance, go_on
from sabot.agent.coordination.task_choice import TaskChoice
from sabot.agent.coordination.task_dealer import TaskDealer
from sabot.dataflow.stage import JobPlan, WriteOutput
from sabot.errors import JobCancelled, PeerLost
from sabot.wire.agent_pb2 import Failure, JobJournal, StageProgress
from sabot.wire.failure import to_failure
from sabot.wire.member import Member


class _Phase(Enum):
    NEW = "new"
    PREPARING = "preparing"
    RUNNING = "running"
    PUBLISHING = "publishing"
    ENDED = "ended"


class Coordinator:
    """Drives `plan` over `agents`; PeerLost where there are none. A task that may succeed elsewhere or later is tried
    `attempts_max` times. `hot` says which partitions several tasks read, `slow` which tasks get a second attempt (left
    out, none), `ranges` how finely sorts are cut. A later coordinator of the job begins with `epoch`, and goes on from
    what is `inherited` where anything is.
    """

    def __init__(
        self,
        *,
        plan: JobPlan,
        agents: Sequence[Member],
        partitions_per_slot: int,
        split_bytes: int,
        attempts_max: int = 4,
        hot: HotRule | None = None,
        slow: SlowRule | None = None,
        epoch: int = 0,
        inherited: Inheritance | None = None,
        ranges: RangeRule | None = None,
    ) -> None:
        if not agents:
            raise PeerLost("no agent takes work now: all are draining or gone; see sabot-agent agents")
        self.plan = plan
        self._agents = list(agents)
        slots = sum(max(1, agent.slots) for agent in agents)
        self._split_bytes = split_bytes
        self._partitions_per_slot = partitions_per_slot
        partitions = max(1, partitions_per_slot * slots)
        self.epoch = epoch
        self.num_partitions = (
            choose_partitions(plan, default=partitions, agents=len(agents), split_bytes=split_bytes, slots=slots)
            if inherited is None
            else inherited.num_partitions
        )
        self._stages = JobStages(
            plan,
            self._agents,
            num_partitions=self.num_partitions,
            hot=hot or HotRule(),
            ranges=ranges or RangeRule(),
        )
        self._journal = WrittenJournal(self._stages, epoch)
        self._inherited = inherited
        self._newcomers = Newcomers(self._stages)
        self._departures = Departures(plan, self._agents, self._stages, self._journal)
        self._output = plan.stages[-1].output
        self._attempts_max = attempts_max
        self._dealer = TaskDealer(TaskChoice(self._stages, slow or SlowRule()), agents)
        self._phase = _Phase.NEW
        self._awaited: set[int] = set()  # agents that have not confirmed Prepare, or the table of the epoch
        self._folder_awaited = False
        self._checking = False
        self._last_check = False
        self._asked_to_publish = False
        self._asked: list[int] = []  # agents that must get EndJob

    @property
    def ended(self) -> bool:
        return self._phase is _Phase.ENDED

    @property
    def living(self) -> tuple[int, ...]:
        """The agents that the job has not given up."""
        return self._stages.table.living

    def progress(self) -> list[StageProgress]:
        """Where each stage stands; made anew at each call."""
        return progress_of(self._stages)

    def handle(self, event: ev.Event) -> list[ev.Command]:
        """Take one event; gives what is to be done, in order. After the end there is nothing to be done."""
        if self.ended:
            return []
        try:
            return [*self._on(event), *self._write_down()]
        except Exception as error:  # a receipt that does not add up, or a bug: either way the job ends, and says so
            return self._drop(to_failure(error)) if tf.is_lost_upload(error) else self._fail(to_failure(error))

    def journal_update(self, agent: int) -> JobJournal | None:
        """What the agent's journal of the job lacks now; None: nothing."""
        return self._journal.update_for(agent)

    def _on(self, event: ev.Event) -> list[ev.Command]:
        failure = getattr(event, "failure", None)
        if isinstance(event, ev.TakenOver) or (failure is not None and tf.is_taken_over(failure)):
            return self._drop()
        match event:
            case ev.TaskSucceeded() | ev.TaskFailed():
                commands = self._on_task_ended(event)
            case ev.AgentLost(agent=agent, failure=failure):
                commands = self._on_agent_lost(agent, failure)
            case ev.AgentJoined(member=newcomer):
                commands = self._on_agent_joined(newcomer)
            case ev.Prepared(agent=agent) | ev.PrepareFailed(agent=agent) if agent in self._newcomers:
                prepared = isinstance(event, ev.Prepared)
                commands = self._on_newcomer_prepared(agent) if prepared else self._turn_away(agent)
            case ev.AgentsChecked():
                commands = self._on_agents_checked()
            case ev.TimePassed(elapsed_s=elapsed_s):
                self._stages.now_s = max(self._stages.now_s, elapsed_s)
                idle = self._phase is _Phase.RUNNING and not self._awaited
                commands = self._dealer.deal_second_attempts(self.living) if idle else []
            case ev.FolderFailed() | ev.DriverFailed():
                commands = self._fail(event.failure)
            case ev.Cancelled() if self._phase is _Phase.PUBLISHING:
                commands = []  # too late: the files are being moved into place, and are whole a moment later
            case ev.Cancelled(reason=reason):
                error = JobCancelled(f"job {self.plan.job_id} was cancelled: {reason}", job=self.plan.job_id)
                commands = self._fail(to_failure(error))
            case _:
                commands = self._on_answer(event)
        return commands

    def _on_answer(self, event: ev.Event) -> list[ev.Command]:
        """A step towards running, or of ending, is done or has failed."""
        match event:
            case ev.JobStarted():
                if self.epoch:
                    self._asked = list(self.living)  # by an earlier coordinator
                    go_on(self._stages, self._journal, self.epoch, self._inherited)
                commands = self._prepare()
            case ev.Prepared(agent=agent) if self._phase is _Phase.PREPARING:
                self._awaited.discard(agent)
                commands = self._start_when_prepared()
            case ev.AgentDraining(agent=agent, stays=stays):
                self._departures.add(agent, stays=stays)
                commands = self._advance()
            case ev.FolderOpened():
                self._folder_awaited = False
                commands = self._start_when_prepared()
            case ev.Reowned(agent=agent, epoch=epoch) if epoch == self._stages.table.epoch:
                self._awaited.discard(agent)
                commands = self._advance()
            case ev.Recorded(agent=agent, mark=mark):
                self._journal.confirmed(agent, mark)
                commands = self._advance()
            case ev.PublishGranted() if self._asked_to_publish and self._phase is _Phase.RUNNING:
                self._phase = _Phase.PUBLISHING
                commands = [ev.PublishFolder(files=files_of(self._stages.last))]
            case ev.FolderPublished():
                commands = self._finish()
            case ev.RecordFailed() | ev.PrepareFailed() | ev.ReownFailed():
                commands = self._on_refusal(event)
            case _:
                commands = []  # an answer that was overtaken
        return commands

    def _on_refusal(self, event: ev.RecordFailed | ev.PrepareFailed | ev.ReownFailed) -> list[ev.Command]:
        """The agent did not do what every agent of the job must do, and says why."""
        agent, failure = event.agent, event.failure
        if isinstance(event, ev.ReownFailed) and event.epoch != self._stages.table.epoch:
            return []
        gone = tf.is_lost(failure) if isinstance(event, ev.PrepareFailed) else tf.is_retried(failure)
        if gone or tf.is_ended(failure):  # one that knows no such job was started anew
            return self._on_agent_lost(agent, failure)
        return [] if agent in self._stages.table.lost else self._fail(failure)

    def _prepare(self) -> list[ev.Command]:
        self._phase = _Phase.PREPARING
        self._asked = list(self.living)
        self._awaited = set(self._asked)
        commands: list[ev.Command] = [ev.Prepare(agent=agent, table=self._stages.table) for agent in self._asked]
        if isinstance(self._output, WriteOutput):
            self._folder_awaited = True
            commands.append(ev.OpenFolder(output=self._output, schema=self.plan.stages[-1].schema))
        return commands

    def _on_agent_joined(self, newcomer: Member) -> list[ev.Command]:
        self._agents.append(newcomer)
        self._dealer.add(newcomer)
        prepare = self._newcomers.prepare(newcomer)
        if self._phase not in {_Phase.PREPARING, _Phase.RUNNING}:
            return []
        self._asked.append(prepare.agent)
        return [prepare]

    def _on_newcomer_prepared(self, agent: int) -> list[ev.Command]:
        reown = self._newcomers.admit(agent)
        self._journal.rewrite()  # it is one of those who keep it, and others are told of it
        if reown is None or self._phase is _Phase.PREPARING:  # then it is told with all the others
            return self._advance()
        self._awaited.add(agent)
        return [reown]

    def _turn_away(self, agent: int) -> list[ev.Command]:
        self._newcomers.turn_away(agent)
        return self._dismiss(agent)

    def _dismiss(self, agent: int) -> list[ev.Command]:
        """It has no part in the job any more, which goes on."""
        if agent not in self._asked:
            return []
        self._asked.remove(agent)
        return [ev.EndJob(agent=agent, keep_result=False)]

    def _start_when_prepared(self) -> list[ev.Command]:
        if self._phase is not _Phase.PREPARING or self._awaited or self._folder_awaited:
            return []
        self._phase = _Phase.RUNNING
        return self._reown() if self._stages.table.epoch else self._advance()

    def _reown(self) -> list[ev.Command]:
        """Tell those that are left who owns what; nothing new is started before all of them know."""
        self._awaited = set(self._stages.table.living)
        return [ev.Reown(agent=agent, table=self._stages.table) for agent in self._stages.table.living]

    def _on_agent_lost(self, agent: int, failure: Failure) -> list[ev.Command]:
        """Give the agent up for ever; what it held and is still needed is done again by those that are left."""
        if agent in self._newcomers:
            return self._turn_away(agent)
        if agent not in self._stages.table.living:
            return []
        if len(self._stages.table.living) == 1 or self._phase is _Phase.NEW:
            return self._fail(tf.as_lost(failure, self._agents[agent]))
        self._journal.rewrite()
        self._last_check = False  # what is made again is looked at again
        commands = self._dealer.cancel(self._stages.give_up(agent))
        if self._phase is not _Phase.PUBLISHING:  # then all is done, and what was written lies in the folder
            commands += self._dealer.cancel(self._stages.find_work())
        commands += self._dismiss(agent)
        if self._phase is _Phase.PREPARING:
            self._awaited.discard(agent)
            return commands + self._start_when_prepared()
        return commands + (self._reown() if self._phase is _Phase.RUNNING else [])

    def _on_task_ended(self, event: ev.TaskSucceeded | ev.TaskFailed) -> list[ev.Command]:
        run = self._stages[event.stage_id]
        running = run.running(event.task, event.attempt)
        if running is None:
            return []
        if event.sent_epoch is not None and event.sent_epoch < self._stages.table.epoch:
            # Whatever came of it, some of its rows may have gone to an agent that is lost.
            self._dealer.ended(running.agent)
            run.drop(running)
            self._stages.queue(run)
            return self._hand_out()
        if isinstance(event, ev.TaskSucceeded):
            return self._on_task_succeeded(event, run, running)
        return self._on_task_failed(event, run, running)

    def _on_task_succeeded(self, event: ev.TaskSucceeded, run: StageRun, running: Running) -> list[ev.Command]:
        self._dealer.ended(event.agent)
        unlike = run.is_unlike(running, event.reply)
        ended = self._stages.commit(run, running, event.reply)
        if unlike:
            self._journal.rewrite()
        else:
            now_s = self._stages.now_s
            self._journal.commit(Committed(stage_id=event.stage_id, running=running, reply=event.reply, now_s=now_s))
        for reader in self._stages.readers_of(run):
            reader.gate = self._journal.end
        return self._dealer.cancel(ended) + self._advance()

    def _on_task_failed(self, event: ev.TaskFailed, run: StageRun, running: Running) -> list[ev.Command]:
        """Try again what may be the cluster's fault, once it is known who is lost; else the job fails."""
        if tf.is_ended(event.failure):
            return self._on_agent_lost(event.agent, event.failure)
        failure = tf.named(event.failure, self._agents)
        if running.moves:
            self._dealer.ended(event.agent)
            run.fail_move(running, again=tf.is_retried(failure) and not tf.is_wrong(failure))
            ended = self._stages.find_work()
            return self._dealer.cancel(ended) + self._check_agents() + self._hand_out()
        wrong_again = tf.is_wrong(failure) and run.note_integrity_failure(event.task) > 1
        if wrong_again or not tf.is_retried(failure):
            return self._on_final_failure(run, running, failure)
        self._dealer.ended(event.agent)
        run.fail(running, failure)
        ended = self._stages.spoil_input(run, running, tf.shuffle_of(failure))
        self._journal.rewrite()
        return self._dealer.cancel(ended) + self._check_agents() + self._hand_out()

    def _on_final_failure(self, run: StageRun, running: Running, failure: Failure) -> list[ev.Command]:
        """It ends the job, unless a second attempt failed, of which there was no need, and not by the user's doing."""
        if not (running.second and tf.is_ours(failure) and run.drop(running)):
            return self._fail(failure)
        self._dealer.ended(running.agent)
        return self._hand_out()

    def _check_agents(self, *, last: bool = False) -> list[ev.Command]:
        """One check at a time; `last`: nothing but its outcome keeps the job from its end."""
        if self._checking:
            return []
        self._checking, self._last_check = True, last
        return [ev.CheckAgents(table=self._stages.table, last=last)]

    def _on_agents_checked(self) -> list[ev.Command]:
        """All who were lost have been given up: what failed without one of them may have failed by itself."""
        self._checking = False
        if self._last_check and self._stages.last.done:
            return self._finish()
        for run in self._stages:
            for failures in run.held_failures():
                if len(failures) >= self._attempts_max:
                    return self._fail(tf.with_history(failures))
            run.release(forgive=False)
            self._stages.queue(run)
        return self._advance()

    def _advance(self) -> list[ev.Command]:
        """Start what may start, hand out what may run, and end the job when nothing is left."""
        if self._phase is not _Phase.RUNNING:
            return []
        slots = self._dealer.slots_of(self.living)
        wanted = self._partitions_per_slot * slots
        if self._stages.start_what_may(split_bytes=self._split_bytes, slots=slots, ranges_wanted=wanted):
            self._journal.rewrite()
        if not self._stages.last.done:
            return self._hand_out()
        if not isinstance(self._output, WriteOutput):
            # The answer lies on the agents: one that has died with a part of it may not have been missed yet.
            return self._check_agents(last=True) if len(self.living) > 1 else self._finish()
        if self._asked_to_publish or not self._journal.is_kept_by_all(self.living, self._journal.end):
            return []
        self._asked_to_publish = True
        return [ev.AskToPublish()]

    def _write_down(self) -> list[ev.Command]:
        """Have recorded what is not yet; at once where somebody waits for it."""
        if self._phase is not _Phase.RUNNING:
            return []
        publishes = self._stages.last.done and isinstance(self._output, WriteOutput)
        waited_for = publishes or self._stages.wait_for_journal or self._departures.wait_for_journal
        urgent = self._journal.asks(waited_for)
        return [] if urgent is None else [ev.Record(urgent=urgent)]

    def _hand_out(self) -> list[ev.Command]:
        self._journal.open_gates(self.living)
        if self._awaited:
            return []
        if self._departures.are_due:
            return self._reown() if self._departures.hand_over() else []
        farewells = [word for agent in self._departures.let_go() for word in self._dismiss(agent)]
        return [*farewells, *self._dealer.deal(self.living)]

    def _finish(self) -> list[ev.Command]:
        self._phase = _Phase.ENDED
        keep_result = not isinstance(self._output, WriteOutput)
        answer = finished(self._stages, self._agents, joined=self._newcomers.admitted, keep_result=keep_result)
        farewells = [ev.EndJob(agent=agent, keep_result=keep_result) for agent in self._asked]
        return [*farewells, ev.Finish(finished=answer)]

    def _drop(self, failure: Failure | None = None) -> list[ev.Command]:
        self._phase = _Phase.ENDED
        return [ev.Drop(failure=failure)]

    def _fail(self, failure: Failure) -> list[ev.Command]:
        self._phase = _Phase.ENDED
        commands: list[ev.Command] = [ev.EndJob(agent=agent, keep_result=False) for agent in self._asked]
        if isinstance(self._output, WriteOutput):
            commands.append(ev.DiscardFolder())
        return [*commands, ev.Fail(failure=failure)]
