"""Files and Lines: every byte once, and never from a file that is not the one listed (P3)."""

import logging
import os
import pickle
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grid.errors import Misuse
from grid.job import Job
from peers.files import Changed, Files, Lines, Reference


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "sub" / "deep").mkdir(parents=True)
    for name in ("b.txt", "a.txt", "sub/c.txt", "sub/deep/d.txt", "e.md", ".hidden.txt"):
        (tmp_path / name).write_text(f"text of {name}\n")
    return tmp_path


def names(files: Files, top: Path) -> list[str]:
    return [str(Path(key).relative_to(top)) for key in files]


def test_keys_are_absolute_sorted_and_unique(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree)
    files = Files("*.txt", "a.txt", "sub/../b.txt", str(tree / "*.txt"))
    assert list(files) == [str(tree / "a.txt"), str(tree / "b.txt")]
    monkeypatch.chdir("/")
    assert names(files, tree) == ["a.txt", "b.txt"]


def test_patterns(tree: Path) -> None:
    every = ["a.txt", "b.txt", "sub/c.txt", "sub/deep/d.txt"]
    assert names(Files(tree / "**/*.txt"), tree) == every
    assert names(Files(tree / "**"), tree) == sorted([*every, "e.md"])
    assert names(Files(tree / "[ab].txt", tree / "*.md"), tree) == ["a.txt", "b.txt", "e.md"]
    assert names(Files(tree / ".hidden.txt"), tree) == [".hidden.txt"]
    (tree / "what[1].txt").write_text("a plain name")
    assert names(Files(tree / "what[1].txt"), tree) == ["what[1].txt"]


