"""``grid doctor``: what may keep this host from being part of the grid, and what to do about it."""

import argparse
import logging
import os
from collections.abc import Iterator
from typing import Any

import msgspec
from rich.console import Console
from rich.text import Text

from grid.errors import CannotJoin, GridError
from peers.addresses import listen_hosts
from peers.candidates import Resolver
from peers.cli.examination import (
    Finding,
    examine_folders,
    examine_key,
    examine_limits,
    examine_names,
    examine_ports,
    examine_variables,
    examine_versions,
    is_alone,
)
from peers.cli.options import add_command, add_grid_options, configuration, visit
from peers.cli.printing import add_json_option, print_json
from peers.cli.reachability import examine_grid, probe_candidates
from peers.cli.tables import make_console
from peers.configuration import Configuration
from peers.security import issue

_STYLES = {"ok": "green", "warn": "yellow", "bad": "bold red"}

_DESCRIPTION = """\
Look for what may keep this host from being part of the grid. Give the flags, or set the
variables, that `grid up` has here, and run it on each host:

  grid doctor
  grid doctor --hosts node1,node2,node3 --key-file grid.key
  grid doctor --json | jq '.[] | select(.verdict != "ok")'

What is looked at, each with a verdict (ok, warn, bad) and what to do:

  versions   of peergrid, its protocol and Python (others must have the same Python 3.x)
  variables  GRID_* that are misspelt
  key        where it comes from, who may read or replace it; a tag to compare with others
  names      what --hosts means here, and whether this host is one of them
  ports      whether the well-known port and its fallbacks may be had here
  spool      whether there is a private place with room for outputs; the same for the
             journal of detached jobs
  limits     open files
  hosts      who answers at each address where a server may be
  grid       who serves, if anybody
  there      whether each peer's data can be fetched from here
  back       whether each peer can fetch from here; tried by its own workers

A warning costs speed or safety, or may be meant so. The exit status is 1 if anything
is bad.
"""


def add(commands: Any) -> None:
    """Describe the arguments."""
    parser = add_command(commands, "doctor", run, _DESCRIPTION)
    add_json_option(parser, "a JSON list of findings")
    add_grid_options(parser)


def run(args: argparse.Namespace) -> int:
    """Look at everything, and tell it as it is found."""
    if not args.verbose:
        logging.getLogger("peers").setLevel(logging.ERROR)  # what it warns of is found below
    console = make_console()
    findings: list[Finding] = []
    for finding in examine(args, configuration(args)):
        findings.append(finding)
        if not args.json:
            show(console, finding)
    bad = sum(finding.verdict == "bad" for finding in findings)
    if args.json:
        print_json([msgspec.to_builtins(finding) for finding in findings])
    else:
        warned = sum(finding.verdict == "warn" for finding in findings)
        console.print(f"{bad} bad, {warned} to think about, {len(findings) - bad - warned} ok")
    return 1 if bad else 0


def examine(args: argparse.Namespace, meant: Configuration) -> Iterator[Finding]:
    """Look at this host, then ask around."""
    yield examine_versions()
    yield from examine_variables(os.environ)
    finding, key = examine_key(meant)
    yield finding
    listening = listen_hosts(meant.listen, loopback_only=meant.loopback_only)
    found = Resolver(meant, listening).resolve()
    yield from examine_names(meant, found)
    yield from examine_ports(meant)
    yield from examine_folders(meant)
    yield examine_limits()
    if key is None:
        return  # nobody would talk to us
    security = issue(meant.settings.grid, key)
    probed = probe_candidates(meant, found, security)
    yield from probed
    try:
        with visit(args) as peer:
            yield from examine_grid(peer, meant, security)
    except CannotJoin as error:
        yield _no_grid(meant, probed, error)


def _no_grid(meant: Configuration, probed: list[Finding], error: GridError) -> Finding:
    """Nobody serves: nothing is wrong with that, unless nobody else can be reached either."""
    cut_off = not is_alone(meant) and not any(finding.verdict == "ok" for finding in probed)
    first, _, _ = str(error).partition(". ")
    if cut_off:
        return Finding("grid", "bad", "no host of the grid answers at all", "see `hosts` above")
    return Finding("grid", "warn", first, "start a peer with `grid up`")


def show(console: Console, finding: Finding) -> None:
    """One finding, and below it what to do."""
    line = Text(overflow="fold")
    line.append(f"{finding.verdict:<5}", style=_STYLES[finding.verdict])
    line.append(f"{finding.check:<9} {finding.found}")
    console.print(line)
    if finding.fix:
        console.print(Text(f"{'':<15}fix: {finding.fix}", overflow="fold"))
