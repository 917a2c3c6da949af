"""Programs as people wrote them for mincemeat, each a script of its own, run with its workers."""

import itertools
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from grid.errors import TaskError
from peers import mincemeat
from peers.mincemeat import TaskManager
from tests.live.harness import TOP, Process, Site, until

pytestmark = pytest.mark.live

PATIENCE_SECONDS = 100.0
"""For a whole program, which takes two or three seconds where nothing else runs."""

HUMPTY = """
    import sys
    import mincemeat

    data = ["Humpty Dumpty sat on a wall",
            "Humpty Dumpty had a great fall",
            "All the King's horses and all the King's men",
            "Couldn't put Humpty together again",
            ]
    # The data source can be any dictionary-like object
    datasource = dict(enumerate(data))

    def mapfn(k, v):
        print("mapping", k)
        logging.info("mapped %s", k)
        for w in v.split():
            yield w, 1

    def reducefn(k, vs):
        result = sum(vs)
        return result

    s = mincemeat.Server()
    s.datasource = datasource
    s.mapfn = mapfn
    s.reducefn = reducefn

    results = s.run_server(password="changeme", port=int(sys.argv[1]))
    assert type(results) is dict
    print(results)
"""
COUNTED = {
    **dict.fromkeys(
        ["All", "Couldn't", "again", "all", "and", "fall", "great", "had", "horses"], 1
    ),
    **dict.fromkeys(["men", "on", "put", "sat", "together", "wall"], 1),
    "Dumpty": 2,
    "Humpty": 3,
    "King's": 2,
    "a": 2,
    "the": 2,
}

FUNCTIONS = """
    import collections, sys
    import mincemeat

    PORT = int(sys.argv[1])
    FACTOR = 3                        # a global of the program

    def tripled(n):
        return n * FACTOR

    def mapfn(path, kind):
        import words                  # a module of the program, beside it
        def digest(word):             # nested
            return hashlib.md5(word.encode()).hexdigest()[:4]    # not imported here
        with open(path) as f:         # a relative path
            for word in f.read().split():
                if words.wanted(word):
                    yield (kind, word), digest(word)
        time.sleep(random.random() / 1000)
        logging.debug("%s %s", socket.gethostname(), os.path.basename(sys.executable))
        yield None, None
        yield 1, {path}
        yield "n", pickle.loads(pickle.dumps(tripled(2)))

    def reducefn(key, vs):
        if key is None:
            return None
        if key == 1:
            return sorted(set().union(*vs))
        if key == "n":
            return sum(vs)
        return collections.Counter(vs)

    s = mincemeat.Server()
    s.reducefn = reducefn
    s.mapfn = mapfn
    s.datasource = {"one.txt": "x", "two.txt": "y"}
    print(sorted(s.run_server("changeme", PORT, "localhost").items(), key=repr))

    class Scale(object):
        def __init__(self, by):
            self.by = by
        def map(self, k, v):
            yield k % 2, v * self.by
        def reduce(self, k, vs):
            return sum(vs) + self.by

    scale = Scale(10)                 # the same server with another datasource
    s.mapfn, s.reducefn = scale.map, scale.reduce
    s.datasource = range(6)
    print(s.run_server(password=b"changeme", port=PORT, interface="localhost"))

    class Lines(object):              # only what the server asked of a datasource
        def __init__(self, path):
            self.file = open(path)
        def __iter__(self):
            return iter([0, 1])
        def __getitem__(self, n):
            self.file.seek(0)
            return self.file.readlines()[n]

    class Counting(mincemeat.Server):
        def __init__(self):
            mincemeat.Server.__init__(self)
            self.seen = []
        def resultfn(self, txn, results):
            self.seen.append(results)
        def finishfn(self, pairs):
            return sorted(pairs)

    s = Counting()                    # a new server on the same port, at once
    s.datasource = Lines("lines.txt")
    s.mapfn = lambda k, v: ((w, k) for w in v.split())
    s.collectfn = lambda k, vs: len(vs)
    print(s.run_server("changeme", PORT, "localhost"), s.seen, s.finished(), s.results())
    s.datasource.file.close()

    class Pairs(object):
        def items(self):
            return [("a", [1, 2]), ("b", 3)]

    s = mincemeat.Server()
    s.datasource = Pairs()
    s.reducefn = lambda pairs: ((k, sum(vs)) for k, vs in pairs)
    got = []
    s.resultfn = lambda results: got.append(results)
    s.run_server("changeme", PORT, "localhost")
    print(got)

    s = mincemeat.Server()            # two in a row, neither with a result
    s.mapfn = lambda k, v: ()
    s.set_datasource({1: 1, 2: 2}, cycle=mincemeat.TaskManager.PERMANENT)
    s.set_datasource({})
    print(s.run_server("changeme", PORT, "localhost"))
    print(s.results(), s.results(), s.finished())
"""
FUNCTIONS_SAY = """\
[('n', 12), (('x', 'cat'), Counter({'d077': 2})), (('y', 'dog'), Counter({'06d8': 1})), \
(1, ['one.txt', 'two.txt']), (None, None)]
{0: 70, 1: 100}
{'a': [1], 'b': [1, 1]} [{'a': [1], 'b': [1, 1]}] True None
[{'a': 3, 'b': 3}]
{}
{} None True
"""

