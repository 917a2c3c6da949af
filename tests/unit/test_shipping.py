"""Code arrives as it was at the owner, or the worker says which module it is for.

Owners and workers are real processes here: what a module is, and whether one is loaded, is a
matter of the process.
"""

import os
import subprocess
import sys
import threading
import types
from pathlib import Path
from typing import Any

import cloudpickle
import msgspec
import pytest

from grid.errors import BadJob, NotPicklable, ProtocolError
from grid.functions import Functions
from grid.job import Job
from peers import modules
from peers.fingerprint import fingerprint
from peers.shipping import Code, ModuleUnavailable, StaleModule, freeze, load, pickle_value

ROOT = str(Path(__file__).parents[2])

OWNER = """
import sys
from pathlib import Path
from grid.job import Job
from peers.shipping import freeze, pickle_value
{script}
code = freeze(job.functions, job.ship)
Path(sys.argv[1]).write_bytes(code.encode())
Path(sys.argv[1] + ".items").write_bytes(
    pickle_value([(n, k, job.value(k)) for n, k in enumerate(job.keys())], "items", 0, code.shipped)
)
print(job.run())
"""

WORKER = """
import __main__, pickle, sys
from pathlib import Path
from grid.mapreduce import map_items, merged, reduce_partition
from peers.shipping import Code, load
functions = load(Code.decode(Path(sys.argv[1]).read_bytes()), __main__)
items = pickle.loads(Path(sys.argv[1] + ".items").read_bytes())
chunks = pickle.loads(pickle.dumps(list(map_items(functions, items).drain(256))))
print(dict(pair for _, chunk in chunks for pair in reduce_partition(functions, merged(chunk))))
"""


def run(*argv: str, folder: Path, seed: str = "0") -> str:
    """Run Python; return what it printed, or the last line of its error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-B", *argv],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": ROOT, "PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.strip() if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


class Stage:
    """An owner's folder with a script and modules, and a worker somewhere else."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.owner = top / "owner"
        self.elsewhere = top / "worker"
        self.owner.mkdir()
        self.elsewhere.mkdir()

    def freeze(self, script: str, **sources: str) -> str:
        """Write modules and script, run the script as owner, return what ``Job.run()`` gave."""
        for name, source in sources.items():
            path = self.owner / f"{name}.py"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(source)
        (self.owner / "script.py").write_text(OWNER.format(script=script))
        return run(str(self.owner / "script.py"), str(self.top / "code"), folder=self.top)

    def work(self) -> str:
        """Load and run the code in another process, in another folder."""
        return run("-c", WORKER, str(self.top / "code"), folder=self.elsewhere, seed="1")

    @property
    def code(self) -> Code:
        return Code.decode((self.top / "code").read_bytes())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


USES_HELPER = """
import helper
job = Job([1, 2], lambda k, v: [(k, helper.twice(v))], reducefn=lambda k, vs: sum(vs))
"""


@pytest.mark.parametrize(
    "script",
    [
        "def m(k, v):\n    yield k, v + 1\njob = Job([1, 2], m)",
        "job = Job([1, 2], lambda k, v: {v: k}, reducefn=lambda pairs: pairs)",
        "def make(n):\n    return lambda k, v: [(k, v * n)]\njob = Job([1, 2], make(3))",
        "import functools\ndef m(n, k, v):\n    return [(k, v * n)]\n"
        "job = Job([1, 2], functools.partial(m, 3))",
        "import math as maths\nSCALE = 2\ndef inner(v):\n    return maths.sqrt(v) * SCALE\n"
        "job = Job([1, 4], lambda k, v: [(k, inner(v))])",
        "class Map:\n    n = 2\n    def __init__(self, m):\n        self.m = m\n"
        "    def __call__(self, k, v):\n        return [(k, v * self.n * self.m)]\n"
        "    def method(self, k, vs):\n        return sum(vs)\n"
        "job = Job([1, 2], Map(5), reducefn=Map(1).method)",
        "def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\n"
        "job = Job([9], lambda k, v: [(k, fib(v))])",
        "import collections\njob = Job(['aab'], lambda k, v: collections.Counter(v))",
        "job = Job([{'a': 1}], lambda k, v: v, reducefn=dict)",
        "import enum\nclass E(enum.Enum):\n    A = 1\n"
        "job = Job([1], lambda k, v: [(E(v).name, E.A.value)])",
    ],
)
def test_functions_of_a_script_travel(stage: Stage, script: str) -> None:
    expected = stage.freeze(script)
    assert expected.startswith("{")
    assert stage.work() == expected


