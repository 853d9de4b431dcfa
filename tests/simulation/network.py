"""A network of addresses: calls that may be lost, doubled and late, and streams that keep their order until they break.

Whoever lives at an address when a message arrives gets it, and nobody is told that it is another than before. A stream
breaks between two messages: its writer is told, while what is under way may still arrive and be acted upon.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from sabot.errors import PeerLost, SabotError

from .clock import Clock, Process, Timer
from .faults import Odds
from .jobs import Rows

if TYPE_CHECKING:
    from .agent import Agent

Answer = Callable[[Any], None]
OPENING = b"opening"  # the first message of a stream
REQUEST = b"request"  # for credit; beside it the bytes in all


class Node(Protocol):
    """Who lives at an address."""

    address: str
    process: Process

    def on_call(self, method: str, argument: Any, answer: Answer) -> Callable[[], None] | None: ...
    def on_message(self, stream: Stream) -> None: ...
    def on_end(self, stream: Stream) -> None: ...


class Network:
    """Every message of the cluster."""

    def __init__(self, clock: Clock, rng: random.Random, odds: Odds, fault: Callable[..., None]) -> None:
        self.clock = clock
        self.rng = rng
        self.odds = odds
        self.fault = fault
        self.nodes: dict[str, Node] = {}
        self.silent: set[str] = set()  # where a machine is gone, so that nothing there even says no
        self.calls: set[Call] = set()
        self.streams: set[Stream] = set()
        self._cut_until_s: dict[frozenset[str], float] = {}
        self._number = 0

    def next_number(self) -> int:
        """Calls and streams are numbered as they are made, so that what happens to several has an order."""
        self._number += 1
        return self._number

    def strikes(self, chance: float) -> bool:
        """Whether something happens that has this chance."""
        return chance > 0.0 and self.rng.random() < chance

    def delay_s(self) -> float:
        if self.strikes(self.odds.slow_message):
            return 0.5 * self.rng.random()
        return 0.0001 + 0.0019 * self.rng.random()

    def cut(self, one: str, other: str, until_s: float) -> None:
        self._cut_until_s[frozenset((one, other))] = until_s

    def heal(self) -> None:
        self._cut_until_s.clear()

    def wait_for_way(self, one: str, other: str, act: Callable[[], None]) -> bool:
        """Whether the way is cut; then `act` happens when it is open again, as lost packets are sent again."""
        until_s = self._cut_until_s.get(frozenset((one, other)), 0.0) if self._cut_until_s else 0.0
        if until_s <= self.clock.now_s:
            return False
        self.clock.at(until_s, None, act)
        return True

    def tell(self, sender: Node, receiver: Node, act: Callable[[], None]) -> None:
        """A message over a connection that stands: it arrives, sooner or later, unless the receiver dies."""

        def arrive() -> None:
            if not self.wait_for_way(sender.address, receiver.address, arrive):
                self.clock.now(receiver.process, act)

        self.clock.after(self.delay_s(), None, arrive)

    def call(
        self,
        caller: Node,
        address: str,
        method: str,
        argument: Any,
        *,
        answer: Answer,
        timeout_s: float | None = None,
    ) -> Call:
        """`answer` gets a value or a SabotError, once."""
        return Call(self, caller, address, method=method, argument=argument, answer=answer, timeout_s=timeout_s)

    def process_died(self, address: str, process: Process, *, silent: bool) -> None:
        """Connections to it break, which those at the other end hear of, unless the whole machine is gone."""
        (self.silent.add if silent else self.silent.discard)(address)
        for call in sorted(self.calls, key=lambda call: call.number):
            call.on_death(process, silent)
        for stream in sorted(self.streams, key=lambda stream: stream.number):
            if stream.writer.process is process:
                stream.forget()
            elif stream.reader is not None and stream.reader.process is process and not silent:
                stream.broken("the connection was reset")


class Call:
    """One call of a method of another agent."""

    def __init__(
        self,
        network: Network,
        caller: Node,
        address: str,
        *,
        method: str,
        argument: Any,
        answer: Answer,
        timeout_s: float | None,
    ) -> None:
        self._network, self._caller, self._address = network, caller, address
        self._method, self._argument, self._answer = method, argument, answer
        self.number = network.next_number()
        self._stop: Callable[[], None] | None = None  # ends what the callee does for it
        self._callee: Process | None = None
        self._deadline: Timer | None = None
        network.calls.add(self)
        if timeout_s is not None:
            self._deadline = network.clock.after(
                timeout_s, caller.process, lambda: self._lost(f"no answer within {timeout_s:g} s"), deadline=True
            )
        odds = network.odds
        self._reply_lost = network.strikes(odds.lost_call)
        if network.strikes(odds.lost_call):
            network.fault("lost call", "%s of %s", method, address)
            network.clock.after(network.delay_s(), caller.process, lambda: self._lost("the connection broke"))
            return
        # A task is begun once: gRPC sends a call again only where nobody can have begun it.
        doubled = network.strikes(odds.doubled_call) and method != "run_task"
        for _ in range(2 if doubled else 1):
            network.clock.after(network.delay_s(), None, self._arrive)

    def cancel(self) -> None:
        """The caller wants no answer any more; the callee is told."""
        if self not in self._network.calls:
            return
        self._end()
        if self._stop is not None:
            self._network.clock.after(self._network.delay_s(), self._callee, self._stop)

    def on_death(self, process: Process, silent: bool) -> None:
        if self._caller.process is process:
            self.cancel()
        elif self._callee is process and not silent:
            self._network.clock.after(
                self._network.delay_s(), self._caller.process, lambda: self._lost("the connection was reset")
            )

    def _end(self) -> None:
        self._network.calls.discard(self)
        if self._deadline is not None:
            self._deadline.cancel()

    def _lost(self, how: str) -> None:
        if self in self._network.calls:
            self._settle(
                PeerLost(f"{self._address} did not answer {self._method}: {how}", address=self._address), again=False
            )

    def _settle(self, value: Any, *, again: bool) -> None:
        first = self in self._network.calls
        if first and isinstance(value, PeerLost) and self._stop is not None:
            self._network.clock.after(self._network.delay_s(), self._callee, self._stop)
        self._end()
        if first or again:
            self._answer(value)

    def _arrive(self) -> None:
        network = self._network
        if self not in network.calls or network.wait_for_way(self._caller.address, self._address, self._arrive):
            return
        node = network.nodes.get(self._address)
        if node is None or node.process.dead:
            if self._address not in network.silent:
                network.clock.after(network.delay_s(), self._caller.process, lambda: self._lost("connection refused"))
            return
        self._callee = node.process
        network.clock.now(node.process, lambda: self._act(node))

    def _act(self, node: Node) -> None:
        if self not in self._network.calls:
            return  # cancelled before it was begun
        self._stop = node.on_call(self._method, self._argument, lambda value: self._reply(node, value))

    def _reply(self, node: Node, value: Any) -> None:
        network = self._network
        if self._reply_lost and not isinstance(value, SabotError):
            network.fault("lost call", "the reply of %s to %s", self._address, self._method)
            value = PeerLost(f"{self._address} did not answer {self._method}: the connection broke")
        back = 2 if network.strikes(network.odds.doubled_call) else 1
        for turn in range(back):
            network.clock.after(network.delay_s(), None, lambda again=turn > 0: self._answered(value, again))

    def _answered(self, value: Any, again: bool) -> None:
        network = self._network
        if network.wait_for_way(self._caller.address, self._address, lambda: self._answered(value, again)):
            return
        network.clock.now(self._caller.process, lambda: self._settle(value, again=again))


class OwnCall:
    """What an agent calls on itself: never lost, and cancelled as a call of another's is."""

    def __init__(self, agent: Agent, method: str, argument: Any, answer: Answer) -> None:
        self._agent, self._method, self._argument, self._answer = agent, method, argument, answer
        self._stop: Callable[[], None] | None = None
        self._over = False
        agent.later(0.0, self._begin)

    def cancel(self) -> None:
        if not self._over:
            self._over = True
            if self._stop is not None:
                self._stop()

    def _begin(self) -> None:
        if not self._over:
            self._stop = self._agent.on_call(self._method, self._argument, self._answered)

    def _answered(self, value: Any) -> None:
        if not self._over:
            self._over = True
            self._answer(value)