LARGE = """
    import sys
    import mincemeat

    def run(datasource, mapfn, reducefn):
        s = mincemeat.Server()
        s.datasource, s.mapfn, s.reducefn = datasource, mapfn, reducefn
        return s.run_server("changeme", int(sys.argv[1]), "localhost")

    print(run(range(10000), lambda k, v: [(v % 3, v)], lambda k, vs: (len(vs), sum(vs))))
    print(run(range(10), lambda k, v: (("all", i) for i in range(100000)), lambda k, vs: len(vs)))
    print(len(run(range(10000), lambda k, v: [((k, str(v)), 1)], None)))
"""

MISTAKES = """
    import sys
    import mincemeat

    def mapfn(k, v):
        raise ValueError("cannot map %s" % v)
        yield

    class Patient(mincemeat.Server):
        def __init__(self):
            mincemeat.Server.__init__(self)
            self.errors = []
        def handle_error(self):
            self.errors.append(sys.exc_info()[0].__name__)

    def run(server=None, **attributes):
        s = server or mincemeat.Server()
        for name, value in attributes.items():
            setattr(s, name, value)
        try:
            return s.run_server("changeme", int(sys.argv[1]), "localhost")
        except Exception as error:
            print(type(error).__name__ + ": " + str(error).splitlines()[0])

    run(datasource={1: 2}, mapfn=mapfn)
    run(data_source={1: 2}, mapfn=mapfn)
    run(datasource={1: 2}, mapfn=mapfn, reduce_fn=max)
    run(datasource={1: 2})
    run(datasource="text", mapfn=mapfn)
    patient = Patient()
    print(run(patient, datasource={1: 2}, mapfn=mapfn), patient.errors)
"""
MISTAKES_SAY = [
    "TaskError: ValueError: cannot map 2 in mapfn at key 1",
    "Misuse: this Server has a 'data_source' and no 'datasource'; did you mean 'datasource'?",
    "Misuse: this Server has a 'reduce_fn' and no 'reducefn'; did you mean 'reducefn'?",
    "Misuse: this Server has neither mapfn nor reducefn",
    "BadJob: the datasource is str: 'text'",
    "None ['TaskError']",
]


@pytest.fixture
def folder(site: Site) -> Path:
    """The folder of the programs, with the one line that makes ``import mincemeat`` mean ours."""
    (site.scripts / "mincemeat.py").write_text("from peers.mincemeat import *\n")
    return site.scripts


def worker(site: Site, *options: str, password: str = "changeme") -> Process:
    """A worker for the programs, in their folder."""
    command = [sys.executable, "-W", "error", "-m", "peers.mincemeat", "-p", password]
    command += ["-P", str(site.port), *options]
    process = Process(site, f"worker{len(site.processes)}", command, cwd=site.scripts)
    site.processes.append(process)
    return process


def program(site: Site, name: str, text: str) -> Process:
    return site.run(name, text, str(site.port))


def dismiss(process: Process) -> None:
    """End a worker that would wait for the next server."""
    process.process.send_signal(signal.SIGTERM)
    assert process.process.wait(60) == 143, process.err