def test_classes_of_a_script_travel_and_their_objects_are_small(stage: Stage) -> None:
    expected = stage.freeze(
        "from dataclasses import dataclass\n"
        "@dataclass(frozen=True)\nclass Point:\n    x: int\n    '''" + "long " * 1000 + "'''\n"
        "job = Job([Point(1), Point(2)], lambda k, p: [(p, p), (Point(1), p)],\n"
        "    reducefn=lambda k, vs: (isinstance(k, Point), vs))"
    )
    assert "Point(x=2)" in expected
    assert stage.work() == expected
    probe = WORKER.replace("print(", "import sys; print(sum(map(len, map(repr, chunks)))); (")
    size = run("-c", probe, str(stage.top / "code"), folder=stage.elsewhere)
    assert 0 < int(size) < 2000


def test_modules_beside_the_script_are_imported_there(stage: Stage) -> None:
    expected = stage.freeze(
        USES_HELPER,
        helper="import deeper, space.leaf\nfrom pack import inside\n"
        "def twice(v):\n    return deeper.N * v",
        deeper="N = 2",
        unused="N = 3",
        **{
            "pack/__init__": "",
            "pack/inside": "from . import more",
            "pack/more": "import json",
            "space/leaf": "import json",
        },
    )
    assert expected == "{0: 2, 1: 4}"
    assert list(stage.code.modules) == [
        *("deeper", "helper", "pack", "pack.inside", "pack.more", "space.leaf")
    ]
    assert stage.code.paths == (str(stage.owner),)
    assert stage.work() == expected


def test_modules_imported_inside_functions_are_needed_too(stage: Stage) -> None:
    expected = stage.freeze(
        "def inner(v):\n    from helper import twice\n    return twice(v)\n"
        "job = Job([1], lambda k, v: [(k, inner(v))])",
        helper="def twice(v):\n    return v * 2",
    )
    assert list(stage.code.modules) == ["helper"]
    assert stage.work() == expected


def test_a_module_that_is_not_there_is_named(stage: Stage) -> None:
    stage.freeze(USES_HELPER, helper="import deeper\ntwice = deeper.twice", deeper="twice = abs")
    (stage.owner / "deeper.py").unlink()
    assert stage.work() == (
        "peers.shipping.ModuleUnavailable: module deeper is not here; "
        "install it, or have it sent: Job(..., ship='deeper'), grid submit --ship deeper"
    )


def test_a_module_that_differs_is_named(stage: Stage) -> None:
    stage.freeze(USES_HELPER, helper="import deeper\ntwice = deeper.twice", deeper="twice = abs")
    (stage.owner / "deeper.py").write_text("twice = len")
    assert "ModuleUnavailable: module deeper here (" in stage.work()
    assert "differs from the owner's" in stage.work()
    (stage.owner / "deeper.py").write_bytes(b"twice = abs")
    assert stage.work() == "{0: 1, 1: 2}"


