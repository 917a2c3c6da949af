"""The command line without a grid: flags, variables, bad input, loading jobs, writing results."""

import io
import json
import logging
import os
import pickle
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs
from rich.console import Console

from grid.errors import BadJob, BadKey, Misuse
from grid.job import Job
from grid.messages import Address, MemberStatus, TransactionStatus
from peers.cli import printing
from peers.cli.down import may_be_there
from peers.cli.loading import load_job
from peers.cli.main import _parser, main
from peers.cli.options import PEER_SETTINGS, configuration, given
from peers.cli.status import transaction_as_json
from peers.cli.submit import with_modules
from peers.cli.tables import transactions_table
from peers.configuration import configure

LOOPBACK = "127.0.0.1"


@pytest.fixture(autouse=True)
def _restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """``main`` sets up logging and a signal handler, as a command may."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    handler = signal.getsignal(signal.SIGTERM)
    for name in ("PASSWORD", "KEY_FILE", "PORT", "HOSTS", "GRID", "SLOTS", "NAME"):
        monkeypatch.delenv(f"GRID_{name}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path[:])
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name in ("grid", "peers"):
        logging.getLogger(name).setLevel(logging.NOTSET)
    signal.signal(signal.SIGTERM, handler)


def test_modules_to_send_are_added_to_the_job() -> None:
    job = Job(
        [1, 2], lambda k, v: [(k, v)], reducefn=lambda k, vs: sum(vs), ship="re", partitions=3
    )
    more = with_modules(job, "json, csv")
    assert more.ship == ("re", "json", "csv")
    assert (more.run(), more.partitions) == (job.run(), 3)


def test_down_takes_only_this_hosts_word_for_it_that_a_peer_has_gone() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        port = door.getsockname()[1]
        here = MemberStatus("id", "p", "host", 1, 0, False, False, 0, data=Address(LOOPBACK, port))
        assert may_be_there(here)
    assert not may_be_there(here)
    assert may_be_there(structs.replace(here, data=None))
    assert may_be_there(structs.replace(here, data=Address("192.0.2.1", port)))


@pytest.mark.parametrize("width", [200, 99, 80, 60, 40])
def test_a_narrow_terminal_leaves_columns_out_and_the_rest_whole(width: int) -> None:
    txn = TransactionStatus(
        "0123456789abcdef",
        "[b]words",
        "running",
        ("laptop-of-somebody",),
        5,
        100,
        0,
        256,
        True,
        9.0,
    )
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(transactions_table([txn], width))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert all(text in shown for text in ("0123456789ab", "[b]words", "running"))
    assert "…" not in shown
    assert ("owners" in shown, "began" in shown) == (width >= 80, width >= 200)


def test_transactions_for_scripts_have_null_for_times_that_nobody_knows() -> None:
    told = transaction_as_json(TransactionStatus("r", "", "running", (), 0, 1, 0, 1, known_at=7.0))
    assert (told["began"], told["ended"]) == (None, None)
    assert "known_at" not in told  # by a clock of the server's own


# ------------------------------------------------------------------------------ flags


def test_a_flag_wins_over_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRID_PORT", "2000")
    monkeypatch.setenv("GRID_HOSTS", "a,b")
    meant = configuration(_parser().parse_args(["status", "--port", "3000"]))
    assert meant.settings.port == 3000
    assert meant.hosts == ("a", "b")


def test_up_takes_the_settings_of_a_peer() -> None:
    args = _parser().parse_args(
        ["up", "--slots", "0", "--name", "n", "--workers", "thread", "--hosts", "x,y"]
    )
    settings = given(args, *PEER_SETTINGS)
    assert settings == {"slots": 0, "name": "n", "workers": "thread", "hosts": "x,y"}
    assert configure(settings).settings.slots == 0


def test_the_name_of_a_submission_is_not_the_name_of_a_peer() -> None:
    args = _parser().parse_args(["submit", "m:job", "--name", "count"])
    assert given(args) == {}
    assert args.name == "count"


def test_a_password_comes_from_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("correct horse\nnot this\n")
    args = _parser().parse_args(["up", "--password-file", str(path)])
    path.chmod(0o644)
    with pytest.raises(BadKey, match="chmod 600"):
        given(args)
    path.chmod(0o600)
    assert given(args) == {"password": "correct horse"}
    path.write_text("\n")
    with pytest.raises(BadKey, match="first line"):
        given(args)


COMMANDS = (
    *("up", "down", "status", "top", "jobs", "submit", "logs", "result", "cancel", "repl", "key"),
    "doctor",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example_and_every_command_speaks_json(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    told = capsys.readouterr().out
    examples = [line for line in told.splitlines() if re.match(rf"  .*\bgrid {command}\b", line)]
    assert examples, "no example"
    assert "--json" in told
    assert max(map(len, told.splitlines())) <= 90
    main_help = _parser().format_help()
    assert f"  grid {command} " in main_help
    assert "exit status" in main_help


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("", "say which command"),
        ("-v", "say which command"),
        ("stauts", "no command 'stauts'; did you mean 'status'?"),
        ("-v sumbit x:y", "no command 'sumbit'; did you mean 'submit'?"),
        ("--verson", "did you mean '--version'?"),
        ("--port 7 status", "flags come after the command, as in `grid status --port"),
        ("status --hsots x", "'--hsots'; did you mean '--hosts'?"),
        ("status --por 1", "'--por'; did you mean '--port'?"),
        ("status extra", "'extra'"),
        ("status --port many", "invalid int value: 'many'"),
        ("status --port 99999", "use a number from 1 to 65535"),
        ("up --slots -1", "slots=-1"),
        ("up --workers fork", "'fork'"),
        ("up --hosts node1", "grid key --new"),
        ("status --key-file nowhere", "cannot read the key file"),
        ("status --password-file nowhere", "cannot read the password file"),
        ("submit", "MODULE:NAME"),
        ("submit wordcount", "write MODULE:NAME"),
        ("submit jobs/wordcount.py:job", "name the module, as in wordcount:job"),
        ("submit nowhere:job", "no module nowhere in"),
        ("submit json:dumps --output x.csv", ".json, .pickle"),
        ("submit json:dumps --output no/x.json", "not a folder to write in"),
        ("submit json:dumps --limit -1", "--limit -1"),
        ("result", "NAME"),
        ("result words --limit -1", "--limit -1"),
        ("result words --output x.csv", ".json, .pickle"),
        ("cancel", "NAME|RECORD"),
        ("key --new x --show", "not allowed with"),
    ],
)
def test_bad_input_is_one_clear_error(
    line: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(line.split())
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    shown = capsys.readouterr()
    assert code == 2
    assert said in shown.err
    assert shown.err.startswith("grid")
    assert "Traceback" not in shown.err
    assert shown.err.count("\n") <= 3
    assert shown.out == ""


@pytest.mark.parametrize("line", ["-vv result --limit -1 x", "result -vv --limit -1 x"])
def test_verbose_is_heard_before_and_after_the_command(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(line.split()) == 2
    assert "--limit -1" in capsys.readouterr().err
    assert logging.getLogger("peers").level == logging.DEBUG


def test_help_is_a_command_too(capsys: pytest.CaptureFixture[str]) -> None:
    for line, usage in (("help", "usage: grid [-h]"), ("help jobs", "usage: grid jobs")):
        with pytest.raises(SystemExit) as ended:
            main(line.split())
        assert ended.value.code == 0
        assert capsys.readouterr().out.startswith(usage)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_teaches(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert "usage: grid" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_our_own_mistake_is_not_shown_as_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oh")

    monkeypatch.setattr("peers.cli.key.find_key", broken)
    assert main(["key"]) == 1
    shown = capsys.readouterr().err
    assert "our mistake: ZeroDivisionError: oh" in shown
    assert "Traceback" not in shown


# ------------------------------------------------------------------------------ key


def test_key_tells_where_and_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key"]) == 0
    own = capsys.readouterr().out
    assert str(tmp_path / "config" / "peergrid" / "key") in own
    assert main(["key", "--new", "k"]) == 0
    assert str(tmp_path / "k") in capsys.readouterr().out
    assert main(["key", "--new", "k"]) == 2
    assert "was left as it is" in capsys.readouterr().err
    assert main(["key", "--key-file", "k", "--hosts", "a,b"]) == 0
    shared = capsys.readouterr().out
    secret = (tmp_path / "k").read_text().strip()
    assert secret not in shared
    assert [line for line in own.splitlines() if line.startswith("tag")] != [
        line for line in shared.splitlines() if line.startswith("tag")
    ]
    assert main(["key", "--key-file", "k", "--show"]) == 0
    assert capsys.readouterr().out == secret + "\n"


# ------------------------------------------------------------------------------ jobs


MODULE = """
from peers import Job

