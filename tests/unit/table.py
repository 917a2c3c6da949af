"""A server core with members around it, and what always holds of it."""

from dataclasses import dataclass, field

from grid.effects import Greet, Send, ServerEffect
from grid.events import DeadlineReached, LinkLost, LinkOpened, Received, ReignBegan
from grid.messages import Assign, Beat, Holding, Join, Message, Reign, Successors, TaskDone
from grid.server_core import ServerCore
from grid.settings import Settings
from tests.unit.cores import hello, holding, peer
from tests.unit.test_plan import check

REIGN = Reign(3, "reign-id-of-this-server")
QUIET = (Beat, Successors)
"""Said all the time, to everyone; looked at only by the tests that are about them."""


@dataclass
class Table:
    """A server core with members around it. ``said`` is what the last step told each of them."""

    core: ServerCore
    now: float = 0.0
    links: dict[str, int] = field(default_factory=dict)
    said: dict[str, list[Message]] = field(default_factory=dict)
    effects: list[ServerEffect] = field(default_factory=list)

    def step(self, *events: object) -> dict[str, list[Message]]:
        self.said, self.effects = {}, []
        names = {link: name for name, link in self.links.items()}
        for event in events:
            for effect in self.core.step(event, self.now):  # type: ignore[arg-type]
                if not isinstance(effect, Send):
                    self.effects.append(effect)
                elif not isinstance(effect.message, QUIET):
                    self.said.setdefault(names[effect.link], []).append(effect.message)
        return self.said

    def join(self, message: Join, *, local: bool = False) -> dict[str, list[Message]]:
        name = message.me.name
        link = self.links[name] = len(self.links) + 1
        opened = LinkOpened(link, hello(name), local)
        return self.step(opened, Received(link, message))

    def hear(self, name: str, *messages: Message) -> dict[str, list[Message]]:
        return self.step(*(Received(self.links[name], message) for message in messages))

    def lose(self, name: str) -> dict[str, list[Message]]:
        return self.step(LinkLost(self.links[name], "reset"))

    def wait(self, seconds: float) -> dict[str, list[Message]]:
        """Let time pass, beat by beat, everyone giving signs of life; return all that was said."""
        heard: dict[str, list[Message]] = {}
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + 0.5)
            beats = [Received(link, Beat()) for link in self.links.values()]
            for name, messages in self.step(*beats, DeadlineReached()).items():
                heard.setdefault(name, []).extend(messages)
        return heard

    def orders(self) -> list[tuple[str, Assign]]:
        return [(n, m) for n, said in self.said.items() for m in said if isinstance(m, Assign)]

    def check(self) -> None:
        """What holds of every server after every step."""
        given: dict[str, str] = {}
        for txn in self.core.state.registry:
            for plan in txn.plans.values():
                check(plan)
                for attempt, tile in plan.attempts().items():
                    given[attempt] = tile.attempts[attempt]
            given |= txn.calls_given
        assigned = {a: m.ref.peer for m in self.core.state.roster for a in m.assigned}
        assert assigned == given, "who is thought to run what, and what is thought to be run, agree"
        for member in self.core.state.roster:
            kept = [h.bytes for held in member.held.values() for h in held.values()]
            assert member.held_bytes == sum(kept)


def serve(expected: int = 0) -> Table:
    table = Table(ServerCore(Settings()))
    table.step(ReignBegan(REIGN, peer("s"), expected))
    assert Greet(REIGN, 0) in table.effects
    return table


def done(attempt: str, held: Holding) -> TaskDone:
    return TaskDone(attempt, held, 0.01)


def finish(table: Table, kinds: tuple[str, ...] = ("map", "reduce", "finish")) -> list[Assign]:
    """Do all that is ordered until nothing more is; return it."""
    ran: list[Assign] = []
    counter = 100
    orders = [o for o in table.orders() if o[1].kind in kinds]
    while orders:
        name, order = orders.pop(0)
        ran.append(order)
        counter += 1
        made = holding(
            order.start, order.stop, name, kind=order.kind, record=order.record, counter=counter
        )
        table.hear(name, done(order.attempt, made))
        orders += [o for o in table.orders() if o[1].kind in kinds]
    return ran
