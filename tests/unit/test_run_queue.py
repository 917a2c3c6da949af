"""The queue of transactions: in order, nobody forgotten, and quick however long."""

from msgspec import structs

from grid.registry import Owner, Registry, Transaction
from tests.unit.cores import meta


def accept(registry: Registry, record: str, priority: int = 0) -> Transaction:
    txn = registry.accept(structs.replace(meta(record), priority=priority), "", {})
    txn.owners["a", record] = Owner("a", record)
    txn.touch()
    return txn


def queued(registry: Registry) -> str:
    return "".join(txn.meta.record for txn in registry.queue.walk())


def give(txn: Transaction, attempt: str) -> None:
    plan = txn.plans["map"]
    tile = plan.next_free(0.0)
    assert tile is not None
    plan.give(plan.cut(tile, 1), attempt, "a", 0.0)
    txn.news("map", 0, 1, "a", held=False)


def test_priority_goes_before_fairness_and_fairness_before_age() -> None:
    registry = Registry(1.0)
    old = accept(registry, "o")
    accept(registry, "n")
    urgent = accept(registry, "u", priority=1)
    assert queued(registry) == "uon"
    give(old, "1")
    give(urgent, "2")
    assert queued(registry) == "uno"


def test_what_has_ended_or_no_owner_comes_back_when_it_runs_again() -> None:
    registry = Registry(1.0)
    first, second = accept(registry, "1"), accept(registry, "2")
    first.state = "finished"
    owner = second.owners.pop(("a", "2"))
    assert queued(registry) == ""
    first.state = "running"
    first.touch()
    second.owners["b", "2"] = owner
    second.touch()
    assert queued(registry) == "12"
    registry.forget("1")
    assert queued(registry) == "2"


def test_only_those_asked_for_are_looked_at() -> None:
    registry = Registry(1.0)
    for number in range(1_000):
        accept(registry, str(number))
    ranked: list[str] = []
    queue = registry.queue
    next(queue.walk())
    put = queue._put

    def counted(txn: Transaction) -> None:
        ranked.append(txn.meta.record)
        put(txn)

    queue._put = counted  # type: ignore[method-assign]
    for attempt in range(10):
        txn = next(queue.walk())
        give(txn, str(attempt))
    assert ranked == [str(number) for number in range(9)]
