"""``grid logs``: what the user code of a transaction prints and logs, from any peer, for anyone.

The server keeps the latest lines of each transaction, also for a while after its end, and gives
them to whoever asks: any number of people may read along. A new server begins without the lines of
the one before; who follows is told, and goes on with what is printed from then on.
"""

import argparse
import sys
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from grid.errors import CannotJoin, GridError, Misuse
from grid.messages import NO_BOOKMARK, Bookmark, Printed, Prints
from grid.suggest import did_you_mean
from peers.cli.options import ANSWER_SECONDS, add_command, add_grid_options, visit
from peers.cli.printing import add_json_option, print_json_line
from peers.cli.top_view import label

if TYPE_CHECKING:
    from peers.peer import Peer
    from peers.snapshot import Snapshot, TransactionSeen
    from peers.watching import Watch

POLL_SECONDS = 0.25
"""Between two questions when nothing was new: soon enough for a person who reads along."""

SOUGHT_SECONDS = 2.0
"""So long without an answer, and one who follows is told that a server is sought."""

RETURN_SECONDS = 30.0
"""How long a transaction that a new server does not know yet may take to come back: its owner
resubmits it as soon as it has joined."""

_DESCRIPTION = """\
Print what the user code of a transaction has printed and logged on the workers, each line
with the peer it comes from. Say which by its name, or by the beginning of its record:

  grid logs words             # what there is
  grid logs -f words          # and what comes, until the transaction ends
  grid logs 3f9a | grep -i warning
  grid logs -f words --json | jq -r 'select(.stream == "log") | .text'

Works from any host, for any number of readers, while the transaction runs and for some
time after. The server keeps the latest thousand messages of each; when it dies, the next
one begins with what is printed from then on, and this says so.

The exit status is 1 if there is no such transaction or no grid answers; with -f also if
the transaction failed or was cancelled.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "logs", run, _DESCRIPTION)
    parser.add_argument("which", metavar="NAME|RECORD", help="as `grid jobs` shows it")
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on until the transaction has ended"
    )
    add_json_option(parser, "a line of JSON for each message: peer, stream, text")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Find it and print its lines."""
    if not args.which:
        raise Misuse("'' is no name and no record; `grid jobs` shows those there are")
    with visit(args) as peer:
        watch = peer.watch()
        found = find(args.which, _look(watch))
        reader = Reader(peer, found.record, as_json=args.json)
        if not args.follow:
            reader.read_all()
            if not reader.count:
                print(f"{label(found)} has printed nothing that is kept", file=sys.stderr)
            return 0
        state = reader.follow()
        return _tell_end(found.record, state, _look(watch))


def _look(watch: "Watch") -> "Snapshot":
    snapshot = watch.look(ANSWER_SECONDS)
    if not snapshot.server:
        raise CannotJoin(f"no server answered within {ANSWER_SECONDS:g} s")
    return snapshot


def find(which: str, snapshot: "Snapshot") -> "TransactionSeen":
    """Return the transaction of that name, the one that runs or else the latest; or the one whose
    record begins so. Raises ``GridError`` if there is none, ``Misuse`` if there are several."""
    transactions = snapshot.transactions  # those that run first, then the latest first
    named = [txn for txn in transactions if txn.name == which]
    begins = [txn for txn in transactions if txn.record.startswith(which)]
    if named:
        return named[0]
    if len(begins) == 1:
        return begins[0]
    if begins:
        several = ", ".join(txn.record[: len(which) + 4] for txn in begins)
        raise Misuse(f"{which!r} may be any of {several}; write more of the record")
    names = [txn.name for txn in transactions if txn.name]
    hint = did_you_mean(which, names) or "; `grid top` shows those that are known"
    raise GridError(f"no transaction has the name, or a record that begins with, {which!r}{hint}")


class Reader:
    """Prints what a record printed, once, whichever server is asked. ``count`` messages so far."""

    def __init__(self, peer: "Peer", record: str, *, as_json: bool) -> None:
        self._peer = peer
        self._record = record
        self._as_json = as_json
        self._after: Bookmark = NO_BOOKMARK
        self.count = 0

    def read_all(self) -> None:
        """Print all that there is now."""
        while self._read().prints:
            pass

    def follow(self) -> str:
        """Print what there is and what comes, until the end; return the state it ended in."""
        unknown_since: float | None = None
        while True:
            answer = self._read()
            if answer.state not in ("running", "") and not answer.prints:
                return answer.state
            if answer.state:
                unknown_since = None
            elif unknown_since is None:
                unknown_since = time.monotonic()
            elif time.monotonic() > unknown_since + RETURN_SECONDS:
                return ""
            if not answer.prints:
                time.sleep(POLL_SECONDS)

    def _read(self) -> Prints:
        answer = self._wait(self._peer.prints(self._record, self._after))
        before, self._after = self._after, answer.latest
        if before.chronicle not in ("", answer.latest.chronicle):
            _say("another server serves now: what was printed meanwhile may be missing")
        if answer.gap:
            _say("what was printed before this is not kept")
        for printed in answer.prints:
            self._print(printed)
        self.count += len(answer.prints)
        sys.stdout.flush()
        return answer

    def _print(self, printed: Printed) -> None:
        if self._as_json:
            facts = {"peer": printed.peer, "stream": printed.stream, "text": printed.text}
            print_json_line(facts)
            return
        for line in printed.text.splitlines():
            print(f"[{printed.peer}] {line}")

    @staticmethod
    def _wait(asked: "Future[Prints]") -> Prints:
        """Wait for an answer, however long a server is sought; say so, once."""
        with suppress(FutureTimeout):
            return asked.result(SOUGHT_SECONDS)
        _say("no server: looking for one")
        return asked.result()


def _tell_end(record: str, state: str, snapshot: "Snapshot") -> int:
    """Say how it ended; return the exit status."""
    seen = next((txn for txn in snapshot.transactions if txn.record == record), None)
    name = label(seen) if seen is not None else record
    if not state:
        _say(f"{name} is not known any more: how it ended is not either")
        return 1
    why = f": {seen.failure.message}" if seen is not None and seen.failure is not None else ""
    _say(f"{name} {state}{why}")
    return 0 if state == "finished" else 1


def _say(text: str) -> None:
    print(f"grid logs: {text}", file=sys.stderr, flush=True)
