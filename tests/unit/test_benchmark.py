"""The benchmark's own work: answers are checked, tables say what was measured, nothing is left."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from scripts.benchmark import engines, memory, processes, report, runs, workloads
from scripts.benchmark.__main__ import parser, plans
from scripts.benchmark.engines.alone import Measured as Alone
from scripts.benchmark.engines.base import Engine
from scripts.benchmark.results import Result, load, machine, result_of, save
from scripts.benchmark.scale import keep, larger, pictures
from scripts.benchmark.scale.parts import Part
from scripts.benchmark.work import Digest, MapReduce, chunks, digest_of
from scripts.benchmark.workloads import texts
from scripts.benchmark.workloads.base import Input

LEAST = {name: workloads.load(name).least for name in workloads.NAMES}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Input]:
    """The least input of each workload, made once."""
    made: dict[str, Path] = {}

    def of(name: str) -> Input:
        workload = workloads.load(name)
        if workload.input not in made:
            made[workload.input] = tmp_path_factory.mktemp("input")
            workload.prepare(made[workload.input], workload.least)
        return Input(made[workload.input], workload.least)

    return of


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    with engines.load("pool")(2, tmp_path_factory.mktemp("pool")) as engine:
        engine.begin()
        yield engine


@pytest.mark.parametrize("name", workloads.NAMES)
def test_two_processes_give_the_answer_of_one(
    name: str, pool: Engine, inputs: Callable[[str], Input], tmp_path: Path
) -> None:
    workload = workloads.load(name)
    expected = workload.run(Alone(1, tmp_path), inputs(name))
    found = workload.run(pool, inputs(name))
    assert found.digest == expected.digest
    assert not found.digest.startswith(("0-", "wrong"))
    if name == "failover":
        assert "coordinates" in found.notes["killed"]
        return
    own = {figure.key for figure in workload.figures} - {"seconds", "memory"}
    assert own == set(found.figures)
    assert all(value >= 0 for value in found.figures.values())


def test_a_wrong_answer_has_another_digest() -> None:
    pairs: list[tuple[str, Any]] = [("a", 1), ("b", [1, 2]), ("c", "x")]
    right = str(Digest().add(pairs))
    assert str(Digest().add(reversed(pairs))) == right
    wrong: list[list[tuple[str, Any]]] = [
        pairs[1:],
        [*pairs, pairs[0]],
        [("a", 2), *pairs[1:]],
        [("a", 1), ("b", [2, 1]), ("c", "x")],
    ]
    assert right not in [str(Digest().add(one)) for one in wrong]
    assert digest_of([1, 2]) != digest_of([2, 1])


def test_a_sort_out_of_order_is_noticed(tmp_path: Path) -> None:
    class Unsorted(Alone):
        def mapreduce(self, work: MapReduce) -> Any:
            return super().mapreduce(replace(work, reducefn=lambda _, records: records[::-1]))

    workload = workloads.load("sort")
    given = Input(tmp_path, workload.least)
    right = workload.run(Alone(1, tmp_path), given).digest
    assert workload.run(Unsorted(1, tmp_path), given).digest != right


def test_text_has_its_size_and_every_word(tmp_path: Path) -> None:
    texts.write(tmp_path, 1)
    files = sorted(tmp_path.iterdir())
    assert len(files) == texts.FILES_PER_MB
    words = " ".join(path.read_text() for path in files).split()
    assert len(set(words)) == texts.WORDS_PER_MB
    assert 1_000_000 <= sum(path.stat().st_size for path in files) < 1_100_000
    first = words[:50]
    texts.write(tmp_path, 1)
    assert files[0].read_text().split()[:50] == first


def test_words_differ() -> None:
    assert len({texts.word(number) for number in range(20_000)}) == 20_000


def test_chunks_tile() -> None:
    assert [*chunks(list(range(7)), 3)] == [[0, 1], [2, 3], [4, 5, 6]]
    assert [*chunks([1], 3)] == [[1]]
    assert [*chunks([], 3)] == []


def test_every_engine_says_what_it_needs() -> None:
    for name in engines.NAMES:
        engine = engines.load(name)
        assert engine.idiom, name
        for requirement in engine.requirements:
            assert re.search(r">=[\d.]+,<[\d.]+$", requirement), requirement
        assert isinstance(engine.lacks(), str)


def test_plans_are_what_was_asked_for() -> None:
    def asked(*arguments: str) -> list[tuple[str, int, tuple[str, ...], int]]:
        given = parser().parse_args(arguments)
        return [(one.workload, one.size, one.engines, one.counted) for one in plans(given)]

    quick = asked("--quick")
    assert [name for name, *_ in quick] == list(workloads.NAMES)
    assert {engines for _, _, engines, _ in quick} == {("grid", "pool", "futures")}
    full = asked("--engines", "grid,dask", "--workloads", "tiny", "--runs", "7")
    assert full == [("tiny", size, ("grid", "dask"), 7) for size in (100_000, 1_000_000)]
    assert [size for _, size, *_ in asked("--big")] == [2_000]
    assert asked("--workloads", "sort", "--size", "3")[0][:2] == ("sort", 3)
    with pytest.raises(SystemExit, match="--workloads NAME"):
        asked("--size", "3")


# ------------------------------------------------------------------------------ one run


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Files go elsewhere, and processes of others are left alone."""
    monkeypatch.setattr("scripts.benchmark.places.BENCH", tmp_path)
    monkeypatch.setattr(runs, "end_descendants", lambda: 0)
    return tmp_path