def f(k, v):
    yield k, v

job = Job([1], f)
number = 3

def make():
    return job

def broken():
    return 1 / 0
"""


@pytest.fixture
def module(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "cli_jobs_for_test.py").write_text(MODULE)
    (tmp_path / "cli_broken_for_test.py").write_text("import nowhere_at_all\n")
    yield "cli_jobs_for_test"
    for name in ("cli_jobs_for_test", "cli_broken_for_test"):
        sys.modules.pop(name, None)


def test_a_job_or_what_makes_one_is_found(module: str) -> None:
    assert load_job(f"{module}:make") is load_job(f"{module}:job")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("cli_jobs_for_test:jbo", "did you mean 'job'"),
        ("cli_jobs_for_test:xyz", "its jobs are: job"),
        ("cli_jobs_for_test:number", "is int, not a Job"),
        ("cli_jobs_for_test:Job", "is type, not a Job"),
        ("cli_jobs_for_test:broken", "return 1 / 0"),
        ("cli_broken_for_test:job", "import nowhere_at_all"),
        ("cli_jobs_for_test.sub:job", "no module cli_jobs_for_test.sub in"),
    ],
)
@pytest.mark.usefixtures("module")
def test_what_is_no_job_is_said(spec: str, said: str) -> None:
    with pytest.raises(BadJob) as caught:
        load_job(spec)
    assert said in str(caught.value)
    assert "loading.py" not in str(caught.value)


# ------------------------------------------------------------------------------ results

RESULTS: list[tuple[Any, Any]] = [
    ("a", 1),
    ("b\tc", [1, {2: 3}]),
    ((1, None), {"x": {1.5}}),
    (b"raw", object),
]


def test_lines_keep_to_their_columns() -> None:
    file = io.StringIO()
    assert printing.write_lines(file, RESULTS) == 4
    assert file.getvalue().splitlines()[:2] == ["a\t1", "'b\\tc'\t[1, {2: 3}]"]
    file = io.StringIO()
    assert printing.write_lines(file, iter(RESULTS), limit=1) == 4
    assert file.getvalue() == "a\t1\n"


def test_json_writes_everything_in_order() -> None:
    file = io.StringIO()
    assert printing.write_json(file, RESULTS) == 4
    assert json.loads(file.getvalue()) == [
        ["a", 1],
        ["b\tc", [1, [[2, 3]]]],
        [[1, None], {"x": [1.5]}],
        ["b'raw'", "<class 'object'>"],
    ]
    file = io.StringIO()
    assert printing.write_json(file, []) == 0
    assert json.loads(file.getvalue()) == []


def test_files_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "results.pickle"
    assert printing.write_file(path, RESULTS) == 4
    assert pickle.loads(path.read_bytes()) == dict(RESULTS)
    assert path.stat().st_mode & 0o777 == 0o644 & ~_umask()
    assert printing.write_file(tmp_path / "results.json", RESULTS) == 4
    assert printing.write_file(tmp_path / "results.txt", RESULTS) == 4

    def breaks() -> Iterator[tuple[Any, Any]]:
        yield "a", 1
        raise Misuse("half-way")

    before = sorted(tmp_path.iterdir())
    for name in ("results.pickle", "results.json", "other.txt"):
        with pytest.raises(Misuse):
            printing.write_file(tmp_path / name, breaks())
    assert sorted(tmp_path.iterdir()) == before
    assert pickle.loads(path.read_bytes()) == dict(RESULTS)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
