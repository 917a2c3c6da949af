"""What the page is told of a snapshot, and the story it makes of several."""

import json

from msgspec import structs

from peers.dashboard.view import View, details
from peers.snapshot import FailoverSeen
from tests.dashboard.rig import GRID, peer_seen


def test_numbers_are_there_and_what_is_unknown_is_not() -> None:
    state = View().of(GRID, 2000.0)
    assert state["link"] == {"live": True}
    assert state["peers"]["id-node1"]["busy"] == 2
    assert state["peers"]["id-node1"]["load"] == 0.5
    assert state["peers"]["id-node2"]["busy"] == 4  # it has not said: no more than its slots
    assert "memory" not in state["peers"]["id-node2"]
    assert state["failovers"]["2"] == {"how": "closed", "term": 2, "server": 0.2}
    assert state["failovers"]["3"]["task"] == 1.75
    assert state["transactions"]["bbbb2222"]["why"] == "ValueError: <b>five</b>"
    assert "None" not in str(state)


def test_what_is_long_comes_only_when_asked_for() -> None:
    state = json.dumps(View().of(GRID, 2000.0))
    assert "Traceback" not in state
    assert "secret-item" not in state
    first, second = map(details, GRID.transactions)
    assert first == {"peers": ["node2"], "tasks": [["map", 0, 1, 1001.0, 1002.5]]}
    assert second["failure"]["traceback"].startswith("Traceback")


def test_the_story_of_a_lost_server() -> None:
    view = View()
    view.of(GRID, 2000.0)
    sought = view.of(structs.replace(GRID, sought_seconds=0.7), 2001.0)
    assert sought["link"] == {"live": False, "since": 2000.3}
    later = view.of(structs.replace(GRID, sought_seconds=1.4), 2001.5)
    assert later == sought  # nothing new, though the numbers do not fit quite
    after = structs.replace(
        GRID,
        server="node2",
        server_id="id-node2",
        term=4,
        peers=GRID.peers[1:],
        failovers=(FailoverSeen("closed", 4, 1.234, None, 2001.9),),
    )
    state = view.of(after, 2002.0)
    assert [event["text"] for event in state["events"].values()] == [
        "node1 serves, term 3",
        "node1 does not answer; looking for a server",
        "node2 serves now, term 4, 1.23 s after node1 was lost",
        "node1 left",
    ]


def test_many_who_join_are_one_line() -> None:
    view = View()
    view.of(GRID, 2000.0)
    more = tuple(peer_seen(f"more{n}") for n in range(5))
    state = view.of(structs.replace(GRID, peers=GRID.peers + more), 2001.0)
    assert list(state["events"].values())[-1]["text"] == "more0, more1, more2 and 2 more joined"


def test_a_grid_at_rest_changes_nothing() -> None:
    view = View()
    first = view.of(GRID, 2000.0)
    later = structs.replace(GRID, at=1011.0)
    assert view.of(later, 2001.0) == first
