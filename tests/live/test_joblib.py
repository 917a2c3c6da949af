"""joblib on a grid: its own semantics hold, and scikit-learn runs on it."""

import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from grid.errors import Misuse
from peers import Peer
from tests.live.harness import Site, alive, until

joblib = pytest.importorskip("joblib", reason="peergrid[joblib] is not installed")
from peers import joblib_backend  # noqa: E402 - it imports joblib


@pytest.fixture
def peer(site: Site) -> Peer:
    joblib_backend.register()
    return site.here(slots=2)


def square(number: int) -> int:
    return number * number


def refuse(number: int) -> int:
    if number == 3:
        raise KeyError(number)
    return number


def spread(number: int) -> tuple[int, Any]:
    """Calls of its own, one level down."""
    inner = joblib.Parallel(n_jobs=-1)(joblib.delayed(os.getpid)() for _ in range(3))
    return number, set(inner) == {os.getpid()}


def run_for_ever(folder: str) -> None:
    Path(folder, "new").write_text(str(os.getpid()))
    Path(folder, "new").rename(Path(folder, "running"))
    while True:
        time.sleep(0.01)


def fail_beside(folder: str) -> None:
    while not Path(folder, "running").exists():
        time.sleep(0.01)
    raise ValueError("the other is under way")


def test_parallel_runs_on_the_grid(peer: Peer) -> None:
    lock = threading.Lock()
    with joblib.parallel_config("grid", peer=peer):
        parallel = joblib.Parallel()
        assert parallel(joblib.delayed(square)(n) for n in range(200)) == [
            n * n for n in range(200)
        ]
        assert joblib.effective_n_jobs(-1) == 2
        assert joblib.effective_n_jobs(-2) == 1
        assert joblib.effective_n_jobs(7) == 7
        here = {*joblib.Parallel(n_jobs=2)(joblib.delayed(os.getpid)() for _ in range(20))}
        assert os.getpid() not in here
        assert joblib.Parallel(n_jobs=1)([joblib.delayed(os.getpid)()]) == [os.getpid()]
        by_value = joblib.Parallel(n_jobs=2)(joblib.delayed(lambda n: -n)(n) for n in range(9))
        assert by_value == [-n for n in range(9)]
        unordered = joblib.Parallel(n_jobs=2, return_as="generator_unordered")
        assert sorted(unordered(joblib.delayed(square)(n) for n in range(9))) == [
            n * n for n in range(9)
        ]
        with pytest.raises(Exception, match="lock"):
            joblib.Parallel(n_jobs=2)([joblib.delayed(id)(lock), joblib.delayed(id)(lock)])


def test_a_parallel_inside_stays_in_its_worker(peer: Peer) -> None:
    with joblib.parallel_config("grid", peer=peer):
        answers = joblib.Parallel(n_jobs=-1)(joblib.delayed(spread)(n) for n in range(4))
    assert answers == [(n, True) for n in range(4)]


def test_what_a_call_raises_ends_the_others(peer: Peer, tmp_path: Path) -> None:
    with joblib.parallel_config("grid", peer=peer, n_jobs=2):
        with pytest.raises(KeyError):
            joblib.Parallel()(joblib.delayed(refuse)(n) for n in range(50))
        with pytest.raises(ValueError, match="under way"):
            joblib.Parallel()(
                [
                    joblib.delayed(run_for_ever)(str(tmp_path)),
                    joblib.delayed(fail_beside)(str(tmp_path)),
                ]
            )
        pid = int((tmp_path / "running").read_text())
        until("the worker of the endless call is stopped", lambda: not alive(pid))
        assert joblib.Parallel()(joblib.delayed(square)(n) for n in range(6))[5] == 25


def test_one_peer_serves_all_that_have_its_settings(site: Site) -> None:
    joblib_backend.register()
    settings = {"slots": 1, "name": "shared"}
    with joblib.parallel_config("grid", **settings):
        assert joblib.Parallel()([joblib.delayed(square)(3)]) == [9]
        first = joblib_backend._shared(settings)
        site.peers.append(first)
    with joblib.parallel_config("grid", **settings):
        assert joblib_backend._shared(settings) is first
        first.close()
        site.peers.append(joblib_backend._shared(settings))
        assert not site.peers[-1].closed
    with pytest.raises(Misuse, match="slots"):
        joblib.parallel_config("grid", slotz=1)


def test_grid_search_runs_on_the_grid(peer: Peer) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from sklearn.datasets import load_iris
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KNeighborsClassifier

    data = load_iris()
    search = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3, 5]}, n_jobs=-1)
    with joblib.parallel_config("grid", peer=peer):
        search.fit(data.data, data.target)
    alone = GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3, 5]}).fit(
        data.data, data.target
    )
    assert search.best_params_ == alone.best_params_
    assert search.best_score_ == alone.best_score_
