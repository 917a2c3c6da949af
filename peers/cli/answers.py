"""What ``grid repl`` answers, for people and as JSON."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import msgspec
from rich.filesize import decimal
from rich.markup import escape

from grid.messages import MemberStatus, TransactionStatus
from peers.cli.printing import plain, shown
from peers.cli.tables import make_console, make_table, transactions_table

if TYPE_CHECKING:
    from peers.peer import PeerStatus


class Answer(Protocol):
    """The answer to one line; ``top`` is how many results are shown."""

    def show(self, top: int) -> None: ...
    def as_json(self, top: int) -> dict[str, Any]: ...


@dataclass
class Counted:
    """The words of the files that a line names."""

    line: str
    counts: dict[str, int]
    files: int
    seconds: float

    def common(self, top: int) -> list[tuple[str, int]]:
        return sorted(self.counts.items(), key=lambda pair: (-pair[1], pair[0]))[:top]

    def show(self, top: int) -> None:
        for word, count in self.common(top):
            print(f"{count:9} {word}")
        print(
            f"{sum(self.counts.values())} words, {len(self.counts)} different, in {self.files} "
            f"{'file' if self.files == 1 else 'files'}, {self.seconds:.2f} s",
            flush=True,
        )

    def as_json(self, top: int) -> dict[str, Any]:
        return {
            "line": self.line,
            "common": self.common(top),
            "words": sum(self.counts.values()),
            "different": len(self.counts),
            "files": self.files,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Mapped:
    """What a function of the user's made of the files that a line names."""

    line: str
    results: dict[Any, Any]
    files: int
    seconds: float

    def first(self, top: int) -> list[tuple[Any, Any]]:
        """Numbers by size, the largest first; anything else in the order of the results."""
        pairs = list(self.results.items())
        if all(isinstance(value, int | float) for value in self.results.values()):
            pairs.sort(key=lambda pair: -pair[1])
        return pairs[:top]

    def show(self, top: int) -> None:
        for key, value in self.first(top):
            if isinstance(value, int | float):
                print(f"{value:9} {shown(key)}")
            else:
                print(f"{shown(key)}\t{shown(value)}")
        print(
            f"{len(self.results)} {'key' if len(self.results) == 1 else 'keys'}, in {self.files} "
            f"{'file' if self.files == 1 else 'files'}, {self.seconds:.2f} s",
            flush=True,
        )

    def as_json(self, top: int) -> dict[str, Any]:
        return {
            "line": self.line,
            "results": [[plain(key), plain(value)] for key, value in self.first(top)],
            "keys": len(self.results),
            "files": self.files,
            "seconds": round(self.seconds, 3),
        }


@dataclass
class Text:
    """Something to read."""

    line: str
    text: str

    def show(self, _top: int) -> None:
        print(self.text, flush=True)

    def as_json(self, _top: int) -> dict[str, Any]:
        return {"line": self.line, "text": self.text}


@dataclass
class Transactions:
    """All that the server knows."""

    line: str
    transactions: tuple[TransactionStatus, ...]

    def show(self, _top: int) -> None:
        if self.transactions:
            console = make_console()
            console.print(transactions_table(self.transactions, console.width))
        else:
            print("no transactions", flush=True)

    def as_json(self, _top: int) -> dict[str, Any]:
        return {"line": self.line, "transactions": msgspec.to_builtins(self.transactions)}


@dataclass
class Statistics:
    """All peers: what the server knows of each, and what each says of itself."""

    line: str
    status: "PeerStatus"
    said: dict[str, dict[str, Any]]

    def rows(self) -> Iterator[tuple[MemberStatus, dict[str, Any] | None]]:
        for member in self.status.members:
            if not member.visitor:
                own = self.said.get(member.name)
                yield member, own or self.said.get(f"{member.name}#{member.peer[:6]}")

    def show(self, _top: int) -> None:
        table = make_table(
            *("peer", "role", "slots", "running", "holds"),
            *("python", "cores", "load", "memory free"),
        )
        for member, own in self.rows():
            table.add_row(*_known(member), *_told(own))
        visitors = sum(member.visitor for member in self.status.members)
        open_ = len(self.status.transactions)
        console = make_console()
        console.print(table)
        console.print(
            f"[bold]{escape(self.status.server)}[/] serves, term {self.status.term}; "
            f"{visitors} visiting, {open_} {'transaction' if open_ == 1 else 'transactions'}",
        )

    def as_json(self, _top: int) -> dict[str, Any]:
        peers = [msgspec.to_builtins(member) | (own or {}) for member, own in self.rows()]
        return {
            "line": self.line,
            "server": self.status.server,
            "term": self.status.term,
            "peers": peers,
        }


def _known(member: MemberStatus) -> tuple[str, ...]:
    return (
        escape(member.name),
        "serves" if member.serving else "standby",
        str(member.slots),
        str(member.running),
        decimal(member.held_bytes) if member.held_bytes else "-",
    )


def _told(own: dict[str, Any] | None) -> tuple[str, ...]:
    if own is None:
        return ("-",) * 4
    free = decimal(own["memory_free"])
    return (own["python"], str(own["cores"]), f"{own['load']:.2f}", free)
