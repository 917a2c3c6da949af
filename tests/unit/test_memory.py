"""How much memory a peer may use: sizes as people write them, limits of containers, shares."""

from pathlib import Path

import pytest

from grid.errors import Misuse
from peers.configuration import configure
from peers.memory import DATA_BYTES_MIN, parse_size, show_size, total_memory, worker_bytes

GIB = 1 << 30


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1000", 1000),
        ("512M", 512 << 20),
        ("1.5g", 3 << 29),
        ("2 GiB", 2 * GIB),
        ("64KB", 64 << 10),
    ],
)
def test_sizes_as_people_write_them(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(show_size(size)) == pytest.approx(size, rel=0.01)


@pytest.mark.parametrize("text", ["", "much", "-1G", "1X", "G"])
def test_no_size(text: str) -> None:
    with pytest.raises(Misuse, match="as in 512M"):
        parse_size(text)


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in {"proc/meminfo": "MemTotal: 8388608 kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "total"),
    [
        ({}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{GIB}\n"}, GIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, 8 * GIB),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": f"{2 * GIB}\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
            },
            2 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/abc\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
            },
            3 * GIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            8 * GIB,
        ),
    ],
)
def test_limits_of_containers_count(tmp_path: Path, files: dict[str, str], total: int) -> None:
    assert total_memory(machine(tmp_path, files)) == total


def test_a_limit_is_divided_among_the_slots() -> None:
    one, two = worker_bytes(GIB, 1), worker_bytes(GIB, 2)
    assert GIB // 4 < two < one < GIB
    assert worker_bytes(0, 1) > DATA_BYTES_MIN
    assert worker_bytes(0, 4096) == DATA_BYTES_MIN  # a default never refuses
    with pytest.raises(Misuse, match=r"too little for 8 slots.*or more, or fewer slots"):
        worker_bytes(100 << 20, 8)


def test_the_limit_is_a_setting_and_a_variable() -> None:
    assert configure({"memory_limit": "1G"}, {}).settings.memory_limit == GIB
    assert configure({"memory_limit": GIB}, {}).settings.memory_limit == GIB
    assert configure({}, {"GRID_MEMORY_LIMIT": "2G"}).settings.memory_limit == 2 * GIB
    for bad in ("lots", -1, 1.5, "50M"):
        with pytest.raises(Misuse):
            configure({"memory_limit": bad}, {})
