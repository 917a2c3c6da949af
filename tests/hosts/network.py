"""Several hosts on one machine, and a network between them that can be broken in every way.

A ``Host`` is a network namespace (and a mount namespace, for ``/etc/hosts``) with a loopback and a
device for each net it is on; a home, a spool and an environment of its own; and processes, of which
each ``Member`` runs one peer. All share a key. The hosts' packets go through one ``switch`` (see
there), which loses or delays them as the ``Network`` is told:

    network = Network(folder)               # the fixture ``network`` gives one, and ends it
    a, b, c = network.hosts(3)              # 10.77.0.1, fd77::1 and so on; names h1, h2, h3
    network.hosts(1, nets=(0, 1))           # one with two interfaces: 10.77.0.4 and 10.77.1.4
    network.name("grid", a.address, ...)    # a name that every host knows from now on

    m = a.start("one", hosts=..., slots=1)  # a peer; ``begin`` does not wait until it has joined
    m.ask("follows")                        # or whatever a peer can be told: ``agent.Agent.do_*``
    m.freeze(), m.thaw(), m.kill(), m.leave()                    # as for any ``live`` process
    a.run("script", text)                   # or any script, in the host

    network.cut(a, b)                       # nothing of a's reaches b; the other way is as it was
    network.part(a, b)                      # both ways
    network.cut_host(a)                     # from and to everyone
    network.split([a, b], [c])              # two halves
    network.delay(a, b, 0.1), network.loss(a, b, 0.05)           # each way, seconds and share
    network.only_open(a, 11235)             # others may connect to these ports of a's only; a may
                                            # connect everywhere (a firewall); none: only outwards
    network.no_resets(a)                    # nobody hears that a does not know a connection
    network.mend()                          # all of that is over
    network.carried(a, b)                   # bytes that went from a to b so far

    a.die()                                 # no FIN gets out: network first, then every process
    a.boot()                                # the same host again, empty

What is cut looks as it does on a real network: packets do not come, and nobody is told. Everything
belongs to processes that end with the test, however that ends: holders of namespaces and the switch
end with their standard input, devices with the switch, namespaces with the last process in them.

Needs root, namespaces, iproute2 and ``/dev/net/tun``; ``missing()`` says which is not there.
"""

import itertools
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Sequence
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from tests.hosts.switch import TUN
from tests.live.harness import MARK, TOP, WAIT_SECONDS, Process, command_of, marked, until

PORT = 11235
LEAVE_SECONDS = 10.0
MTU = 9000  # one packet for what a heartbeat or a small task says, and few for a segment

_UNSHARE = ("unshare", "--net", "--mount", "--propagation=private")
_HOLDER = 'mount --bind "$0" /etc/hosts && ip link set lo up && echo held && exec cat'
_TOOLS = ("ip", "unshare", "nsenter", "mount")


@cache
def missing() -> str:
    """What this machine lacks for having hosts; empty if nothing."""
    if os.geteuid() != 0:
        return "hosts need network namespaces, which only root may make"
    tools = [tool for tool in _TOOLS if shutil.which(tool) is None]
    if tools:
        return f"hosts need {', '.join(tools)} (iproute2, util-linux)"
    if not Path(TUN).exists():
        return f"hosts need {TUN}"
    tried = subprocess.run(
        ["unshare", "--net", "--mount", "ip", "tuntap", "add", "probe0", "mode", "tun"],
        capture_output=True,
        text=True,
    )
    return "" if tried.returncode == 0 else f"no namespaces or devices here: {tried.stderr.strip()}"


class Member(Process):
    """One peer on a host (``agent``)."""

    def __init__(self, host: "Host", name: str, settings: dict[str, Any]) -> None:
        given = {"name": name, "slots": 1, **settings}
        command = [*host.inside, sys.executable, "-W", "error", "-m", "tests.hosts.agent"]
        super().__init__(
            host, name, [*command, json.dumps(given)], cwd=host.folder, env=host.environment
        )
        self.host = host
        self._numbers = itertools.count(1)

    def ask(self, what: str, **given: Any) -> Any:
        """Ask or tell it something; return its answer, or raise ``RuntimeError`` with its error."""
        number = next(self._numbers)
        self.tell(json.dumps([number, what, given]))
        said = json.loads(self.said(f"{number}:", WAIT_SECONDS + given.get("timeout", 0.0)))
        if "error" in said:
            raise RuntimeError(said["error"])
        return said["answer"]

    def joined(self) -> str:
        """Wait until it has joined or serves; return whom it follows and the term."""
        return self.said("joined")