def test_a_run_is_a_process_with_figures(bench: Path) -> None:
    plan = runs.Plan("latency", 10, ("alone",))
    run = runs.run_once(plan, "alone", Path(sys.executable))
    assert run.wrong == ""
    assert set(run.figures) == {"p50", "p99", "seconds"}
    assert run.digest == run_digest(plan)
    assert not list((bench / "scratch").iterdir())


def run_digest(plan: runs.Plan) -> str:
    return workloads.load(plan.workload).run(Alone(1, Path()), Input(Path(), plan.size)).digest


def test_a_run_that_fails_says_why(bench: Path) -> None:
    plan = runs.Plan("group", 1, ("alone",))
    run = runs.run_once(plan, "alone", Path("/bin/false"))
    assert run.wrong == "failed with status 1: said nothing"
    late = runs.run_once(replace(plan, timeout_seconds=0.01), "alone", Path(sys.executable))
    assert late.wrong == "not done after 0 s"
    assert late.figures == {}


def test_turns_answers_and_disturbed_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Engines take turns; a wrong answer has no figures; a disturbed run is done again."""
    order: list[str] = []
    loads = iter([0.0, 0.0, 0.0, 0.9, 0.1, 0.9, 0.9, 0.0, 0.0])

    def run_once(_plan: runs.Plan, engine: str, _python: Path) -> runs.Run:
        order.append(engine)
        wrong = engine == "futures" and len(order) > 3
        return runs.Run(
            engine,
            figures={"seconds": float(len(order))},
            digest="other" if wrong else "right",
            others_cores=next(loads),
        )

    monkeypatch.setattr(runs, "run_once", run_once)
    monkeypatch.setattr(runs, "oracle", lambda _: "right")
    monkeypatch.setattr(runs, "python_of", lambda _: Path(sys.executable))
    plan = runs.Plan("group", 1, ("grid", "pool", "futures"), counted=1, tries=2)
    grid, pool, futures = measured = runs.measure(plan, lambda _: None)
    #                  to warm up                  again           again
    assert order == ["grid", "pool", "futures", "grid", "grid", "pool", "pool", "futures"]
    assert [run.figures for run in grid.runs] == [{"seconds": 5.0}]
    assert (grid.discarded, pool.discarded, futures.discarded) == (1, 1, 0)
    assert [run.disturbed for run in (*grid.runs, *pool.runs)] == [False, True]
    assert futures.runs[0].figures == {}
    kept = result_of(plan, "scripts/bench", measured).engines
    assert [one["disturbed"] for one in kept] == [0, 1, 0]
    assert kept[2]["absent"] == "wrong answer: other, should be right"
    assert kept[0]["figures"]["seconds"] == [5.0]


def test_memory_is_that_of_all_processes_below() -> None:
    script = "held = b'x' * 60_000_000; print(flush=True); input()"
    with memory.PeakMemory() as peak, processes_of(script, script) as started:
        for process in started:
            assert process.stdout is not None
            process.stdout.readline()
        deadline = time.monotonic() + 20
        while peak.megabytes < 115 and time.monotonic() < deadline:
            time.sleep(0.01)
        pids = {process.pid for process in started}
        assert pids <= set(processes.descendants())
    assert peak.megabytes > 115


SPIN = """
import sys, time
while time.process_time() < 0.5:
    pass