class Stream:
    """One DoPut. `on_ack` gets acknowledgements in order; `on_break` is called once, and after it nothing."""

    def __init__(
        self,
        network: Network,
        writer: Node,
        address: str,
        *,
        on_ack: Callable[[bytes], None],
        on_break: Callable[[str], None],
        timeout_s: float,
    ) -> None:
        self._network, self.writer, self.address = network, writer, address
        self._on_ack, self._on_break = on_ack, on_break
        self.number = network.next_number()
        self.reader: Node | None = None
        self.inbox: deque[tuple[bytes, Rows]] = deque()  # arrived; the reader's thread takes one after the other
        self.busy = False  # the reader's thread waits with the first of them
        self.ended = False  # for the reader: nothing more comes
        self.credit = 0  # the reader's number for it
        self._whole = True  # as far as the writer knows
        self._breaking = False
        self._arrivals_left: int | None = None  # once it is broken: so many more messages arrive
        self._arrives_s = self._returns_s = 0.0
        network.streams.add(self)
        self._deadline = network.clock.after(
            timeout_s, writer.process, lambda: self.broken("its deadline has passed"), deadline=True
        )
        self._last = network.clock.after(timeout_s, None, self._end_for_reader)
        self.write(OPENING, ())

    def write(self, header: bytes, rows: Rows) -> None:
        network, rng, odds = self._network, self._network.rng, self._network.odds
        chunk = bool(rows) and header != REQUEST
        if chunk and network.strikes(odds.dropped_chunk):
            network.fault("dropped chunk", "to %s", self.address)
            return
        if chunk and network.strikes(odds.corrupt_chunk):
            network.fault("corrupt chunk", "to %s", self.address)
            rows = (*rows[:-1], rows[-1] ^ (1 << rng.randrange(20)))
        self._arrives_s = max(self._arrives_s, network.clock.now_s + network.delay_s())
        network.clock.at(self._arrives_s, None, lambda: self._arrive(header, rows))
        if network.strikes(odds.broken_stream):
            self.broken("the connection was reset")

    def acknowledge(self, ack: bytes) -> None:
        """Called by the reader."""
        network = self._network
        self._returns_s = max(self._returns_s, network.clock.now_s + network.delay_s())
        network.clock.at(self._returns_s, None, lambda: self._return(ack))

    def broken(self, how: str) -> None:
        """Breaks: some of what is under way may still arrive; the writer hears of it a little later."""
        if not self._breaking:
            self._breaking = True
            self._network.fault("broken stream", "to %s: %s", self.address, how)
            self._arrivals_left = self._network.rng.randint(0, 2)
            self._end_soon()
            self._network.clock.after(self._network.delay_s(), self.writer.process, lambda: self._tell_broken(how))

    def forget(self) -> None:
        """The writer closes it, when all is acknowledged, or has died."""
        self._whole = False
        if self._arrivals_left is None:
            self._arrivals_left = self._network.rng.randint(0, 2)
        if not (self.writer.process.dead and self.writer.address in self._network.silent):
            self._end_soon()  # else the reader finds out at its deadline
        self._deadline.cancel()
        self._network.streams.discard(self)

    def _end_soon(self) -> None:
        """What arrives still does so within a second."""
        self._last.cancel()
        self._last = self._network.clock.after(1.0, None, self._end_for_reader)

    def _end_for_reader(self) -> None:
        self._arrivals_left = 0
        if self.reader is not None:
            reader = self.reader
            self._network.clock.now(reader.process, lambda: reader.on_end(self))

    def _tell_broken(self, how: str) -> None:
        if self._whole:
            self.forget()
            self._on_break(how)

    def _arrive(self, header: bytes, rows: Rows) -> None:
        network = self._network
        if network.wait_for_way(self.writer.address, self.address, lambda: self._arrive(header, rows)):
            return
        if self._arrivals_left is not None:
            if self._arrivals_left == 0:
                return
            self._arrivals_left -= 1
        if self.reader is None:
            self.reader = network.nodes.get(self.address)
            # What was opened to one that is gone is not there for one that has its address now.
            if self.reader is None or self.reader.process.dead or header != OPENING:
                self.reader = None
                if self.address not in network.silent:
                    self.broken("connection refused")
                    self._arrivals_left = 0  # there was no connection
                return
        network.clock.now(self.reader.process, lambda: self._take(header, rows))

    def _take(self, header: bytes, rows: Rows) -> None:
        assert self.reader is not None
        if self.ended:
            return
        self.inbox.append((header, rows))
        if not self.busy:
            self.reader.on_message(self)

    def _return(self, ack: bytes) -> None:
        network = self._network
        if network.wait_for_way(self.writer.address, self.address, lambda: self._return(ack)):
            return
        if self._whole and self._arrivals_left is None:
            network.clock.now(self.writer.process, lambda: self._hear(ack))

    def _hear(self, ack: bytes) -> None:
        if self._whole:
            self._on_ack(ack)
