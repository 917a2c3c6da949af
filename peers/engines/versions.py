"""Do the machines of a cluster have what a job needs, in the versions that are here?

Functions travel as the bytecode of one minor version of Python, and tasks are code of this
package. So what differs is looked for before any work is sent, with an expression of builtins
alone, which any Python evaluates.
"""

from collections.abc import Mapping
from typing import Any

from grid.errors import Refused

OWN = "peergrid"

PROBE = (
    "('.'.join(map(str, __import__('sys').version_info[:2])),"
    " __import__('importlib.util', fromlist=['util']).find_spec('peers') is not None,"
    " {name: found.version for name in %r for found in reversed(list("  # the first is imported
    "__import__('importlib.metadata', fromlist=['metadata']).distributions(name=name)))})"
)

Answer = tuple[str, bool, dict[str, str]]


def probe(packages: tuple[str, ...]) -> str:
    """Return the expression to evaluate there: Python's version, whether this package can be
    imported, and the versions of ``packages``."""
    return PROBE % ((OWN, *packages),)


def here(packages: tuple[str, ...]) -> Answer:
    """Return what the expression gives in this process."""
    answer: Answer = eval(probe(packages))  # noqa: S307 - our own text
    return answer


def check(mine: Answer, theirs: Mapping[str, Any]) -> None:
    """Compare with the answers of ``theirs``, by where they came from. Raises ``Refused``."""
    python, _, packages = mine
    for where, (their_python, installed, their_packages) in sorted(theirs.items()):
        if their_python != python:
            raise Refused(
                f"{where} runs Python {their_python}, this process Python {python}: functions "
                f"travel between equal minor versions only. Use Python {their_python} here, or "
                f"{python} there"
            )
        if not installed:
            raise Refused(
                f"{where} has no {OWN}: install {OWN} {packages.get(OWN, '')} there, as it is here"
            )
        for name, version in sorted(packages.items()):
            other = their_packages.get(name)
            if other is not None and other != version:
                raise Refused(
                    f"{where} has {name} {other}, this process {name} {version}: install the "
                    f"same version on both sides"
                )