open(sys.argv[1], "w").close()
"""


def test_what_others_compute_is_counted(tmp_path: Path) -> None:
    done = tmp_path / "done"
    others, began = processes.Others(), time.monotonic()
    # Whoever starts it ends, so it is below nobody here, as it is not when others use the machine.
    orphan = ["sh", "-c", '"$@" &', "sh", sys.executable, "-c", SPIN, str(done)]
    subprocess.run(orphan, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not done.exists():
        assert time.monotonic() < began + 60
        time.sleep(0.01)
    assert others.cores() * (time.monotonic() - began) > 0.4


class processes_of:  # noqa: N801 - reads as a function
    """Python processes that end with the context."""

    def __init__(self, *scripts: str) -> None:
        self._scripts = scripts

    def __enter__(self) -> list[subprocess.Popen[bytes]]:
        self._started = [
            subprocess.Popen(
                [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            for script in self._scripts
        ]
        return self._started

    def __exit__(self, *_: object) -> None:
        for process in self._started:
            process.communicate()


# ------------------------------------------------------------------------------ the report


def result(workload: str = "group", **figures: dict[str, list[float]]) -> Result:
    made = Result(workload, 20, "scripts/bench --quick", {**machine(), "commit": "c"}, 2, 3)
    for name, values in figures.items():
        made.engines.append(
            {
                "name": name,
                "version": "1.2" if name == "dask" else "",
                "absent": "" if values else "cannot be installed",
                "wrong": [],
                "notes": {},
                "disturbed": 1 if name == "pool" else 0,
                "discarded": 0,
                "figures": values,
            }
        )
    return made


def test_a_table_has_medians_ranges_and_ratios() -> None:
    text = report.section(
        result(
            grid={"seconds": [2.0, 1.0, 3.0], "memory": [100.0]},
            pool={"seconds": [1.0, 1.0, 1.0], "memory": [50.0]},
            dask={},
        )
    )
    lines = text.splitlines()
    assert "| engine | whole process, s | x grid | peak memory, MB | x grid |" in lines
    assert "| grid   | 2 (1-3)          | 1.00   | 100             | 1.00   |" in lines
    assert "| pool†  | 1                | 0.50   | 50              | 0.50   |" in lines
    assert "- dask: cannot be installed" in lines
    assert "- † others used the machine during counted runs: pool 1" in lines
    assert text.endswith("`scripts/bench --quick`")


def test_the_report_is_a_plain_document() -> None:
    made = result(grid={"seconds": [1.0]}, dask={})
    made.engines[1]["absent"] = (
        "failed: no " + "word " * 40 + "in /home/me/x.log or https://a.b/c/d"
    )
    lines = report.document([made]).splitlines()
    assert not [line for line in lines if len(line) > 100 and line[0] != "|"]
    text = " ".join(" ".join(lines).split())
    assert "word in ... or https://a.b/c/d" in text


def test_what_is_kept_comes_back_in_the_order_of_the_workloads(tmp_path: Path) -> None:
    kept = [result("tiny", grid={"job": [1.0]}), result("group", grid={"seconds": [1.0]})]
    for one in kept:
        save(one, tmp_path)
    assert load(tmp_path) == kept[::-1]
    document = report.document(kept[::-1])
    assert document.index("## group") < document.index("## tiny")
    assert "| grid   | -       | " in document


def test_growth_is_shown_as_tables_and_pictures(tmp_path: Path) -> None:
    rows = [{"tasks": 1_000.0, "items us": 12.5}, {"tasks": 10_000.0, "items us": 9.0}]
    kept = keep.Kept(Part("tasks", "What each costs.", rows), "scripts/bench scale", machine())
    keep.save(kept, tmp_path)
    assert keep.load(tmp_path) == [kept]
    text = keep.document([kept])
    assert "| 1,000  | 12.5     |" in text
    keep.draw([kept], tmp_path)
    (picture,) = tmp_path.glob("*.svg")
    assert f"]({picture.name})" in text
    drawn = ElementTree.parse(picture).getroot()
    assert drawn.tag.endswith("svg")
    assert "items us" in "".join(drawn.itertext())


def test_higher_values_are_drawn_higher() -> None:
    text = pictures.chart("t", "x", [pictures.Curve("c", [(1, 0.0), (10, 5.0), (100, 10.0)])])
    circles = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="3"', text)
    across, down = zip(*[map(float, circle) for circle in circles], strict=True)
    assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=0.2)
    assert down[0] - down[1] == pytest.approx(down[1] - down[2], abs=0.2)
    assert down[0] > down[2]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(123456.0, "123,000"), (12.345, "12.3"), (0.25, "0.25"), (0.00012, "0.0001"), (99.96, "100")],
)
def test_numbers_have_three_digits(value: float, shown: str) -> None:
    assert report.number(value) == shown


@pytest.mark.parametrize("one_key", [False, True])
def test_the_oracle_of_shuffles_larger_than_memory(one_key: bool) -> None:
    """What follows by arithmetic is what the job makes; and what is wrong is found."""
    shuffle = larger.Shuffle(1, 100, 4, one_key)
    results = larger.job_of(shuffle).run()
    assert larger.wrong(shuffle, results.items()) == ""
    count, *rest = results.pop("key-8")
    assert larger.wrong(shuffle, results.items())
    results["key-8"] = (count + 1, *rest)
    assert larger.wrong(shuffle, results.items()).startswith("key-8: ")
