"""Carries out the commands of a real Coordinator, as sabot.agent.jobs.job_run does, where the job was accepted."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from sabot.agent.coordination import job_events as ev
from sabot.agent.coordination.coordinator import Coordinator
from sabot.agent.coordination.job_journal import end_of
from sabot.agent.coordination.owner_table import EPOCHS_OF_A_COORDINATOR, OwnerTable
from sabot.agent.coordination.range_choice import RangeRule
from sabot.agent.coordination.running import sent_epoch_of
from sabot.agent.coordination.takeover import Inheritance
from sabot.agent.jobs.job_recorder import GATHER_S
from sabot.dataflow.stage import JobPlan
from sabot.errors import JobCancelled, JobTakenOver, PeerLost, PeerRefused, SabotError
from sabot.wire.agent_pb2 import JobFinished, JobJournal, RunTaskReply
from sabot.wire.failure import to_failure
from sabot.wire.member import Member

from .clock import Timer
from .folder import Folder
from .gathering import Gathering, Roll
from .held_jobs import TAKEOVER_S
from .network import Call, OwnCall
from .sketches import sketch
from .watch import PEER_DEADLINE_S, Ping, Watch

if TYPE_CHECKING:
    from .agent import Agent
    from .client import Client

PREPARE_DEADLINE_S = 60.0
TELL_TIME_EVERY_S = 0.5


class Driver:
    """One job from its submission to its end."""

    def __init__(self, agent: Agent, plan: JobPlan, client: Client, *, members: list[Member], epoch: int = 0) -> None:
        self.agent, self.plan, self._client, self.epoch = agent, plan, client, epoch
        self.world = agent.world
        self.agents: list[Member] = []
        self._leavers: list[Member] = []
        self.coordinator: Coordinator | None = None
        self._calls: list[Call | OwnCall | Ping] = []
        self._watches: list[Watch] = []
        self._attempts: dict[tuple[int, int, int], Call | OwnCall] = {}
        self._began_s = 0.0
        self._untold = 0  # of the job's end, or of their own
        self._last_words: list[ev.EndJob] = []  # to be said when the client has its answer
        self._recording: set[int] = set()
        self._epoch_told = epoch  # of the newest table
        self._ends_late: Timer | None = None
        self._changes_seen = -1  # of who is there
        self.dropped = False
        self._forsaken = self._said_goodbye = False
        self._folder = Folder(self)
        agent.drivers[plan.job_id] = client.driver = self
        if agent.draining:
            self.refuse(PeerRefused(f"agent {agent.member.agent_id} is draining and takes no new work"))
        elif epoch:
            Gathering(self, members)
        else:
            Roll(self, members)

    @property
    def living(self) -> list[Member]:
        """Those that take part."""
        return [self.agents[place] for place in self.coordinator.living] if self.coordinator is not None else []

    @property
    def identities(self) -> set[tuple[str, int]]:
        return {member.identity for member in self.living}

    def cancel(self) -> None:
        """By the word of the client."""
        self.post(ev.Cancelled(reason="its client went away or cancelled it"))

    def post(self, event: ev.Event) -> None:
        if self.coordinator is None or self.coordinator.ended:
            return
        if isinstance(event, ev.TaskSucceeded):
            self.world.checks.committed(self.plan.job_id, event, self._epoch_told)
        if isinstance(event, ev.TaskSucceeded | ev.TaskFailed):
            self.world.checks.task_ended(self.plan.job_id, event)
        elif isinstance(event, ev.Prepared):
            self.world.checks.prepared(self.plan.job_id, event)
        commands = self.coordinator.handle(event)
        if isinstance(event, ev.TaskSucceeded):
            self.world.happen("committed", event.agent, "task %s.%s#%s", event.stage_id, event.task, event.attempt)
        for command in commands:
            if self.world.traces:
                self.world.say("command", "%s", sketch(command))
            self._carry_out(command)
        if self._changes_seen != self.world.changes and not self._look_for_newcomers() and not self._look_for_leavers():
            self._changes_seen = self.world.changes

    def _look_for_leavers(self) -> bool:
        """Whether one more of the job's agents has begun to drain."""
        for agent in self.world.agents:
            if agent.draining and agent.member in self.agents and agent.member not in self._leavers:
                self._leavers.append(agent.member)
                self.post(ev.AgentDraining(agent=self.agents.index(agent.member), stays=agent is self.agent))
                return True
        return False

    def _look_for_newcomers(self) -> bool:
        """Whether one more lives that the job has not had, at the address of none that it has."""
        taken, known = {m.flight_address for m in self.living}, {m.identity for m in self.agents + self._client.members}
        for agent in self.world.takers:
            if agent.address not in taken and agent.member.identity not in known:
                self._watches.append(Watch(self.agent, agent.member, partial(self._lost, len(self.agents))))
                self.agents.append(agent.member)
                self.post(ev.AgentJoined(member=agent.member))
                return True
        return False

    def begin(self, agents: list[Member], inherited: Inheritance | None = None) -> None:
        """It is known who takes part, and where the job stands."""
        if self.dropped:
            return
        self.agents = list(agents)
        holders = {piece.flight_address for pieces in self.plan.uploads.values() for piece in pieces}
        missing = holders - {member.flight_address for member in self.agents}
        if missing and inherited is None:
            self.refuse(PeerLost(f"{missing} with rows of the job did not answer", upload=min(missing)))
            return
        try:
            self.coordinator = Coordinator(
                plan=self.plan,
                agents=self.agents,
                partitions_per_slot=2,
                split_bytes=1,
                slow=self.world.slow,
                hot=self.world.hot,
                ranges=RangeRule(rows_min=1),
                epoch=self.epoch,
                inherited=inherited,
            )
        except PeerLost as error:
            self.refuse(error)
            return
        self._client.hear(self, partial(self._client.accepted, list(agents)))
        for number in self.coordinator.living:
            if self.agents[number].identity != self.agent.member.identity:
                self._watches.append(Watch(self.agent, self.agents[number], partial(self._lost, number)))
        self._began_s = self.world.clock.now_s
        self.post(ev.JobStarted())
        if self.epoch:
            self.world.checks.taken_over(self.plan.job_id, self.coordinator, self.living if inherited else [])
        self._tell_time()

    def refuse(self, error: SabotError) -> None:
        """The job does not start here."""
        self.agent.drivers.pop(self.plan.job_id, None)
        self._client.hear(self, partial(self._client.failed, to_failure(error)))

    def drop(self) -> None:
        """Another agent coordinates the job."""
        self.post(ev.TakenOver())
        self._let_go()

    def confirm(self) -> None:
        self._say_goodbye(keep_result=True)

    def outlive_client(self) -> None:
        """Its stream has ended; unless the client has another agent take the job over, it has died."""
        if self._ends_late is None:
            self._ends_late = self.agent.later(TAKEOVER_S, self._end_without_client)

    def _end_without_client(self) -> None:
        self._forsaken = True
        self.cancel()
        self._say_goodbye(keep_result=False)
        if self.coordinator is None:
            self._let_go()

    def _let_go(self) -> None:
        if self.dropped:
            return
        self.dropped = True
        self._last_words.clear()
        self._end()
        if self.agent.drivers.get(self.plan.job_id) is self:
            del self.agent.drivers[self.plan.job_id]
        fence = self.agent.held.fence
        if not fence.knows_later(self.plan.job_id, self.epoch):
            self.agent.held.orphan(self.plan.job_id)
            fence.admit(self.plan.job_id, self.epoch + EPOCHS_OF_A_COORDINATOR)

    def _say_goodbye(self, *, keep_result: bool) -> None:
        words, self._last_words = self._last_words, []
        for word in words:
            self._untold += 1
            argument = (self.plan.job_id, word.keep_result and keep_result, self.epoch)
            self._send(self.agents[word.agent], "end_job", argument, self._told, PEER_DEADLINE_S)
        if self.coordinator is not None and self.coordinator.ended and not (self._said_goodbye or self.dropped):
            self._said_goodbye = True
            self._folder.discard()

    def _tell_time(self) -> None:
        assert self.coordinator is not None
        if not self.coordinator.ended:
            self.post(ev.TimePassed(elapsed_s=self.world.clock.now_s - self._began_s))
            self.agent.later(TELL_TIME_EVERY_S, self._tell_time)

    def _lost(self, place: int, error: SabotError) -> None:
        self._changes_seen = -1  # another may have come to its address
        self.post(ev.AgentLost(agent=place, failure=to_failure(error)))

    def _carry_out(self, command: ev.Command) -> None:
        assert self.coordinator is not None
        match command:
            case ev.Prepare(agent=place, table=table):
                agents = list(self.agents)
                argument = (self.plan, self.coordinator.num_partitions, agents, self.agent.member, table)
                self.call(self.agents[place], "prepare", argument, partial(self._prepared, place), PREPARE_DEADLINE_S)
            case ev.Reown(agent=place, table=table):
                self._epoch_told = table.epoch
                answer = partial(self._reowned, place, table.epoch)
                argument = (self.plan.job_id, list(self.agents), table, False)
                self.call(self.agents[place], "reown", argument, answer, PEER_DEADLINE_S)
            case ev.CheckAgents(table=table, last=last):
                self._check_agents(table, last)
            case ev.CancelTask(stage_id=stage_id, task=task, attempt=attempt):
                self.world.checks.task_cancelled(self.plan.job_id, command)
                call = self._attempts.pop((stage_id, task, attempt), None)
                if call is not None:
                    call.cancel()
            case ev.StartTask(agent=place):
                self.world.checks.task_started(self.plan.job_id, command, self.living)
                answer = partial(self._task_ended, command)
                call = self.call(self.agents[place], "run_task", (self.plan.job_id, command), answer)
                self._attempts[command.stage_id, command.task, command.attempt] = call
            case _:
                self._see_to(command)

    def _see_to(self, command: ev.Command) -> None:
        """The journal, the folder, and the job's end."""
        assert self.coordinator is not None
        match command:
            case ev.Record(urgent=urgent):
                self.agent.later(0.0 if urgent else GATHER_S, self._record)
            case ev.EndJob() if self.coordinator.ended:
                self._last_words.append(command)
            case ev.EndJob(agent=place):
                argument = (self.plan.job_id, command.keep_result, self.epoch)
                self._send(self.agents[place], "end_job", argument, lambda _: None, PEER_DEADLINE_S)
            case ev.AskToPublish():
                self._client.hear(self, self._client.asked_to_publish)
            case ev.OpenFolder(output=output):
                self._folder.open(output)
            case ev.PublishFolder(files=files):
                self._folder.publish(files)
            case ev.DiscardFolder():
                self._folder.discard()
            case ev.Drop(failure=failure):
                self._let_go()
                if failure is not None:
                    self._client.hear(self, partial(self._client.failed, failure))
            case ev.Finish(finished=finished):
                self.agent.keepers[self.plan.job_id] = self.identities
                self._end()
                self._client.hear(self, partial(self._client.finished, finished))
                if self._forsaken:
                    self._say_goodbye(keep_result=False)
            case ev.Fail(failure=failure):
                self._end()
                self._say_goodbye(keep_result=False)
                self._client.hear(self, partial(self._client.failed, failure))

    def _record(self) -> None:
        """Every living agent is sent what it lacks, one call at a time."""
        assert self.coordinator is not None
        for place in [] if self.coordinator.ended else self.coordinator.living:
            update = None if place in self._recording else self.coordinator.journal_update(place)
            if update is not None:
                self._recording.add(place)
                self._send_record(place, update)

    def _send_record(self, place: int, update: JobJournal) -> None:
        def answered(answer: Any) -> None:
            if place not in self._recording:
                return
            if isinstance(answer, PeerLost):  # it is asked again as long as it lives
                self._calls.append(Ping(self.agent, self.agents[place], alive))
                return
            self._recording.discard(place)
            if isinstance(answer, SabotError):
                self.post(ev.RecordFailed(agent=place, failure=to_failure(answer)))
            else:
                self.post(ev.Recorded(agent=place, mark=end_of(update)))
                self._record()

        def alive(error: PeerLost | None) -> None:
            if error is None:
                self._send_record(place, update)
            else:
                self._recording.discard(place)
                self.post(ev.RecordFailed(agent=place, failure=to_failure(error)))

        self.call(
            self.agents[place], "record", (self.plan.job_id, update, list(self.agents)), answered, PEER_DEADLINE_S
        )

    def _prepared(self, place: int, answer: Any) -> None:
        if isinstance(answer, SabotError):
            self.post(ev.PrepareFailed(agent=place, failure=to_failure(answer)))
        else:
            self.post(ev.Prepared(agent=place))

    def _task_ended(self, command: ev.StartTask, answer: Any) -> None:
        which = {name: getattr(command, name) for name in ("agent", "stage_id", "task", "attempt")}
        if isinstance(answer, PeerLost):  # it takes no commands, whatever it says to pings
            self._lost(command.agent, answer)
        elif isinstance(answer, SabotError):
            self.post(ev.TaskFailed(**which, failure=to_failure(answer)))
        elif isinstance(answer, RunTaskReply) and answer.HasField("failure"):
            self.post(ev.TaskFailed(**which, failure=answer.failure, sent_epoch=sent_epoch_of(answer)))
        else:
            self.post(ev.TaskSucceeded(**which, reply=answer))

    def _reowned(self, place: int, epoch: int, answer: Any) -> None:
        if isinstance(answer, SabotError):
            self.post(ev.ReownFailed(agent=place, epoch=epoch, failure=to_failure(answer)))
        else:
            self.post(ev.Reowned(agent=place, epoch=epoch))

    def _check_agents(self, table: OwnerTable, last: bool) -> None:
        """Pings them, and tells them again who owns what: one that refuses has the job no longer."""
        assert self.coordinator is not None
        asked = [p for p in self.coordinator.living if self.agents[p].identity != self.agent.member.identity]
        waited_for = set(asked)

        def heard(place: int, error: SabotError | None) -> None:
            if error is not None:
                self._lost(place, error)
            waited_for.discard(place)
            if not waited_for:
                self.post(ev.AgentsChecked())

        def holds(place: int, answer: Any) -> None:
            if isinstance(answer, (PeerRefused, JobCancelled, JobTakenOver)):
                heard(place, answer)
            else:  # whether it lives is for the ping to say
                self._calls.append(Ping(self.agent, self.agents[place], partial(heard, place)))

        for place in asked:
            argument = (self.plan.job_id, list(self.agents), table, last)
            self.call(self.agents[place], "reown", argument, partial(holds, place), PEER_DEADLINE_S)
        if not asked:
            self.post(ev.AgentsChecked())

    def _told(self, answer: Any) -> None:
        self._untold -= 1
        if not self._untold and self.agent.drivers.get(self.plan.job_id) is self:
            del self.agent.drivers[self.plan.job_id]

    def _end(self) -> None:
        for call in self._calls:
            call.cancel()
        for watch in self._watches:
            watch.stop()

    def call(
        self, member: Member, method: str, argument: Any, answer: Any, timeout_s: float | None = None
    ) -> Call | OwnCall:
        """A call that the job's end cancels."""
        call = self._send(member, method, argument, answer, timeout_s)
        self._calls.append(call)
        return call

    def _send(self, member: Member, method: str, argument: Any, answer: Any, timeout_s: float | None) -> Call | OwnCall:
        if member.identity == self.agent.member.identity:
            return OwnCall(self.agent, method, argument, answer)
        return self.world.network.call(
            self.agent, member.flight_address, method, argument, answer=answer, timeout_s=timeout_s
        )


def answer_of(finished: JobFinished) -> list[tuple[int, int, str]]:
    """Where the parts of the answer are: (partition, attempt, address)."""
    return [(part.partition, int(part.ticket), part.flight_address) for part in finished.partitions]