class Host:
    """One host of a network; ``Network.hosts`` makes them."""

    def __init__(self, network: "Network", number: int, nets: tuple[int, ...]) -> None:
        self.network = network
        self.number = number
        self.nets = nets
        self.name = f"h{number}"
        self.addresses = [f"10.77.{net}.{number}" for net in nets]
        self.addresses6 = [str(ip_address(f"fd77:0:0:{net:x}::{number:x}")) for net in nets]
        self.folder = network.folder / self.name
        self.folder.mkdir()
        self.mark = secrets.token_hex(8)
        self.environment = self._environment()
        self.processes: list[Process] = []
        self._boots = itertools.count(1)
        self._holder: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Its first IPv4 address."""
        return self.addresses[0]

    @property
    def address6(self) -> str:
        """Its first IPv6 address."""
        return self.addresses6[0]

    @property
    def inside(self) -> list[str]:
        """What a command begins with to run on this host, under the same process id."""
        assert self._holder is not None, f"{self.name} is dead"
        return ["nsenter", f"--target={self._holder.pid}", "--net", "--mount"]

    def _environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GRID_", MARK))}
        return kept | {
            "HOME": str(self.folder),
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "GRID_SPOOL": str(self.folder / "spool"),
            "GRID_KEY_FILE": str(self.network.key_file),
            "PYTHONPATH": str(TOP),
            MARK: self.mark,
        }

    # -- peers and scripts -----------------------------------------------------------------

    def begin(self, name: str, **settings: Any) -> Member:
        """Begin a peer with one slot unless told otherwise."""
        member = Member(self, name, settings)
        self.processes.append(member)
        return member

    def start(self, name: str, **settings: Any) -> Member:
        """Begin a peer and wait until it has joined or serves."""
        member = self.begin(name, **settings)
        member.joined()
        return member

    def run(self, name: str, script: str, *arguments: str) -> Process:
        """Run a Python script here."""
        path = self.folder / f"{name}.py"
        path.write_text(textwrap.dedent(script))
        command = [*self.inside, sys.executable, "-W", "error", str(path), *arguments]
        process = Process(self, name, command, cwd=self.folder, env=self.environment)
        self.processes.append(process)
        return process

    # -- life ------------------------------------------------------------------------------

    def boot(self) -> None:
        """Bring the host up: nothing runs on it, its disk is as it was."""
        assert self._holder is None, f"{self.name} is up"
        self._holder = subprocess.Popen(
            [*_UNSHARE, "sh", "-c", _HOLDER, str(self.network.names)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, MARK: self.network.mark},
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"held\n", f"{self.name} could not be made"
        boot = next(self._boots)
        for net, address, address6 in zip(self.nets, self.addresses, self.addresses6, strict=True):
            device = f"g{self.network.mark[:6]}{self.number}.{net}.{boot}"
            self.network.order("plug", device=device, host=self.name, addresses=[address, address6])
            _do(["ip", "link", "set", device, "netns", str(self._holder.pid)])
            lines = [
                f"link set {device} mtu {MTU}",
                f"addr add {address}/24 dev {device}",
                f"addr add {address6}/64 dev {device} nodad",
                f"link set {device} up",
            ]
            _do([*self.inside, "ip", "-batch", "-"], "\n".join(lines))

    def die(self) -> None:
        """The host loses power: not one packet more gets out, and nothing that ran on it lives."""
        if self.network.works:
            self.network.order("unplug", host=self.name)
        holder, self._holder = self._holder, None
        while pids := marked(self.mark):
            for pid in pids:
                _kill(pid)
        for process in self.processes:
            process.process.wait(WAIT_SECONDS)
        if holder is not None:
            _end(holder)


class Network:
    """Hosts, and what is between them. ``close`` it once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.key_file = folder / "key"
        self.key_file.touch(mode=0o600)
        self.key_file.write_text(secrets.token_hex(32) + "\n")
        self.names = folder / "names"
        self.names.write_text("127.0.0.1 localhost\n::1 localhost\n")
        self._all: list[Host] = []
        self._told: set[tuple[str, str]] = set()
        self._switch = subprocess.Popen(
            [sys.executable, "-m", "tests.hosts.switch"],
            cwd=TOP,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, MARK: self.mark},
        )

    def order(self, do: str, **given: Any) -> Any:
        """Tell the switch; return its answer once it is done."""
        assert self._switch.stdin is not None
        assert self._switch.stdout is not None
        self._switch.stdin.write(json.dumps({"do": do, **given}) + "\n")
        self._switch.stdin.flush()
        line = self._switch.stdout.readline()
        assert line, "the switch has ended; its error is above"
        return json.loads(line)

    # -- hosts -----------------------------------------------------------------------------

    def hosts(self, count: int, nets: tuple[int, ...] = (0,)) -> list[Host]:
        """Make so many hosts more, on these nets."""
        made: list[Host] = []
        for _ in range(count):
            host = Host(self, len(self._all) + 1, nets)
            self._all.append(host)
            host.boot()
            self.name(host.name, *host.addresses)
            made.append(host)
        return made

    def name(self, name: str, *addresses: str) -> None:
        """Have ``name`` mean these addresses, on every host, from now on; none: nothing."""
        lines = self.names.read_text().splitlines()
        lines = [line for line in lines if line.split()[1] != name]
        lines += [f"{address} {name}" for address in addresses]
        self.names.write_text("".join(f"{line}\n" for line in lines))

    # -- faults ----------------------------------------------------------------------------

    def _way(self, a: Host, b: Host, **change: Any) -> None:
        self._told.add((a.name, b.name))
        self.order("way", a=a.name, b=b.name, **change)

    def cut(self, a: Host, b: Host) -> None:
        """Nothing from ``a`` reaches ``b``; the other way is as it was."""
        self._way(a, b, cut=True)

    def part(self, a: Host, b: Host) -> None:
        """Nothing passes between them."""
        self.cut(a, b)
        self.cut(b, a)

    def cut_host(self, a: Host) -> None:
        """Nothing passes between ``a`` and anyone."""
        self.split([a], [host for host in self._all if host is not a])

    def split(self, some: Iterable[Host], others: Sequence[Host]) -> None:
        """Nothing passes between the ones and the others."""
        for a in some:
            for b in others:
                self.part(a, b)

    def delay(self, a: Host, b: Host, seconds: float) -> None:
        """Every packet between them takes so long, each way."""
        self._way(a, b, delay=seconds)
        self._way(b, a, delay=seconds)

    def loss(self, a: Host, b: Host, share: float) -> None:
        """So many of the packets between them are lost."""
        self._way(a, b, loss=share)
        self._way(b, a, loss=share)

    def only_open(self, host: Host, *ports: int) -> None:
        """Others may connect to these ports of the host's only, whatever it connects to itself."""
        self.order("open", host=host.name, ports=ports)

    def no_resets(self, host: Host) -> None:
        """What the host answers to connections that it does not know gets nowhere."""
        self.order("resets", host=host.name, pass_on=False)

    def mend(self) -> None:
        """All faults are over."""
        for a, b in sorted(self._told):
            self.order("way", a=a, b=b, cut=False, loss=0.0, delay=0.0)
        self._told.clear()
        for host in self._all:
            self.order("open", host=host.name, ports=None)
            self.order("resets", host=host.name, pass_on=True)

    def carried(self, a: Host, b: Host) -> int:
        """How many bytes have gone from ``a`` to ``b``."""
        count: int = self.order("carried", a=a.name, b=b.name)
        return count

    # -- the end ---------------------------------------------------------------------------

    def close(self) -> None:
        """End every process, namespace and device; then tell what peers left running."""
        left: list[str] = []
        try:
            if self.works:
                self.mend()
            left = self._left_running()
        finally:
            for host in self._all:
                host.die()
            for process in self._processes():
                process.end()
            _end(self._switch)
        assert not left, f"left behind: {left}"

    @property
    def works(self) -> bool:
        """The switch lives, as it does unless it was told what it cannot do."""
        return self._switch.poll() is None

    def _left_running(self) -> list[str]:
        """Have everyone leave; tell who does not."""
        for process in self._processes():
            if process.process.poll() is None:
                process.thaw()
                process.leave()
        try:
            until("all processes are gone", lambda: not self._running(), LEAVE_SECONDS)
        except AssertionError:
            return [f"process {pid}: {command_of(pid)}" for pid in self._running()]
        return []

    def _processes(self) -> list[Process]:
        return [process for host in self._all for process in host.processes]

    def _running(self) -> list[int]:
        return [pid for host in self._all for pid in marked(host.mark)]


def _do(command: list[str], text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert done.returncode == 0, f"{command}: {done.stderr}"


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass  # it has ended by itself meanwhile


def _end(process: "subprocess.Popen[Any]") -> None:
    """End what ends with its input."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait(WAIT_SECONDS)
