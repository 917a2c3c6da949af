"""What ``grid top`` shows, and what its keys do to that. Touches neither grid nor terminal."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from rich.console import Group, RenderableType
from rich.filesize import decimal
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from peers.cli.status import failover_line, show_seconds
from peers.cli.tables import RECORD_SHOWN, make_table
from peers.snapshot import PeerSeen, Snapshot, TransactionSeen

BAR_CELLS = 12

NAME_CELLS = 32
"""More of a name would leave no room for what goes on."""

FAILOVERS_SHOWN = 3

AROUND_TABLES = 12
"""Lines that are neither a peer's nor a transaction's: headings, room between, the line of keys."""

NARROW_COLUMNS = 100
"""With fewer, columns that one can do without are left out."""

DETAIL_LINES = 14

KEYS = "q quit  up/down select  enter details  c cancel  s sort peers  t sort transactions"

_STYLES = {"failed": "red", "cancelled": "yellow", "gone": "yellow", "awaited": "magenta"}


def _moved(peer: PeerSeen) -> int:
    return (peer.sent or 0) + (peer.received or 0)


PEER_ORDERS: dict[str, Callable[[PeerSeen], Any]] = {
    "joined": lambda _: 0,
    "name": lambda peer: peer.name,
    "busy": lambda peer: -(peer.busy or 0),
    "load": lambda peer: -(peer.load or 0.0),
    "memory": lambda peer: -(peer.memory or 0),
    "bytes": lambda peer: -_moved(peer),
}

TRANSACTION_ORDERS: dict[str, Callable[[TransactionSeen], Any]] = {
    "state": lambda _: 0,
    "name": lambda txn: txn.name or txn.record,
    "began": lambda txn: -txn.began,
    "left": lambda txn: txn.eta_seconds if txn.eta_seconds is not None else float("inf"),
}


@dataclass
class View:
    """What the person who looks has chosen."""

    peer_order: str = "joined"
    transaction_order: str = "state"
    selected: str = ""
    """A record."""
    details: bool = False
    asking: str = ""
    """The record that is to be cancelled if the next key is y."""
    said: str = ""
    """What came of the last key."""

    def press(self, key: str, snapshot: Snapshot) -> str:
        """Take a key; return ``quit``, or the record to cancel after ``cancel ``, or nothing."""
        self.said = ""
        if self.asking:
            return self._answered(key)
        match key:
            case "q":
                return "quit"
            case "up" | "k":
                self._move(snapshot, -1)
            case "down" | "j":
                self._move(snapshot, 1)
            case "enter":
                self.details = not self.details
            case "escape":
                self.details, self.selected = False, ""
            case "s":
                self.peer_order = _next(self.peer_order, PEER_ORDERS)
                self.said = f"peers by {self.peer_order}"
            case "t":
                self.transaction_order = _next(self.transaction_order, TRANSACTION_ORDERS)
                self.said = f"transactions by {self.transaction_order}"
            case "c":
                self._ask(snapshot)
            case _:
                pass  # a key that means nothing here
        return ""

    def _answered(self, key: str) -> str:
        record, self.asking = self.asking, ""
        if key == "y":
            self.said = "cancelling it"
            return f"cancel {record}"
        self.said = "not cancelled"
        return ""

    def _ask(self, snapshot: Snapshot) -> None:
        chosen = self.chosen(snapshot)
        if chosen is None:
            self.said = "select a transaction first"
        elif not chosen.runs:
            self.said = f"{label(chosen)} does not run: it is {chosen.state}"
        else:
            self.asking = chosen.record

    def _move(self, snapshot: Snapshot, by: int) -> None:
        records = [txn.record for txn in self.transactions(snapshot)]
        if not records:
            return
        if self.selected not in records:
            self.selected = records[0 if by > 0 else -1]
            return
        place = records.index(self.selected) + by
        self.selected = records[max(0, min(place, len(records) - 1))]

    def chosen(self, snapshot: Snapshot) -> TransactionSeen | None:
        """The selected transaction, if it is still known."""
        found = (txn for txn in snapshot.transactions if txn.record == self.selected)
        return next(found, None)

    def peers(self, snapshot: Snapshot) -> list[PeerSeen]:
        """Those that stay: visitors are only counted."""
        staying = [peer for peer in snapshot.peers if peer.role != "visitor"]
        return sorted(staying, key=PEER_ORDERS[self.peer_order])

    def transactions(self, snapshot: Snapshot) -> list[TransactionSeen]:
        return sorted(snapshot.transactions, key=TRANSACTION_ORDERS[self.transaction_order])


def _next(order: str, orders: dict[str, Any]) -> str:
    names = list(orders)
    return names[(names.index(order) + 1) % len(names)]


# ------------------------------------------------------------------------------ the frame


def frame(
    snapshot: Snapshot, view: View, now: float, width: int, height: int, *, keys: bool = False
) -> Group:
    """The whole picture, in so many lines where that can be; with a line of ``keys`` if there is
    somebody to press them."""
    detail = _detail(view.chosen(snapshot)) if view.details else None
    remarks = _remarks(snapshot, now)
    room = height - AROUND_TABLES - len(remarks) - (DETAIL_LINES if detail is not None else 0)
    peers, transactions = view.peers(snapshot), view.transactions(snapshot)
    for_transactions = max(2, min(len(transactions), room - min(len(peers), room // 2)))
    narrow = width < NARROW_COLUMNS
    parts: list[RenderableType] = [_headline(snapshot), *remarks]
    parts.append(_peers_table(peers, max(1, room - for_transactions), narrow=narrow))
    parts.append(_transactions_table(transactions, view, now, for_transactions, narrow=narrow))
    if detail is not None:
        parts.append(detail)
    if keys:
        parts.append(_foot(snapshot, view))
    return Group(*parts)


def _headline(snapshot: Snapshot) -> Text:
    line = Text(no_wrap=True, overflow="ellipsis")
    if not snapshot.server:
        return Text("no server has answered yet", style="bold red")
    working = [peer for peer in snapshot.peers if peer.slots]
    busy = sum(peer.busy or 0 for peer in working)
    visitors = sum(peer.role == "visitor" for peer in snapshot.peers)
    counts = f"{_count(len(snapshot.peers) - visitors, 'peer')}, "
    counts += f"{busy} of {snapshot.slots} slots busy"
    counts += f", {_count(visitors, 'visitor')}" if visitors else ""
    if snapshot.sought_seconds is not None:
        line.append("no server", style="bold red")
        line.append(f": looking for one for {show_seconds(snapshot.sought_seconds)}; before: ")
    line.append(snapshot.server, style="bold")
    line.append(f" serves at {snapshot.address or '?'}, term {snapshot.term}: {counts}")
    return line


def _count(count: int, what: str) -> str:
    return f"{count} {what if count == 1 else what + 's'}"


def _remarks(snapshot: Snapshot, now: float) -> list[Text]:
    lines = []
    for failover in snapshot.failovers[-FAILOVERS_SHOWN:]:
        ago = f", {_duration(now - failover.at)} ago" if failover.at is not None else ""
        lines.append(Text(failover_line(failover) + ago, style="magenta"))
    if snapshot.lacking:
        lines.append(Text(f"no quorum: {snapshot.lacking} more must join", style="red"))
    lines += [Text(f"warning: {text}", style="yellow") for text in snapshot.warnings]
    return lines


def _peers_table(peers: list[PeerSeen], room: int, *, narrow: bool) -> Table:
    moved = () if narrow else ("received", "sent", "holds")
    table = _unfolded("peer", "role", "slots", "busy", "load", "memory", *moved)
    for peer in peers[:room]:
        role = f"{peer.role}, leaving" if peer.leaving else peer.role
        role += f" through {peer.through}" if peer.through else ""
        table.add_row(
            escape(peer.name),
            escape(role),
            str(peer.slots),
            "-" if peer.busy is None else str(peer.busy),
            "-" if peer.load is None else f"{peer.load:.2f}",
            _bytes(peer.memory),
            *(() if narrow else map(_bytes, (peer.received, peer.sent, peer.holds))),
            style="bold" if peer.role == "serves" else "",
        )
    if len(peers) > room:
        table.add_row(f"... and {len(peers) - room} more")
    return table


def _transactions_table(
    transactions: list[TransactionSeen], view: View, now: float, room: int, *, narrow: bool
) -> Table:
    goes = ("left", "took") if narrow else ("rate", "left", "took", "owners")
    table = _unfolded("", "transaction", "state", "phase", "done", *goes)
    table.columns[1].max_width = NAME_CELLS // 2 if narrow else NAME_CELLS
    records = [txn.record for txn in transactions]
    place = records.index(view.selected) if view.selected in records else 0
    first = max(0, min(place - room // 2, len(transactions) - room))
    for txn in transactions[first : first + room]:
        chosen = txn.record == view.selected
        table.add_row(
            ">" if chosen else " ",
            escape(label(txn)),
            txn.state,
            *progress(txn, narrow=narrow),
            _duration((txn.ended or now) - txn.began),
            *(() if narrow else (escape(", ".join(txn.owners)) or "-",)),
            style="reverse" if chosen else _STYLES.get(txn.state, ""),
        )
    if len(transactions) > room:
        table.add_row("", f"{len(transactions)} in all")
    return table


def _unfolded(*headings: str) -> Table:
    """A table each of whose rows is one line, whatever the width."""
    table = make_table(*headings)
    for column in table.columns:
        column.no_wrap = True
    return table


def label(txn: TransactionSeen) -> str:
    """Its name, or the beginning of its record."""
    return txn.name or txn.record[:RECORD_SHOWN]


def progress(txn: TransactionSeen, *, narrow: bool) -> tuple[str, ...]:
    """Which phase, how far as a bar, how fast (unless narrow), and how long it will still take."""
    if not txn.runs:
        return "-", f"{txn.items_done}/{txn.items_total}", *(() if narrow else ("-",)), "-"
    reducing = txn.phase == "reduce"
    done = txn.partitions_done if reducing else txn.items_done
    total = txn.partitions_total if reducing else txn.items_total
    rate = "-" if txn.rate is None else f"{txn.rate:.1f}/s"
    left = "-" if txn.eta_seconds is None else _duration(txn.eta_seconds)
    cells = BAR_CELLS // 2 if narrow else BAR_CELLS
    shown = f"{bar(done, total, cells)} {done}/{total}"
    return txn.phase or "-", shown, *(() if narrow else (rate,)), left


def bar(done: int, total: int, cells: int = BAR_CELLS) -> str:
    """So much of a bar as is done; full only if all is."""
    filled = cells * done // total if total else 0
    return "#" * filled + "." * (cells - filled)


def _detail(txn: TransactionSeen | None) -> Text | None:
    """Why the selected transaction failed, or by whom its tasks were run."""
    if txn is None:
        return None
    text = Text(overflow="fold")
    text.append(f"{label(txn)}: record {txn.record[:RECORD_SHOWN]}, {txn.state}, ")
    text.append(f"{txn.tasks_running} tasks running, {txn.tasks_done} done\n")
    if txn.failure is None:
        by_peer: dict[str, float] = {}
        for task in txn.tasks:
            by_peer[task.peer] = by_peer.get(task.peer, 0.0) + task.ended - task.began
        shares = [f"{peer} {show_seconds(seconds)}" for peer, seconds in by_peer.items()]
        text.append(f"latest tasks, by peer: {', '.join(shares) or 'none yet'}")
        return text
    text.append(txn.failure.message + "\n", style="red")
    lines = txn.failure.traceback.splitlines()[-(DETAIL_LINES - 4) :]
    text.append("\n".join(lines))
    return text


def _foot(snapshot: Snapshot, view: View) -> Text:
    if view.asking:
        chosen = view.chosen(snapshot)
        name = label(chosen) if chosen is not None else view.asking[:RECORD_SHOWN]
        return Text(f"cancel {name} for everyone? y/n", style="bold red")
    line = Text(no_wrap=True, overflow="ellipsis")
    line.append(f"{view.said}  " if view.said else "", style="bold")
    return line.append(KEYS, style="dim")


def _bytes(count: int | None) -> str:
    return decimal(count) if count else "-"


def _duration(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return show_seconds(seconds) if seconds < 10 else str(timedelta(seconds=round(seconds)))
