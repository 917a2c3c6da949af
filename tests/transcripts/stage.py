"""A simulated grid whose processes tell what they do, in sentences a person can judge.

The cores and the virtual world are those of ``tests.simulation``; nothing is drawn but reign ids,
which are left out. So a story changes only when a decision of the cores changes.
"""

import re
from dataclasses import replace

from grid import effects as fx
from grid import messages as m
from grid.settings import Settings
from tests.simulation.auditor import Auditor
from tests.simulation.process import Process
from tests.simulation.world import World

TASK_SECONDS = 0.1
LATENCY_SECONDS = 0.001
SETTINGS = Settings(slots=1, join_timeout=1e9, retain_seconds=20.0, orphan_hold_seconds=25.0)


def task(said: m.Assign | m.Running | m.Output) -> str:
    """A task, or its output, in words."""
    return f"{said.kind} {said.start}..{said.stop}"


def listed(words: list[str]) -> str:
    return ", ".join(words) or "nothing"


class Narrated(Process):
    """A process that tells what it says to others."""

    def _do_client(self, effect: fx.ClientEffect) -> None:
        line = self._said(effect.message) if isinstance(effect, fx.Send) else self._does(effect)
        if line:
            self.world.note(self.name, line)
        super()._do_client(effect)

    def _do_server(self, effect: fx.ServerEffect) -> None:
        if isinstance(effect, fx.Send):
            found = self._links.get(effect.link)
            if found is not None:
                to = found[0].ends[1 - found[1]].name
                for line in self._told(effect.message, to):
                    if f"{self.name:<6} [server] {line}" not in self.world.log[-1]:
                        self.world.note(self.name, f"[server] {line}")
        super()._do_server(effect)

    def _name(self, peer: str) -> str:
        return next(p.name for p in self.world.processes if p.me.peer == peer)

    def _said(self, message: m.Message) -> str:
        """What a client says to its server."""
        match message:
            case m.Join():
                outputs = [task(h.output) for held in message.held for h in held.holdings]
                if not outputs and not message.running:
                    return "joins"
                running = [task(run) for run in message.running]
                return f"joins, holding {listed(outputs)}, running {listed(running)}"
            case m.Submit(accepted=True):
                held = sum(entry.held for entry in message.ledger)
                given = len(message.ledger) - held
                return f"resubmits {message.txn}: {held} ranges held, {given} given"
            case m.Submit():
                return f"submits {message.txn} as an owner of {message.meta.record}"
            case m.TaskDone():
                return f"has sealed {task(message.holding.output)}"
            case m.TaskReturned():
                return f"hands a task back: {message.reason}"
            case m.Announce(adopted=dead) if dead:
                outputs = [task(h.output) for held in message.held for h in held.holdings]
                return f"has adopted what {self._name(dead)} left: {listed(outputs)}"
            case m.Acknowledge():
                return f"wants nothing more of {message.txn}"
            case m.Leaving():
                return "wants to leave"
            case m.Leave():
                return "leaves"
            case _:
                return ""

    def _does(self, effect: fx.ClientEffect) -> str:
        match effect:
            case fx.Ask():
                return f"asks {listed([ref.name for ref in effect.peers])} whom they follow"
            case fx.Reconnect(through=between) if between is not None:
                return f"dials {effect.address} through {between.name}"
            case fx.FetchResult():
                holders = dict.fromkeys(ref.name for _, ref in effect.holdings)
                return f"fetches {effect.record} from {listed(list(holders))}"
            case fx.ForgetTask():
                return "stops a task"
            case fx.DropOutputs():
                return f"drops {listed(list(effect.kinds) or ['all'])} of {effect.record}"
            case _:
                return ""

    def _told(self, message: m.Message, to: str) -> list[str]:
        """What a server says to a member."""
        match message:
            case m.Assign():
                return [f"gives {task(message)} to {to}"]
            case m.Progress():
                held = [entry for entry in message.entries if entry.held]
                return [
                    f"counts {e.kind} {e.start}..{e.stop} of {self._name(e.peer)}" for e in held
                ]
            case m.Accepted():
                return [f"accepts {message.txn} of {to}"]
            case m.Adopt():
                return [
                    f"sends {message.txn} of {to} to {message.meta.record}, the first of its name"
                ]
            case m.Finished():
                return [f"tells {to} that {message.record} is finished"]
            case m.CancelTask():
                return [f"tells {to} to stop a task"]
            case m.Redirect():
                return [f"sends {to} to {message.address}"]
            case m.TakeOver():
                taken = [task(held.output) for held, _ in message.sources]
                return [f"asks {to} to take over {listed(taken)}"]
            case m.MayGo():
                return [f"lets {to} go"]
            case m.Retain():
                return [f"asks {to} to keep the result of {message.remembered.meta.record}"]
            case _:
                return []


class Stage:
    """A grid for one story: on one host, or on several (``across``)."""

    def __init__(self) -> None:
        self.task_seconds = TASK_SECONDS
        self.world = World(seed=1)
        self.world.latency = (LATENCY_SECONDS, LATENCY_SECONDS)
        self.auditor = Auditor(self.world)
        self.settings = SETTINGS
        self.seeds: tuple[str, ...] = ("h",)
        self._jobs = 0

    def across(self, *seeds: str) -> None:
        """From now on peers are told of these hosts."""
        self.settings = replace(SETTINGS, hosts=seeds)
        self.seeds = seeds

    def start(self, host: str = "h", *seeds: str) -> Process:
        """Start a peer; it is told of ``seeds``, if they differ from what all are told."""
        name = f"p{len(self.world.processes) + 1}"
        process = Narrated(self.world, self.auditor, name, host, self.settings)
        process.shop.task_seconds = (self.task_seconds, self.task_seconds)
        ports = self.settings.ports
        process.start(tuple(m.Address(h, port) for h in seeds or self.seeds for port in ports))
        return process

    def submit(self, process: Process, items: int, name: str = "") -> None:
        self._jobs += 1
        meta = m.RecordMeta(f"r{self._jobs}", "mapreduce", items, 4, False, speculate=False)
        process.submit(f"t{self._jobs}", meta, name, {"code": "same"} if name else None)

    def wait(self, seconds: float) -> None:
        self.world.run(self.world.now + seconds)

    def say(self, remark: str) -> None:
        self.world.log.append(f"\n# {remark}")

    def story(self) -> str:
        """All that happened, without the reigns' random ids."""
        if self.world.wrong:
            raise AssertionError(self.world.wrong[0])
        text = "\n".join(self.world.log).strip("\n") + "\n"
        text = re.sub(r"(as )?(\d+)/[0-9a-f]{6}", r"in term \2", text)
        return re.sub(r"is (seeking|closed) - .*", r"is \1", text)
