"""The main job: a word count on several peers, whose serving peer is killed half-way.

Starts N-1 peers as processes of their own, is itself the last one, and submits from there. At
about half of the maps the serving peer, which has workers and finished outputs, gets SIGKILL. The
job goes on; its result is compared with ``Job.run()``. The exit status is 0 only if all was right.
"""

import argparse
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from peers import Files, GridError, Job, Peer, Transaction

WORD = re.compile(r"[A-Za-z]{2,}")
START_SECONDS = 30.0
POLL_SECONDS = 0.002
PORT_SPAN = 3


def count_words(_path: str, text: str) -> Iterator[tuple[str, int]]:
    for word in WORD.findall(text):
        yield word.lower(), 1


def total(_word: str, counts: list[int]) -> int:
    return sum(counts)


def library_files() -> list[str]:
    """The source files of this interpreter's own standard library."""
    top = Path(sysconfig.get_paths()["stdlib"])
    found = (path for path in top.rglob("*.py") if "site-packages" not in path.parts)
    return sorted(str(path) for path in found)


def word_count(pattern: str | None) -> Job:
    names = [pattern] if pattern else library_files()
    return Job(Files(*names, errors="replace"), count_words, reducefn=total)


def free_port() -> int:
    """A port that is free together with the next ones of the span."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port + PORT_SPAN < 65536 and all(_is_free(port + n) for n in range(PORT_SPAN)):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


# ------------------------------------------------------------------------------ peers


@dataclass
class Helper:
    """A peer in a process of its own."""

    name: str
    process: subprocess.Popen[str]
    state: str = "starting"


def peer_process(name: str) -> None:
    """What each other peer runs: join, say so, stay until the pipe from the demo closes."""
    with Peer(name=name):
        print("joined", flush=True)
        sys.stdin.read()


@contextmanager
def other_peers(count: int) -> Iterator[list[Helper]]:
    """Start peers one after the other; end them, however this ends."""
    helpers: list[Helper] = []
    try:
        for number in range(1, count + 1):
            name = f"peer {number}"
            process = subprocess.Popen(
                [sys.executable, __file__, "--as-peer", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            helpers.append(Helper(name, process))
            assert process.stdout is not None
            if process.stdout.readline().strip() != "joined":
                raise SystemExit(f"{name} did not start; its messages are above")
            helpers[-1].state = "ready"
        yield helpers
    finally:
        for helper in helpers:
            if helper.process.stdin is not None:
                helper.process.stdin.close()
        for helper in helpers:
            try:
                helper.process.wait(10)
            except subprocess.TimeoutExpired:
                helper.process.kill()
                helper.process.wait()
            if helper.process.stdout is not None:
                helper.process.stdout.close()


# ------------------------------------------------------------------------------ the story


@dataclass
class Story:
    """What happened, as it is shown at the end."""

    seconds: float = 0.0
    killed: str = ""
    took_over: str = ""
    recovery_seconds: float | None = None
    results: dict[str, int] = field(default_factory=dict)
    again: int = 0


class Display:
    """Peers, term and progress: a live picture on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, me: str, helpers: list[Helper]) -> None:
        self._console = console
        self._me = me
        self._helpers = helpers
        self._bars = Progress(
            TextColumn("{task.description:>7}"),
            BarColumn(40),
            TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            console=console,
        )
        self._maps: TaskID = self._bars.add_task("map", total=1)
        self._reduces: TaskID = self._bars.add_task("reduce", total=1)
        self._live = Live(console=console, refresh_per_second=8, transient=False)
        self._said = 0.0
        self.server = ""
        self.term = 0

    def __enter__(self) -> "Display":
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def show(self, transaction: Transaction, *, last: bool = False) -> None:
        now = transaction.progress
        self.term = now.term or self.term
        maps_total = now.maps_total or 1
        self._bars.update(self._maps, completed=now.maps_done, total=maps_total)
        reduces = now.reduces_total or 1
        self._bars.update(self._reduces, completed=now.reduces_done, total=reduces)
        if self._console.is_terminal:
            self._live.update(Group(self._table(), self._bars), refresh=last)
        elif last or time.monotonic() - self._said > 1.0:
            self._said = time.monotonic()
            self._console.print(
                f"term {self.term}: map {now.maps_done}/{now.maps_total}, "
                f"reduce {now.reduces_done}/{now.reduces_total}"
            )

    def tell(self, text: str) -> None:
        self._console.print(text)

    def _table(self) -> Table:
        table = Table(title=f"grid of {len(self._helpers) + 1} peers, term {self.term}")
        for heading in ("peer", "process", "state"):
            table.add_column(heading)
        for helper in self._helpers:
            self._row(table, helper.name, helper.process.pid, helper.state)
        self._row(table, self._me, os.getpid(), "submits")
        return table

    def _row(self, table: Table, name: str, pid: int, state: str) -> None:
        serves = "[bold green]serves[/]" if name == self.server and state != "killed" else state
        table.add_row(name, str(pid), "[bold red]killed[/]" if state == "killed" else serves)