def test_a_module_loaded_in_another_version_is_stale(stage: Stage) -> None:
    stage.freeze(USES_HELPER, helper="def twice(v):\n    return v + v")
    reload = WORKER + (
        f"\npath = Path({str(stage.owner / 'helper.py')!r})\n"
        "path.write_text('changed = True')\n"
        "code = Code.decode(Path(sys.argv[1]).read_bytes())\n"
        "load(code)  # what is loaded is still the owner's\n"
        "print('same')\n"
        "load(Code(code.pickled, {'helper': 'other'}, code.paths, ()))\n"
    )
    done = run("-c", reload, str(stage.top / "code"), folder=stage.elsewhere)
    assert done == (
        "peers.shipping.StaleModule: "
        "module helper is loaded here in another version than the owner's"
    )


def test_shipped_modules_go_by_value(stage: Stage) -> None:
    script = (
        "import helper, pack.inside\n"
        "job = Job([helper.Box(1), helper.Box(2)],\n"
        "    lambda k, v: [(k, helper.Box(pack.inside.twice(v.n)))],\n"
        "    reducefn=lambda k, vs: sum(box.n for box in vs), ship=[helper, 'pack'])"
    )
    expected = stage.freeze(
        script,
        helper="class Box:\n    def __init__(self, n):\n        self.n = n",
        **{"pack/__init__": "", "pack/inside": "def twice(v):\n    return v * 2"},
    )
    assert expected == "{0: 2, 1: 4}"
    assert (stage.code.modules, stage.code.shipped) == ({}, ("helper", "pack"))
    for path in [*stage.owner.glob("*.py"), *stage.owner.glob("pack/*.py")]:
        path.unlink()
    assert stage.work() == expected


def test_installed_modules_are_not_the_users() -> None:
    code = freeze(Functions(lambda k, v: [(msgspec.json.encode(k), os.getpid())]))
    own = [name for name in code.modules if not name.startswith(("tests", "test_", "conftest"))]
    assert own == []
    assert not modules.is_users("json", modules.file_of("json"))
    assert not modules.is_users("msgspec", modules.file_of("msgspec"))
    assert not modules.is_users("peers.shipping", modules.file_of("peers.shipping"))
    assert not modules.is_users("sys", None)


def test_finding_imports_nothing(tmp_path: Path) -> None:
    (tmp_path / "outer" / "space").mkdir(parents=True)
    (tmp_path / "outer" / "space" / "leaf.py").write_text("raise SystemExit")
    spec = modules.find("outer.space.leaf", [str(tmp_path)])
    assert spec is not None
    assert spec.origin == str(tmp_path / "outer" / "space" / "leaf.py")
    assert modules.find("outer.space.twig", [str(tmp_path)]) is None
    assert not any(name.startswith("outer") for name in sys.modules)


# ------------------------------------------------------------------------------ in one process


def test_code_survives_its_bytes() -> None:
    functions = Functions(lambda k, v: [(k, v)], reducefn=dict)
    code = freeze(functions)
    assert Code.decode(code.encode()) == code
    loaded = load(Code(code.pickled, {}, (), ()))
    assert loaded.mapfn is not None
    assert loaded.mapfn(1, 2) == [(1, 2)]
    assert loaded.reduce_pairs
    with pytest.raises(ProtocolError):
        Code.decode(b"\x93other")


def test_what_does_not_pickle_is_named() -> None:
    lock = threading.Lock()

    def helper() -> Any:
        return lock

    with pytest.raises(NotPicklable) as raised:
        freeze(Functions(lambda k, v: [(k, v)], reducefn=lambda k, vs: helper()))
    message = str(raised.value)
    assert "reducefn=" in message
    assert "the enclosed variable 'helper': the enclosed variable 'lock' (lock)" in message
    assert "TypeError: cannot pickle" in message
    with pytest.raises(NotPicklable, match="of key 'k'"):
        pickle_value(lock, "the value of key", "k")


