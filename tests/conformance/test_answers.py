"""One suite of jobs, every engine: each answers what ``Job.run()`` answers, to the last bit."""

from pathlib import Path
from typing import Any

import pytest

from peers import Job, Progress, run
from tests.conformance.jobs import JOBS, TEXTS, marking_job, total, words

pytestmark = [pytest.mark.live, pytest.mark.xdist_group("engines")]


@pytest.mark.parametrize("name", JOBS)
def test_the_answer_is_the_oracles(on: Any, name: str, tmp_path: Path) -> None:
    """Same keys, same values, same types, same order."""
    job = JOBS[name](tmp_path)
    expected = job.run()
    assert repr(list(run(job, on=on).items())) == repr(list(expected.items()))


def test_collectfn_once_an_item_and_finishfn_once(on: Any, tmp_path: Path) -> None:
    assert run(marking_job(tmp_path), on=on) == {"sum": 2 * sum(range(30))}
    marks = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert marks == {"collectfn": 30, "finishfn": 1}


def test_progress_ends_complete(on: Any) -> None:
    seen: list[Progress] = []
    job = Job(TEXTS, words, reducefn=total)
    run(job, on=on, progress=seen.append)
    last = seen[-1]
    assert (last.maps_done, last.maps_total) == (len(TEXTS), len(TEXTS))
    assert last.reduces_done == last.reduces_total > 0


def test_resultfn_is_called_once(on: Any) -> None:
    seen: list[dict[Any, Any]] = []
    job = Job(TEXTS, words, reducefn=total, resultfn=seen.append)
    results = run(job, on=on)
    from tests.live.harness import until

    until("resultfn was called", lambda: seen)
    assert seen == [results]
