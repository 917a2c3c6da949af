"""Make a traced peer's decisions again, and find the first that comes out differently.

A difference means that the code has changed since, or that something other than events, times,
settings and seed decides: a bug either way, if nobody meant it.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from grid.client_core import ClientCore
from grid.errors import Misuse
from grid.server_core import ServerCore
from peers.trace import Began, CoreName, Full, Step, blank, digests, event_of, read

SHOWN_MAX = 2000
"""More characters of one effect than anybody reads."""


@dataclass
class Replayed:
    """What came of it: ``different`` is empty if every decision was the same."""

    cores: int = 0
    steps: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    terms: set[int] = field(default_factory=set)
    different: str = ""
    full: bool = False


def replay(path: Path) -> Replayed:
    """Feed the cores of a trace. Raises ``Misuse`` for what is none."""
    done = Replayed()
    cores: dict[tuple[str, CoreName], ClientCore | ServerCore] = {}
    for number, line in read(path):
        match line:
            case Began():
                cores[line.session, line.core] = _made(line)
                done.cores += 1
            case Full():
                done.full = True
            case Step():
                core = cores.get((line.session, line.core))
                if core is None:
                    raise Misuse(f"{path}, line {number}: the beginning of this core is not there")
                done.different = _again(core, number, line)
                done.steps += 1
                done.kinds[line.kind] += 1
                if isinstance(core, ClientCore):
                    done.terms.add(core.election.reign.term)
                if done.different:
                    return done
    return done


def _made(began: Began) -> ClientCore | ServerCore:
    if began.core == "server":
        return ServerCore(began.settings)
    assert began.me is not None
    return ClientCore(
        began.settings,
        began.me,
        random.Random(began.seed),
        own=began.own,
        strict=began.strict,
        doors=began.doors,
    )


def _again(core: ClientCore | ServerCore, number: int, line: Step) -> str:
    """Take a step again; empty, or how it differs."""
    event = event_of(line)
    effects: list[Any] = []
    failed = ""
    try:
        effects = list(core.step(event, line.now))
    except Exception as error:
        failed = type(error).__name__
    made = digests(effects)
    if made == line.effects and failed == line.failed:
        return ""
    where = f"line {number}, the {line.core} of {line.session} at {line.now:.4f}, told {event}:"
    if failed != line.failed:
        return f"{where}\n  then: {line.failed or 'no error'}\n  now:  {failed or 'no error'}"
    at = next(
        (n for n, pair in enumerate(zip(line.effects, made, strict=False)) if pair[0] != pair[1]),
        min(len(line.effects), len(made)),
    )
    then = line.effects[at] if at < len(line.effects) else "nothing more"
    now = f"{made[at]} {blank(effects[at])}"[:SHOWN_MAX] if at < len(made) else "nothing more"
    return f"{where}\n  effect {at + 1} then: {then}\n  effect {at + 1} now:  {now}"


def report(path: Path) -> int:
    """Replay for people."""
    done = replay(path)
    kinds = ", ".join(f"{kind} {count}" for kind, count in done.kinds.most_common(5))
    ended = "; it ended when its file was full" if done.full else ""
    print(f"{done.steps} steps of {done.cores} cores ({kinds}){ended}")
    print(done.different or "every decision is the same")
    return 1 if done.different else 0