def follow(
    peer: Peer, transaction: Transaction, helpers: list[Helper], display: Display, *, kill: bool
) -> Story:
    """Watch the job to its end; kill the serving peer at half of the maps."""
    story = Story()
    began = time.monotonic()
    killed_at = 0.0
    term = 0
    shown = 0.0
    while not transaction.done():
        now = transaction.progress
        if kill and not story.killed and now.maps_total and now.maps_done >= now.maps_total / 2:
            victim = next(helper for helper in helpers if helper.name == display.server)
            term = now.term
            victim.process.send_signal(signal.SIGKILL)
            killed_at = time.monotonic()
            victim.state = "killed"
            story.killed = victim.name
            display.tell(f"SIGKILL to {victim.name}, the server, at {now.maps_done} maps")
        if story.killed and story.recovery_seconds is None:
            recovered = now.term > term and now.tasks_this_term > 0
            if recovered:
                story.recovery_seconds = time.monotonic() - killed_at
                story.took_over = display.server = peer.status().server
                display.tell(f"{story.took_over} took over")
        if time.monotonic() - shown > 0.1:
            shown = time.monotonic()
            display.show(transaction)
        time.sleep(POLL_SECONDS)
    story.results = transaction.result()
    story.seconds = time.monotonic() - began
    story.again = transaction.progress.executed_again
    display.show(transaction, last=True)
    return story


def verdict(console: Console, story: Story, expected: dict[str, int], *, kill: bool) -> bool:
    """Print what happened and whether all of it was right."""
    right = story.results == expected
    checks = [("the result equals Job.run()", right)]
    table = Table(show_header=False, box=None, pad_edge=False)
    if kill:
        recovered = story.recovery_seconds is not None
        checks += [
            ("the server was killed while the job ran", bool(story.killed)),
            ("another peer took over and ran tasks", recovered),
        ]
        table.add_row("killed", story.killed or "nobody")
        table.add_row("took over", story.took_over or "nobody")
        seconds = f"{1000 * (story.recovery_seconds or 0):.0f} ms" if recovered else "never"
        table.add_row("from the kill to the first task run under the new server", seconds)
    checks.append(("no finished task was executed again", story.again == 0))
    table.add_row("finished tasks executed again", str(story.again))
    table.add_row("total time", f"{story.seconds:.2f} s")
    table.add_row("different words", str(len(story.results)))
    words = sorted(story.results.items(), key=lambda pair: (-pair[1], pair[0]))[:8]
    table.add_row("top words", ", ".join(f"{word} {count}" for word, count in words))
    console.print(table)
    for what, holds in checks:
        console.print(f"[green]ok[/]   {what}" if holds else f"[bold red]NOT[/]  {what}")
    return all(holds for _, holds in checks)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/demo", description=__doc__)
    parser.add_argument("--peers", type=int, default=3, metavar="N", help="how many (3)")
    parser.add_argument("--slots", type=int, default=2, metavar="N", help="tasks at once, each (2)")
    parser.add_argument("--no-kill", action="store_true", help="let the server live")
    parser.add_argument("--input", metavar="GLOB", help="text files (the standard library)")
    parser.add_argument("--as-peer", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peers < 1 or args.slots < 1:
        parser.error("--peers and --slots must be at least 1")
    if args.peers == 1:
        args.no_kill = True  # there would be nobody left to see it
    return args


def main() -> int:
    args = arguments()
    if args.as_peer:
        peer_process(args.as_peer)
        return 0
    console = Console()
    kill = not args.no_kill
    with tempfile.TemporaryDirectory(prefix="peergrid-demo-") as spool:
        # A grid of the demo's own: it shall not meet, or kill, a grid of the user's.
        os.environ["GRID_PASSWORD"] = secrets.token_hex(16)
        os.environ["GRID_PORT"] = str(free_port())
        os.environ["GRID_SLOTS"] = str(args.slots)
        os.environ["GRID_SPOOL"] = spool
        job = word_count(args.input)
        files = len(job.keys())
        if not files:
            raise SystemExit(f"scripts/demo: no file matches --input {args.input}")
        console.print(f"{files} files; {args.peers} peers with {args.slots} slots each")
        me = f"peer {args.peers}"
        with other_peers(args.peers - 1) as helpers, Peer(name=me) as peer:
            display = Display(console, me, helpers)
            display.server = peer.status().server
            with display:
                transaction: Any = peer.submit(job)
                story = follow(peer, transaction, helpers, display, kill=kill)
        console.print("comparing with Job.run(), one process ...")
        return 0 if verdict(console, story, job.run(), kill=kill) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except GridError as error:
        sys.exit(f"scripts/demo: {error}")
