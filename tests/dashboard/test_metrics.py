"""What Prometheus reads: its format, the numbers, and labels of which there are few for ever."""

import re

from msgspec import structs

from peers.dashboard.metrics import metrics
from tests.dashboard.rig import GRID

LINE = re.compile(r'(peergrid_[a-z_]+)(?:\{([a-z]+="[a-z]+")\})? (-?[0-9.e+-]+)')


def read(text: str) -> dict[str, float]:
    """The samples of a text, each checked to have been announced."""
    samples: dict[str, float] = {}
    announced = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            continue
        if line.startswith("# TYPE "):
            announced = line.split()[2]
            assert line.endswith(" gauge")
            continue
        match = LINE.fullmatch(line)
        assert match, line
        name, label, value = match.groups()
        assert name == announced
        samples[f"{name}[{label}]" if label else name] = float(value)
    assert text.endswith("\n")
    return samples


def test_numbers() -> None:
    samples = read(metrics(GRID, 0.25))
    assert samples["peergrid_up"] == 1
    assert samples["peergrid_last_answer_age_seconds"] == 0.25
    assert samples["peergrid_term"] == 3
    assert samples['peergrid_peers[role="serves"]'] == 1
    assert samples['peergrid_peers[role="standby"]'] == 1
    assert samples['peergrid_peers[role="visitor"]'] == 1
    assert samples["peergrid_slots"] == 8
    assert samples["peergrid_slots_busy"] == 6
    assert samples["peergrid_held_bytes"] == 1000
    assert samples['peergrid_transactions[state="running"]'] == 1
    assert samples['peergrid_transactions[state="failed"]'] == 1
    assert samples['peergrid_running_done[phase="map"]'] == 3
    assert samples['peergrid_running_total[phase="reduce"]'] == 4
    assert samples['peergrid_failover_server_seconds[how="silent"]'] == 1.5
    assert samples['peergrid_failover_task_seconds[how="silent"]'] == 1.75
    assert 'peergrid_failover_task_seconds[how="closed"]' not in samples


def test_without_a_server_only_that_is_said() -> None:
    assert read(metrics(None, 7.0)) == {"peergrid_up": 0, "peergrid_last_answer_age_seconds": 7}


def test_more_peers_and_transactions_make_no_more_series() -> None:
    many = structs.replace(
        GRID,
        peers=tuple(structs.replace(GRID.peers[1], id=str(n), name=f"n{n}") for n in range(50)),
        transactions=tuple(structs.replace(GRID.transactions[0], record=str(n)) for n in range(50)),
    )
    assert read(metrics(many, 0.0)).keys() == read(metrics(GRID, 0.0)).keys()
