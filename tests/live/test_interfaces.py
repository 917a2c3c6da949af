"""The executor where people use it: on an asyncio loop, in a notebook, as the documents have it."""

import asyncio
import re
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from peers import Job, as_completed
from tests.live.harness import Site, until
from tests.live.jobs import answer, slow_job

DOCUMENT = Path(__file__).parents[2] / "docs" / "executor.md"


def wait_for(gate: str) -> str:
    while not Path(gate).exists():
        time.sleep(0.005)
    return gate


async def opened_in_turn(site: Site, gates: list[Path]) -> list[str]:
    """The loop opens each gate when the one before has been told of: it is never blocked."""
    peer = site.here(slots=3)
    with peer.executor() as executor:
        futures = {executor.submit(wait_for, str(gate)): gate for gate in gates}
        told: list[str] = []
        gates[0].touch()
        async for future in as_completed(futures):
            told.append(futures[future].name)
            assert future.result() == str(futures[future])
            for gate in gates[len(told) : len(told) + 1]:
                gate.touch()
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(executor, pow, 2, 9) == 512
        submitted = [peer.submit(slow_job(20)), peer.submit(Job([3], lambda k, v: [(k, v)]))]
        results = [await txn async for txn in as_completed(submitted)]
        assert answer(20) in results
        assert {0: [3]} in results
        never = executor.submit(wait_for, str(gates[0].parent / "never"))
        with pytest.raises(TimeoutError):
            async for _ in as_completed([never], timeout=0.05):
                pass
        executor.abandon()
        return told


def test_a_loop_hears_of_each_as_it_ends(site: Site, tmp_path: Path) -> None:
    gates = [tmp_path / f"gate{n}" for n in (2, 0, 1)]
    assert asyncio.run(opened_in_turn(site, gates)) == ["gate2", "gate0", "gate1"]


NOTEBOOK = '''
import __main__, ast, asyncio, inspect

CELLS = ["""
import asyncio, pathlib, time
from peers import Job, Peer
peer = Peer(slots=2)
executor = peer.executor()
FACTOR = 3
class Point:
    def __init__(self, x): self.x = x
def scale(x):
    return Point(x * FACTOR)
def wait(gate):
    while not pathlib.Path(gate).exists():
        time.sleep(0.005)
    return scale(1)
""", """
points = list(executor.map(scale, range(3)))
print([p.x for p in points], all(isinstance(p, Point) for p in points))
""", """
FACTOR = 10
print(executor.submit(scale, 4).result().x)
""", """
def scale(x):
    return Point(-x * FACTOR)
asyncio.get_running_loop().call_later(0.05, pathlib.Path("gate").touch)
print((await asyncio.wrap_future(executor.submit(wait, "gate"))).x)
""", """
print(await peer.submit(Job([5], lambda k, v: [("x", scale(v).x)])))
""", """
class Point:
    def __init__(self, x): self.x = str(x)
print(repr(executor.submit(scale, 6).result().x))
executor.shutdown()
peer.close()
"""]

async def kernel():
    for cell in CELLS:
        code = compile(cell, "<cell>", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
        ran = eval(code, __main__.__dict__)
        if inspect.iscoroutine(ran):
            await ran

asyncio.run(kernel())
'''
"""Runs cells as a kernel of Jupyter does: in ``__main__``, on one loop."""


def test_cells_of_a_notebook_ship_and_redefine(site: Site) -> None:
    assert site.run("notebook", NOTEBOOK).ended().splitlines() == [
        "[0, 3, 6] True",
        "40",
        "-10",
        "{'x': [-50]}",
        "'-60'",
    ]


def test_the_document_runs(site: Site) -> None:
    blocks = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    scripts = [site.run(f"block{n}", block) for n, block in enumerate(blocks)]
    said = [script.ended() for script in scripts]
    assert not any("Traceback" in script.err for script in scripts)
    assert len(said) == 3
    assert said[0].splitlines() == ["1024", "[0, 1, 8, 27, 64]", "no 3"]
    asked, *letters, answered = said[1].splitlines()
    assert (asked, sorted(letters), answered) == ("512", ["a", "b", "c"], "{'x': [9]}")
    assert said[2].splitlines() == ["[0, 1, 4, 9, 16]"]


def displayed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for IPython's display; return what is shown, as it is shown."""
    shown: list[str] = []

    class Handle:
        def update(self, html: str) -> None:
            shown.append(html)

    def display(html: str, *, display_id: bool) -> Handle:
        assert display_id
        shown.append(html)
        return Handle()

    stand_in = ModuleType("IPython.display")
    vars(stand_in).update(HTML=str, display=display)
    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", stand_in)
    return shown


def test_a_transaction_in_a_notebook_is_a_bar_that_moves(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = displayed(monkeypatch)
    peer = site.here(slots=1)
    gate = tmp_path / "gate"
    txn = peer.submit(Job([1, 2], lambda k, v: until_there(gate, k)), name="<b>job")
    txn._ipython_display_()
    until("it moves", lambda: any("1 of 2 items mapped" in html for html in shown))
    gate.touch()
    txn.result(60)
    until("it says so", lambda: shown[-1].endswith("done</div>"))
    assert all("&lt;b&gt;job" in html and "<b>job" not in html for html in shown)
    failed = peer.submit(Job([1], lambda k, v: [][k]))
    failed.exception(60)
    failed._ipython_display_()
    assert "failed: IndexError" in shown[-1]


def until_there(gate: Path, key: int) -> list[tuple[str, int]]:
    while key and not gate.exists():
        time.sleep(0.005)
    return [("x", key)]
