"""One target under atheris, in a process of its own: ``python -m tests.fuzz.engine TARGET FLAGS``.

libFuzzer ends its process when it is done or has found something, so ``__main__.py`` starts this
one and looks at what it left. The grid's modules are imported here, where each of their branches is
made to count. ``FLAGS`` are libFuzzer's.
"""

import random
import sys
import tracemalloc

import atheris

with atheris.instrument_imports(include=["grid", "peers"]):
    from tests.fuzz.targets import TARGETS


def main() -> None:
    target = TARGETS[sys.argv[1]]

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        changed = target.mutate(
            data, random.Random(seed), lambda some: bytes(atheris.Mutate(some, size_max))
        )
        return changed if len(changed) <= size_max else data

    if target.bounded:
        tracemalloc.start()
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
