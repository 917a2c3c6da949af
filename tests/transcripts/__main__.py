"""``python -m tests.transcripts NAME`` tells a story; ``--rewrite`` writes all of them anew.

A changed story is a changed decision: read the difference before committing it.
"""

import argparse
import sys
from pathlib import Path

from tests.transcripts.stories import STORIES, told

FOLDER = Path(__file__).parent


def path_of(name: str) -> Path:
    return FOLDER / f"{name}.txt"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.transcripts", description=__doc__)
    parser.add_argument("name", nargs="?", choices=STORIES, help="the story to tell")
    parser.add_argument("--rewrite", action="store_true", help="write all stories anew")
    args = parser.parse_args()
    if args.rewrite:
        for name in STORIES:
            path_of(name).write_text(told(name), encoding="utf-8")
    elif args.name:
        print(told(args.name), end="")
    else:
        print("\n".join(STORIES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
