"""The switch between the hosts of a test: carries their packets, or loses them as it is told.

Each host has a TUN device, whose other end is a file here; what is read from one is written to the
one that has the destination's address. Between any two hosts, in each direction, there may be a
``Way`` that loses or delays. So every fault is made of packets that do not come, or come late, as
on a real network: nothing is ever answered with a reset or an error. Works on every Linux that has
``/dev/net/tun``, whether or not its ``tc`` and packet filters can do these things.

A process of its own, so that what the tests compute does not slow the network down. It is told
what to do by lines of JSON on its standard input, answers each with one, and ends with its input;
with it go the devices.

Does not fragment, route between networks, or carry broadcasts.
"""

import contextlib
import fcntl
import heapq
import itertools
import json
import os
import random
import selectors
import struct
import sys
import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

TUN = "/dev/net/tun"
_TUNSETIFF = 0x400454CA
_TUN_WITHOUT_HEADER = 0x0001 | 0x1000
_PACKET_MAX = 1 << 16
_TCP = 6
_SYN, _RST, _SYN_OR_ACK = 0x02, 0x04, 0x12
_BURST = 64  # packets of one host before the next one's turn


@dataclass(slots=True)
class Way:
    """How packets fare from one host to another. ``carried`` are the bytes that arrived."""

    cut: bool = False
    loss: float = 0.0
    delay: float = 0.0
    carried: int = 0


@dataclass(slots=True)
class Plug:
    """One device. ``open_ports``: which others may connect to; None, all."""

    host: str
    fd: int
    open_ports: set[int] | None = None


@dataclass
class Switch:
    """Holds the devices and the ways between them."""

    plugs: dict[str, Plug] = field(default_factory=dict)
    table: dict[bytes, Plug] = field(default_factory=dict)
    ways: dict[tuple[str, str], Way] = field(default_factory=dict)
    late: list[tuple[float, int, Plug, bytes, Way]] = field(default_factory=list)
    mute: set[str] = field(default_factory=set)
    chance: random.Random = field(default_factory=lambda: random.Random(1))
    selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _numbers: "itertools.count[int]" = field(default_factory=itertools.count)

    # -- what it is told -------------------------------------------------------------------

    def obey(self, order: dict[str, Any]) -> Any:
        """Do what a line says; return the answer."""
        return getattr(self, f"do_{order.pop('do')}")(**order)

    def do_plug(self, device: str, host: str, addresses: list[str]) -> None:
        """Make a device; whoever told us moves it to its host."""
        fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        request = struct.pack("16sH22x", device.encode(), _TUN_WITHOUT_HEADER)
        fcntl.ioctl(fd, _TUNSETIFF, request)
        plug = self.plugs[device] = Plug(host, fd)
        self.table.update((ip_address(address).packed, plug) for address in addresses)
        self.selector.register(fd, selectors.EVENT_READ, plug)

    def do_unplug(self, host: str) -> None:
        """The host's devices are gone, with everything on the way to it."""
        gone = {device: plug for device, plug in self.plugs.items() if plug.host == host}
        for device, plug in gone.items():
            del self.plugs[device]
            self.selector.unregister(plug.fd)
            os.close(plug.fd)
        self.table = {a: plug for a, plug in self.table.items() if plug.host != host}
        self.late = [entry for entry in self.late if entry[2].host != host]
        heapq.heapify(self.late)

    def do_way(self, a: str, b: str, **change: Any) -> None:
        way = self.ways.setdefault((a, b), Way())
        for name, value in change.items():
            setattr(way, name, value)

    def do_open(self, host: str, ports: list[int] | None) -> None:
        for plug in self.plugs.values():
            if plug.host == host:
                plug.open_ports = None if ports is None else set(ports)

    def do_resets(self, host: str, pass_on: bool) -> None:
        """A host that boots again gets new devices, so it is the host that is remembered."""
        (self.mute.discard if pass_on else self.mute.add)(host)

    def do_carried(self, a: str, b: str) -> int:
        way = self.ways.get((a, b))
        return way.carried if way is not None else 0

    # -- packets ---------------------------------------------------------------------------

    def carry(self, plug: Plug) -> None:
        """Take what a host has sent and give it to whom it is for."""
        for _ in range(_BURST):
            try:
                packet = os.read(plug.fd, _PACKET_MAX)
            except OSError:
                return  # nothing more; or its device is gone, and will be unplugged
            self._pass(plug, packet)

    def _pass(self, plug: Plug, packet: bytes) -> None:
        ipv6 = packet[0] >> 4 == 6
        to = self.table.get(packet[24:40] if ipv6 else packet[16:20])
        if to is None:
            return
        way = self.ways.setdefault((plug.host, to.host), Way())
        if way.cut or (way.loss and self.chance.random() < way.loss):
            return
        if to.open_ports is not None and _knocks_at(packet, ipv6) not in (None, *to.open_ports):
            return
        if plug.host in self.mute and _flags(packet, ipv6) & _RST:
            return
        if way.delay:
            due = time.monotonic() + way.delay
            heapq.heappush(self.late, (due, next(self._numbers), to, packet, way))
        else:
            _give(to, packet, way)

    def give_late(self) -> float | None:
        """Give what has been delayed long enough; return how long the next has to wait."""
        while self.late:
            wait = self.late[0][0] - time.monotonic()
            if wait > 0:
                return wait
            _, _, to, packet, way = heapq.heappop(self.late)
            _give(to, packet, way)
        return None


def _give(to: Plug, packet: bytes, way: Way) -> None:
    with contextlib.suppress(OSError):  # its queue is full, or its device down: lost
        way.carried += os.write(to.fd, packet)


def _knocks_at(packet: bytes, ipv6: bool) -> int | None:
    """The port that this packet opens a TCP connection to, if it does."""
    if _flags(packet, ipv6) & _SYN_OR_ACK != _SYN:
        return None
    header = _ip_header_bytes(packet, ipv6)
    return int.from_bytes(packet[header + 2 : header + 4])


def _flags(packet: bytes, ipv6: bool) -> int:
    """The flags of TCP; none if it is something else."""
    protocol = packet[6] if ipv6 else packet[9]
    return packet[_ip_header_bytes(packet, ipv6) + 13] if protocol == _TCP else 0


def _ip_header_bytes(packet: bytes, ipv6: bool) -> int:
    return 40 if ipv6 else (packet[0] & 15) * 4


def main() -> None:
    """Carry packets until standard input ends."""
    switch = Switch()
    with contextlib.suppress(OSError):  # without privileges it is as slow as everyone
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    switch.selector.register(sys.stdin, selectors.EVENT_READ, None)
    while True:
        for key, _ in switch.selector.select(switch.give_late()):
            if isinstance(key.data, Plug):
                switch.carry(key.data)
                continue
            line = sys.stdin.readline()
            if not line:
                return
            print(json.dumps(switch.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
