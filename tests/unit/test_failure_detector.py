"""Silence is death, unless it was we who did not run (P5: no false failover)."""

from grid.failure_detector import FailureDetector

BEAT, SILENCE = 0.5, 4.0


def watched(now: float = 0.0) -> FailureDetector:
    detector = FailureDetector(BEAT, SILENCE)
    detector.look(now)
    detector.heard(1, now)
    return detector


def look_until(detector: FailureDetector, start: float, end: float) -> None:
    now = start
    while now < end:
        detector.look(now)
        now += BEAT


def test_who_is_silent_for_longer_than_the_limit_is_named() -> None:
    detector = watched()
    look_until(detector, 0, 4.2)
    assert detector.silent(SILENCE) == []
    assert detector.silent(SILENCE + 0.1) == [1]


def test_a_sign_of_life_begins_the_time_anew() -> None:
    detector = watched()
    look_until(detector, 0, 3)
    detector.heard(1, 3.0)
    look_until(detector, 3, 7)
    assert detector.silent(6.9) == []
    assert detector.silent(7.1) == [1]


def test_one_is_not_watched_after_being_forgotten() -> None:
    detector = watched()
    detector.forget(1)
    detector.forget(2)
    assert detector.silent(100.0) == []


def test_ones_own_pause_is_blamed_on_nobody() -> None:
    detector = watched()
    detector.look(60.0)
    assert detector.silent(60.0) == []
    look_until(detector, 60.0, 60.0 + SILENCE + BEAT)
    assert detector.silent(60.0 + SILENCE + 0.6) == [1], "but after it the time runs again"


def test_a_pause_excuses_only_its_own_length() -> None:
    detector = watched()
    look_until(detector, 0, 3.6)
    detector.look(13.5)
    assert detector.silent(13.5) == []
    look_until(detector, 13.5, 15)
    assert detector.silent(15.0) == [1]


def test_the_silent_come_in_the_order_first_heard() -> None:
    detector = FailureDetector(BEAT, SILENCE)
    for party in (3, 1, 2):
        detector.heard(party, 0.0)
    assert detector.silent(5.0) == [3, 1, 2]
