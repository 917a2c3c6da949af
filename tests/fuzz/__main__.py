"""Fuzz one target for a while, or replay an input: ``scripts/fuzz --target server --seconds 600``.

The corpus is kept in ``.fuzz/TARGET/corpus`` and grows from run to run. An input that fails is
written to ``.fuzz/TARGET/found``, and the command that replays it is printed.
"""

import argparse
import hashlib
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from tests.fuzz.targets import TARGETS

FOLDER = Path(".fuzz")
MEMORY = Path("/dev/shm")
"""Where there is one, spools of a fuzz are made here: folders on a disk cost more than the rest."""

INPUT_BYTES_MAX = 16 << 10
HANG_SECONDS = 20
MEMORY_MEGABYTES_MAX = 1024


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=__doc__)
    parser.add_argument("--target", required=True, choices=TARGETS, help="what to feed")
    parser.add_argument("--seconds", type=int, default=60, help="how long (default 60)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="feed this file once, instead")
    args = parser.parse_args()
    if args.replay is not None:
        TARGETS[args.target].run(args.replay.read_bytes())
        print(f"{args.replay}: every promise held")
        return 0
    if find_spec("atheris") is None:
        print(
            "fuzzing needs atheris, which is in the extra `fuzz`: run scripts/fuzz, which installs "
            "it, or `pip install -e '.[fuzz]'`",
            file=sys.stderr,
        )
        return 2
    return fuzz(args.target, args.seconds)


def fuzz(name: str, seconds: int) -> int:
    """Run the engine; return 1 if it found something, having said how to replay it."""
    corpus, found = FOLDER / name / "corpus", FOLDER / name / "found"
    corpus.mkdir(parents=True, exist_ok=True)
    found.mkdir(exist_ok=True)
    before = set(found.iterdir())
    for seed in TARGETS[name].seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:40]).write_bytes(seed)
    flags = (
        f"-max_total_time={seconds}",
        f"-max_len={INPUT_BYTES_MAX}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MEMORY_MEGABYTES_MAX}",
        f"-artifact_prefix={found}/",
        "-print_final_stats=1",
        str(corpus),
    )
    command = [sys.executable, "-m", "tests.fuzz.engine", name, *flags]
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as scratch:
        status = subprocess.run(command, env={**os.environ, "TMPDIR": scratch}).returncode
    new = sorted(set(found.iterdir()) - before)
    for path in new:
        print(f"found: {path}\n    replay: scripts/fuzz --target {name} --replay {path}")
    return 1 if new or status else 0


if __name__ == "__main__":
    sys.exit(main())