def test_shipping_leaves_no_trace() -> None:
    module = types.ModuleType("made_here")
    exec("def f(k, v):\n    return [(k, v + 1)]", module.__dict__)
    sys.modules["made_here"] = module
    try:
        code = freeze(Functions(module.f), ship=["made_here"])
        assert cloudpickle.list_registry_pickle_by_value() == set()
        lock = threading.Lock()
        with pytest.raises(NotPicklable):
            freeze(Functions(module.f, reducefn=lambda k, vs: lock), ship=[module])
        assert cloudpickle.list_registry_pickle_by_value() == set()
    finally:
        del sys.modules["made_here"]
    mapfn = load(code).mapfn
    assert mapfn is not None
    assert mapfn(1, 2) == [(1, 3)]


def test_what_cannot_be_shipped() -> None:
    with pytest.raises(BadJob, match="ship='no_such_module' cannot be imported here"):
        freeze(Functions(print), ship=["no_such_module"])
    with pytest.raises(BadJob, match="is not needed"):
        freeze(Functions(print), ship=["__main__"])


def test_a_missing_package_is_a_module_unavailable() -> None:
    code = Code(b"\x80\x04\x8c\x0eno_such_module\x8c\x01f\x93.", {}, (), ())
    with pytest.raises(ModuleUnavailable, match="module no_such_module is not installed here"):
        load(code)
    assert issubclass(StaleModule, ModuleUnavailable)


# ------------------------------------------------------------------------------ fingerprints


def words(key: Any, value: Any) -> Any:
    yield value, 1


def test_the_same_script_has_the_same_fingerprint_everywhere(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import functools\n"
        "from grid.job import Job\nfrom peers.fingerprint import fingerprint\n"
        "def m(k, v):\n    yield k, v\n"
        "def r(n, k, vs):\n    return n\n"
        "keys = {'a', 'b', ('c', 1, frozenset(['x', 'y', 'z'])), 2.5, None}\n"
        "job = Job(dict.fromkeys(keys, 1), m, reducefn=functools.partial(r, frozenset('xyz')),\n"
        "    finishfn=lambda k, v: v in {'a', 'b', 'c', 'd'}, collectfn=dict)\n"
        "print(fingerprint(job, job.keys()))\n"
    )
    prints = {run(str(script), folder=tmp_path, seed=seed) for seed in ("0", "1", "2")}
    assert len(prints) == 1
    printed = prints.pop()
    assert printed.startswith("{'mapfn': 'm ")
    imported = run("-c", "import script", folder=tmp_path, seed="3")
    assert imported == printed


def differing(first: Job, second: Job) -> set[str]:
    one, two = (fingerprint(job, job.keys()) for job in (first, second))
    assert one.keys() == two.keys()
    return {part for part in one if one[part] != two[part]}


def test_a_change_shows_in_its_part_alone() -> None:
    base = Job(["a"], words, reducefn=lambda k, vs: sum(vs))
    assert differing(base, Job(["a"], words, reducefn=lambda k, vs: sum(vs))) == set()
    assert differing(base, Job(["a"], words, reducefn=lambda k, vs: max(vs))) == {"reducefn"}
    assert differing(base, Job(["a"], words)) == {"reducefn"}
    assert differing(
        base, Job(["a"], mapfn=lambda k, v: [(v, 1)], reducefn=base.functions.reducefn)
    ) == {"mapfn"}
    assert differing(base, Job(["b"], words, reducefn=base.functions.reducefn)) == set()
    assert differing(base, Job(["a", "b"], words, reducefn=base.functions.reducefn)) == {
        "keys",
        "items",
    }
    assert differing(Job({"a": 1}, words), Job({"b": 1}, words)) == {"keys"}
    assert differing(Job({"a": 1, "b": 2}, words), Job({"b": 1, "a": 2}, words)) == set()


def test_a_function_that_ran_has_the_same_fingerprint() -> None:
    job = Job(["a"] * 1000, lambda k, v: [(v + "x", k + 1)])
    before = fingerprint(job, job.keys())
    job.run()
    assert fingerprint(job, job.keys()) == before