def test_a_program_with_workers_early_and_late(site: Site, folder: Path) -> None:
    """Unchanged, on all interfaces; workers show what functions print, and end with the server."""
    early = worker(site, "localhost")
    until("it waits", lambda: "waiting for a server" in early.err)
    humpty = program(site, "humpty", HUMPTY)
    assert eval(humpty.ended(PATIENCE_SECONDS)) == COUNTED
    assert sorted(early.ended(PATIENCE_SECONDS).splitlines()) == [f"mapping {n}" for n in range(4)]
    assert early.err.count("\n") == 1
    assert humpty.err == ""
    late = program(site, "late", HUMPTY.replace('"changeme"', '""'))
    until("it serves", lambda: "fewer than 8 characters" in late.err)
    last = worker(site, "-v", password="")
    assert eval(late.ended(PATIENCE_SECONDS)) == COUNTED
    assert late.err.count("\n") == 1
    last.ended(PATIENCE_SECONDS)
    assert "the server is done" in last.err
    assert last.err.count("INFO root: mapped") == 4  # as -v says


def test_functions_datasources_and_servers_of_all_kinds(site: Site, folder: Path) -> None:
    (folder / "words.py").write_text("def wanted(word):\n    return word != 'the'\n")
    for name, text in (("one.txt", "the cat the cat"), ("two.txt", "the dog")):
        (folder / name).write_text(text)
    (site.folder / "lines.txt").write_text("a b\nb\n")  # the server's own, read there
    one = worker(site, "--loop")
    assert program(site, "functions", FUNCTIONS).ended(PATIENCE_SECONDS) == FUNCTIONS_SAY
    dismiss(one)


def test_ten_thousand_tasks_and_a_million_values(site: Site, folder: Path) -> None:
    both = [worker(site, "-l") for _ in range(2)]
    large = program(site, "large", LARGE)
    sums = {n: (len(range(n, 10000, 3)), sum(range(n, 10000, 3))) for n in range(3)}
    told = large.ended(PATIENCE_SECONDS).splitlines()
    assert (eval(told[0]), *told[1:]) == (sums, "{'all': 1000000}", "10000")
    for one in both:
        dismiss(one)


def test_the_programs_of_the_page_for_people_from_mincemeat(site: Site, folder: Path) -> None:
    """The same job by ``Server`` and by ``Peer``; the page shows the file that is beside both."""
    page = (TOP / "docs" / "mincemeat.md").read_text()
    assert f"    {(folder / 'mincemeat.py').read_text()}" in page
    before, after = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    here = f'password="changeme", port={site.port}'
    scripts = [text.replace('password="changeme"', here) for text in (before, after)]
    one = worker(site)
    told = [site.run(f"script{n}", text).ended(PATIENCE_SECONDS) for n, text in enumerate(scripts)]
    one.ended(PATIENCE_SECONDS)
    assert eval(told[0]) == eval(told[1]) == sorted(COUNTED.items())


def test_what_the_original_hung_on_is_an_error(site: Site, folder: Path) -> None:
    one = worker(site, "-l")
    told = program(site, "mistakes", MISTAKES).ended(PATIENCE_SECONDS).splitlines()
    for line, expected in itertools.zip_longest(told, MISTAKES_SAY):
        assert line.startswith(expected)
    dismiss(one)


def test_ctrl_c_while_joining_leaves_nothing(site: Site, folder: Path) -> None:
    """Somebody holds the port and says nothing; the site finds what the worker leaves behind."""
    with socket.create_server(("127.0.0.1", site.port)) as stranger:
        stranger.settimeout(30)
        one = worker(site)
        callers = [stranger.accept()[0] for _ in range(2)]  # the second is its peer
        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(60) == 130
    for caller in callers:
        caller.close()
    assert one.err == ""


# -- daemons, in this process ---------------------------------------------------------------


class Endless:
    """A datasource without an end, as only ``ONESHOT`` takes it."""

    def __iter__(self) -> Iterator[int]:
        return itertools.count()

    def __getitem__(self, key: int) -> str:
        return f"item {key}"


