"""What ``grid doctor`` learns by asking: who answers at the grid's ports, and who reaches whom.

Every candidate is greeted as by one who looks for a server. Then this process visits the grid,
dials the data port of each member, and has each member's worker dial its own: both ways are tried
from where they will be used. No clock is compared with another: only who answers counts.
"""

import asyncio
import socket
import sys
import time
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from grid.errors import TaskError, TransactionFailed
from grid.messages import PROTOCOL, Address, Hello, MemberStatus, Welcome
from peers.candidates import Candidates
from peers.cli.examination import Finding, Verdict
from peers.cli.options import ask
from peers.configuration import Configuration
from peers.security import Security
from peers.transport import DialFailed, dial

if TYPE_CHECKING:
    from peers.peer import Peer

DIAL_SECONDS = 2.0
"""For an answer over the slowest of ordinary networks."""

BACK_SECONDS = 8.0
"""For every peer to find a free slot, and dial."""

_FIXES = {
    "silent": "if that host is up, open TCP ports {ports} to it in every firewall between",
    "unreachable": "see that the two hosts are in one network: ping it; then its firewall",
    "wrong_key": "bring the same key to both (`grid key` shows a tag to compare)",
    "stranger": "end that program, or choose another --port for the grid",
    "refusal": "make both the same, as it says",
}


def probe_candidates(meant: Configuration, found: Candidates, security: Security) -> list[Finding]:
    """Greet every candidate, all at once; a finding for each that answers or should."""
    answers = asyncio.run(_greet(meant, found.addresses, security))
    return [_judge(meant, address, answers[address]) for address in found.addresses]


async def _greet(
    meant: Configuration, addresses: Iterable[Address], security: Security
) -> dict[Address, Welcome | DialFailed]:
    async def one(address: Address) -> Welcome | DialFailed:
        hello = _hello(meant, address, security, "probe")
        try:
            connection = await dial(address, security, hello, DIAL_SECONDS)
        except DialFailed as failed:
            return failed
        connection.close()
        return connection.welcome

    asked = tuple(addresses)
    return dict(zip(asked, await asyncio.gather(*map(one, asked)), strict=True))


def _hello(meant: Configuration, address: Address, security: Security, role: str) -> Hello:
    return Hello(
        protocol=PROTOCOL,
        grid=meant.settings.grid,
        peer=security.peer_id,
        name=meant.name,
        python=sys.version_info[:2],
        role=role,  # type: ignore[arg-type]
        intended=address,
    )


def _judge(meant: Configuration, address: Address, answer: Welcome | DialFailed) -> Finding:
    if isinstance(answer, Welcome):
        what = "serves" if answer.follows is None else "follows the server"
        return Finding("hosts", "ok", f"{address}: {answer.name} answers and {what}")
    if answer.kind == "refused":
        return Finding("hosts", "ok", f"{address}: the host answers, nobody serves there now")
    ports = meant.settings.ports
    fix = _FIXES[answer.kind].format(ports=f"{ports[0]}-{ports[-1]}")
    # A host that is down is no fault of the grid's; one that says no is somebody's mistake.
    verdict: Verdict = "warn" if answer.kind in ("silent", "unreachable") else "bad"
    return Finding("hosts", verdict, answer.reason, fix)


# ------------------------------------------------------------------------------ a grid is there


def examine_grid(peer: "Peer", meant: Configuration, security: Security) -> list[Finding]:
    """Look at the grid from inside, and at the ways between this host and each of its peers."""
    status = ask(peer)
    members = [m for m in status.members if m.peer != peer.id and not m.visitor]
    me = next((m for m in status.members if m.peer == peer.id), None)
    count = f"{len(members)} {'peer' if len(members) == 1 else 'peers'}"
    found = f"{status.server} serves at {status.address}, term {status.term}: {count}"
    findings = [Finding("grid", "ok", found)]
    if status.lacking:
        what = f"no quorum: {status.lacking} more must join before work is given"
        findings.append(Finding("grid", "bad", what, "start them, or lower --quorum everywhere"))
    findings += asyncio.run(_reach_all(meant, security, members))
    if me is not None and me.data is not None:
        findings += _reach_back(peer, me.data, members)
    return findings


async def _reach_all(
    meant: Configuration, security: Security, members: list[MemberStatus]
) -> list[Finding]:
    return list(await asyncio.gather(*(_reach(meant, security, member) for member in members)))


async def _reach(meant: Configuration, security: Security, member: MemberStatus) -> Finding:
    """Dial a member's data port, as to fetch from it."""
    if member.data is None:
        return Finding("there", "ok", f"{member.name} has no data port")
    hello = _hello(meant, member.data, security, "data")
    began = time.monotonic()
    try:
        connection = await dial(member.data, security, hello, DIAL_SECONDS, wanted=member.peer)
    except DialFailed as failed:
        what = f"{member.name} cannot be reached from here: {failed.reason}"
        return Finding("there", "warn", what, _open(member.data))
    connection.close()
    took = (time.monotonic() - began) * 1000
    return Finding("there", "ok", f"{member.name} is reached at {member.data}, {took:.0f} ms")


def _open(data: Address) -> str:
    return (
        f"its data goes through the server meanwhile, which is slower: open the way to {data.host} "
        "(any port: the system chooses it), or set --advertise there"
    )


def dials(host: str, port: int) -> str:
    """On a worker: try a way; return why it is none, or nothing."""
    try:
        socket.create_connection((host, port), DIAL_SECONDS).close()
    except OSError as error:
        return error.strerror or str(error) or type(error).__name__
    return ""


def _reach_back(peer: "Peer", mine: Address, members: list[MemberStatus]) -> list[Finding]:
    """Have every member that works dial this process's data port."""
    if not any(member.slots for member in members):
        return [Finding("back", "warn", "no peer has slots: none can try the way back")]
    try:
        said = peer.run_everywhere(partial(dials, mine.host, mine.port), timeout=BACK_SECONDS)
    except TimeoutError:
        what = f"not every peer had a free slot within {BACK_SECONDS:g} s to try the way back"
        return [Finding("back", "warn", what, "run it again when the grid is less busy")]
    except (TaskError, TransactionFailed) as error:
        return [Finding("back", "warn", f"the way back could not be tried: {error}")]
    return [_way_back(name, why, mine) for name, why in said.items()]


def _way_back(name: str, why: str, mine: Address) -> Finding:
    if not why:
        return Finding("back", "ok", f"{name} reaches this host at {mine}")
    what = f"{name} cannot reach this host at {mine}: {why}"
    fix = "open incoming TCP connections on this host, or set --advertise to where it is found"
    return Finding("back", "warn", what, f"{fix}; meanwhile data goes through the server")
