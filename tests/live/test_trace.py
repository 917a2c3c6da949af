"""Real peers write down what their cores were told; from that the same is decided again."""

from pathlib import Path

from grid.job import Job
from tests.live.harness import Site, until
from tests.live.jobs import answer, slowly, total
from tests.simulation.planted import planted
from tests.simulation.replay import replay

ITEMS = 150


def test_a_failover_is_decided_the_same_again(site: Site, tmp_path: Path) -> None:
    traces = {name: tmp_path / name for name in ("one", "two", "here")}
    one = site.start("one", trace=str(traces["one"]))
    two = site.start("two", trace=str(traces["two"]))
    peer = site.here(trace=traces["here"])
    txn = peer.submit(Job(list(range(ITEMS)), slowly, reducefn=total))
    until("progress", lambda: txn.progress.maps_done > ITEMS // 4)
    until("the first is written", lambda: traces["one"].read_text().count("\n") > 40)
    one.kill()
    assert txn.result(60) == answer(ITEMS)
    peer.close()
    two.leave()
    two.ended()
    for name, path in traces.items():
        done = replay(path)
        assert not done.different, f"{name}: {done.different}"
        assert done.steps > 20
    assert replay(traces["two"]).cores == 2, "its client's, and its server's of the second term"
    assert {1, 2} <= replay(traces["here"]).terms
    with planted("an owner is forgotten when resubmitting"):
        assert "told Connected" in replay(traces["here"]).different