def test_a_pattern_without_match_is_empty_and_warned_of(
    tree: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert list(Files(tree / "*.csv")) == []
    assert "*.csv" in caplog.text
    assert Job(Files(tree / "*.csv"), lambda k, v: []).run() == {}


def test_names_that_are_no_files(tree: Path) -> None:
    with pytest.raises(Misuse, match=r"absent\.txt is not a file here"):
        list(Files(tree / "absent.txt"))
    with pytest.raises(Misuse, match=r"sub is a folder; write a pattern, as in .*/\*\*/\*\.txt"):
        list(Files(tree / "sub"))


def test_modes(tree: Path) -> None:
    path = tree / "a.txt"
    path.write_bytes(b"caf\xc3\xa9\r\nend")
    assert Files(path)[str(path)] == "café\nend" == path.read_text("utf-8")
    assert Files(path, encoding="latin-1")[str(path)] == "cafÃ©\nend"
    assert Files(path, encoding="ascii", errors="ignore")[str(path)] == "caf\nend"
    assert Files(path, mode="bytes")[str(path)] == b"caf\xc3\xa9\r\nend"
    assert Files(path, mode="path")[str(path)] == str(path)


def test_text_that_is_not_in_the_encoding(tree: Path) -> None:
    path = tree / "a.txt"
    path.write_bytes(b"caf\xe9")
    with pytest.raises(Misuse, match=r"a\.txt is not utf-8 text .*position 3.* errors='replace'"):
        Files(path)[str(path)]
    with pytest.raises(Misuse, match="is not utf-8 text"):
        Files(path).reference(str(path)).read()


@pytest.mark.parametrize("kind", [Files, Lines])
def test_bad_options(kind: Any, tree: Path) -> None:
    with pytest.raises(Misuse, match="encoding='utf8x' is not known; did you mean 'utf-8'"):
        kind(tree / "*.txt", encoding="utf8x")
    with pytest.raises(Misuse, match="errors='replase' is not known; did you mean 'replace'"):
        kind(tree / "*.txt", errors="replase")
    with pytest.raises(Misuse, match=r"mode='byte' is not one of .* did you mean 'bytes'"):
        kind(tree / "*.txt", mode="byte")
    with pytest.raises(Misuse, match="needs a file name or pattern"):
        kind()


def test_what_is_not_listed_is_a_key_error(tree: Path) -> None:
    strange: list[Any] = [str(tree / "e.md"), 5, ["a"]]
    for key in strange:
        with pytest.raises(KeyError, match="is not among the files"):
            Files(tree / "*.txt")[key]
    with pytest.raises(KeyError, match="is not a"):
        Lines(tree / "*.txt")["a"]  # type: ignore[index]


# ------------------------------------------------------------------------------ references


def test_a_reference_reads_where_the_file_is_the_same(tree: Path) -> None:
    path = tree / "a.txt"
    reference = pickle.loads(pickle.dumps(Files(tree / "*.txt").reference(str(path))))
    assert isinstance(reference, Reference)
    assert len(pickle.dumps(reference)) < 300
    assert reference.matches()
    assert reference.read() == "text of a.txt\n"


def longer(path: Path) -> None:
    path.write_text("another, longer text")


def later(path: Path) -> None:
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


@pytest.mark.parametrize("change", [Path.unlink, longer, later])
@pytest.mark.parametrize("mode", ["text", "bytes", "path"])
def test_a_file_that_is_not_the_one_listed(tree: Path, change: Any, mode: Any) -> None:
    path = tree / "a.txt"
    files = Files(tree / "*.txt", mode=mode)
    reference = files.reference(str(path))
    change(path)
    assert not reference.matches()
    with pytest.raises(Changed, match=r"a\.txt"):
        reference.read()
    with pytest.raises(Misuse, match=r"a\.txt .*files must stay as they are"):
        files[str(path)]


def test_listing_again_records_again(tree: Path) -> None:
    files = Files(tree / "a.txt")
    (key,) = files
    longer(Path(key))
    assert list(files) == [key]
    assert files[key] == "another, longer text"


def test_datasources_pickle_with_what_they_recorded(tree: Path) -> None:
    sources: list[Any] = [Files(tree / "*.txt"), Lines(tree / "*.txt", bytes_per_item=5)]
    for source in sources:
        keys = list(source)
        again = pickle.loads(pickle.dumps(source))
        assert [again[key] for key in keys] == [source[key] for key in keys]
        assert list(again) == keys


# ------------------------------------------------------------------------------ lines

pieces = st.sampled_from([b"", b"a", b"word ", b"\n", b"\r\n", b"\r", "é€".encode(), b"x" * 20])


@given(data=st.lists(pieces, max_size=30).map(b"".join), size=st.integers(1, 40))
def test_parts_are_whole_lines_and_together_the_file(data: bytes, size: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(data)
        lines = Lines(path, bytes_per_item=size, mode="bytes")
        values = [lines[key] for key in lines]
        assert b"".join(values) == data  # type: ignore[arg-type]
        filled = [value for value in values if value]
        assert all(value.endswith(b"\n") for value in filled[:-1])  # type: ignore[arg-type]
        assert values == [lines.reference(key).read() for key in lines]
        text = Lines(path, bytes_per_item=size)
        assert "".join(map(str, (text[key] for key in text))) == data.decode()


def test_a_part_has_the_lines_that_start_in_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one\ntwo\na line longer than two parts\nend")
    lines = Lines(path, bytes_per_item=8)
    assert {key[1:]: lines[key] for key in lines} == {
        (0, 8): "one\ntwo\n",
        (8, 16): "a line longer than two parts\n",
        (16, 24): "",
        (24, 32): "",
        (32, 40): "end",
    }


def test_empty_files_have_no_items(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert list(Lines(tmp_path / "*")) == []
    files = Files(tmp_path / "*")
    assert [files[key] for key in files] == [""]


def test_encodings_of_lines(tmp_path: Path) -> None:
    path = tmp_path / "file"
    text = "käse\nbröt\n" * 5
    for encoding in ("utf-8", "latin-1", "cp1252", "utf-8-sig"):
        path.write_text(text, encoding)
        lines = Lines(path, encoding=encoding, bytes_per_item=7)
        assert "".join(map(str, (lines[key] for key in lines))) == text
    for encoding in ("utf-16", "utf-32-le", "cp500"):
        with pytest.raises(Misuse, match=r"Lines cannot cut .* use Files"):
            Lines(path, encoding=encoding)
    assert list(Lines(path, encoding="utf-16", mode="bytes"))


def test_bytes_per_item_is_checked(tmp_path: Path) -> None:
    for size in (0, -1, 1.5, True):
        with pytest.raises(Misuse, match="bytes_per_item="):
            Lines(tmp_path / "*", bytes_per_item=size)  # type: ignore[arg-type]


def test_a_changed_file_is_never_cut_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("one\ntwo\n")
    lines = Lines(path, bytes_per_item=4)
    keys = list(lines)
    with path.open("a") as file:
        file.write("three\n")
    for key in keys:
        with pytest.raises(Misuse, match="has changed since it was listed: 14 bytes now, 8 then"):
            lines[key]


def test_a_job_over_lines(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("a b\na\n" * 10)
    (tmp_path / "two").write_text("c")
    job = Job(
        Lines(tmp_path / "*", bytes_per_item=9),
        lambda key, text: ((word, 1) for word in text.split()),
        reducefn=lambda key, values: sum(values),
    )
    assert job.run() == {"a": 20, "b": 10, "c": 1}