def with_process(k: Any, v: Any) -> Iterator[Any]:
    import os

    yield k, (v, os.getppid())


def credentials(site: Site, **more: Any) -> dict[str, Any]:
    where = {"password": "short", "interface": "localhost", "port": site.port}
    return {**where, "datasource": None, "mapfn": with_process, "reducefn": None, **more}


def taken(daemon: mincemeat.Server_daemon) -> dict[Any, Any]:
    until("there is a result", lambda: daemon.endpoint.output)
    return daemon.results() or {}


def test_daemons_take_job_after_job(site: Site) -> None:
    given = credentials(site, cycle=TaskManager.PERMANENT)
    with pytest.raises(ConnectionRefusedError):
        mincemeat.Client_daemon(given)
    server = mincemeat.Server_daemon(credentials=given)
    try:
        assert server.state() == "idle"
        server.start()
        with pytest.raises(OSError, match="Address already in use"):
            mincemeat.Server().conn(**given)
        clients = [mincemeat.Client_daemon(given) for _ in range(2)]
        for client in clients:
            client.start()
            assert client.endpoint.authenticated(30)
        assert [one.state() for one in (server, *clients)] == ["authenticated"] * 3
        server.set_datasource(Endless(), allocation=TaskManager.ONESHOT)
        once = taken(server)
        assert {key: [v for v, _ in values] for key, values in once.items()} == {
            0: ["item 0"],
            1: ["item 1"],
        }
        assert len({process for ((_, process),) in once.values()}) == 2
        for number in range(3):
            server.set_datasource({number: number})
        assert [list(taken(server)) for _ in range(3)] == [[0], [1], [2]]
        server.endpoint.mapfn = lambda k, v: [(k, 1 / v)]
        server.set_datasource({"zero": 0})
        server.set_datasource({"two": 2})
        with pytest.raises(TaskError, match="ZeroDivisionError"):
            taken(server)
        assert taken(server) == {"two": [0.5]}
        assert not server.finished()
        clients[0].stop()
        assert clients[0].state() == "success"
    finally:
        server.stop()
    clients[1].join(30)
    assert (clients[1].state(), server.state()) == ("success", "failed: incomplete")


def test_a_single_use_daemon_ends_with_its_clients(site: Site) -> None:
    given = credentials(site, datasource={1: "a b", 2: "b"}, reducefn=lambda k, vs: len(vs))
    given["mapfn"] = lambda k, v: ((word, 1) for word in v.split())
    server = mincemeat.Server_daemon(given)
    client = mincemeat.Client_daemon(given)
    server.start()
    client.start()
    server.join(30)
    client.join(30)
    assert (server.state(), client.state()) == ("success", "success")
    assert (server.results(), server.results()) == ({"a": 1, "b": 2}, None)


# -- in a grid of peers -----------------------------------------------------------------------


def test_a_worker_serves_a_grid_of_peers_through_a_failover(site: Site) -> None:
    """It never becomes server, stays while servers change, and takes a program's jobs too."""
    first = site.start("first", slots=0, password="changeme", port_span=1)
    one = worker(site, "-v")
    here = site.here(password="changeme", port_span=1)
    assert here.submit(_job(3)).result(60) == {0: [0], 1: [1], 2: [2]}
    first.kill()
    assert here.submit(_job(2)).result(60) == {0: [0], 1: [1]}
    assert here.serving
    rows = {member.name: member for member in here.status().members}
    assert [row.visitor for name, row in rows.items() if name != "here"] == [True]
    server = mincemeat.Server()
    server.datasource, server.mapfn = {1: 2}, with_process
    results = server.run_server("changeme", site.port, "localhost")
    assert results is not None
    assert list(results) == [1]
    with pytest.raises(OSError, match="Address already in use"):
        server.run_server("another password", site.port, "localhost")
    told = _refused(site)
    assert (told.returncode, told.stderr.count("\n")) == (1, 1)
    assert "another key or password" in told.stderr
    assert one.process.poll() is None
    dismiss(one)


def _job(items: int) -> Any:
    from peers import Job

    return Job(range(items), lambda k, v: [(k, v)])


def _refused(site: Site) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "peers.mincemeat", "-p", "wrong", "-P", str(site.port)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
