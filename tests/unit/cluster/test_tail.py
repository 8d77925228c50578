"""Whatever way the bytes arrive, and whatever becomes of the file, the tail gives the lines that the whole file has."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.record.run_lines import EVENTS, METRICS, Growing, tail_of
from cluster.record.tail import Tail
from contracts.errors import DataError
from storage.durable import whole_lines

PIECES = st.lists(st.text("ab\n\0", max_size=12).map(str.encode), max_size=12)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


class Seen:
    """What a reader that follows the file holds."""

    def __init__(self, path: Path, *, before_gap: bool) -> None:
        self.tail = Tail(path, before_gap=before_gap)
        self.lines: list[bytes] = []

    def look(self) -> None:
        found = self.tail.look()
        self.lines = found.lines if found.anew else self.lines + found.lines


@given(pieces=PIECES, before_gap=st.booleans())
def test_bytes_in_any_pieces_give_the_lines_of_the_whole_file(pieces: list[bytes], before_gap: bool) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        seen = Seen(path, before_gap=before_gap)
        for piece in pieces:
            append(path, piece)
            seen.look()
        seen.look()
    assert seen.lines == whole_lines(b"".join(pieces), before_gap=before_gap)


@st.composite
def lives(draw: st.DrawFn) -> list[tuple[str, bytes | int]]:
    """Appends, cuts, swaps (another file under the name), removals; looks in between."""
    text = st.text("ab\n\0", max_size=8).map(str.encode)
    one = st.one_of(
        st.tuples(st.just("append"), text),
        st.tuples(st.just("cut"), st.integers(0, 9)),
        st.tuples(st.just("swap"), text),
        st.tuples(st.just("remove"), st.just(0)),
        st.tuples(st.just("look"), st.just(0)),
    )
    return draw(st.lists(one, max_size=20))


@settings(max_examples=60)
@given(life=lives(), before_gap=st.booleans())
def test_a_file_that_is_cut_swapped_or_removed_is_read_anew(
    life: list[tuple[str, bytes | int]], before_gap: bool
) -> None:
    with TemporaryDirectory() as folder:
        path, other = Path(folder) / "lines", Path(folder) / "other"
        seen, content = Seen(path, before_gap=before_gap), b""
        for what, how in life:
            if what == "look":
                seen.look()
            elif what == "remove":
                path.unlink(missing_ok=True)
                content = b""
            elif what == "cut" and path.exists():
                assert isinstance(how, int)
                content = content[: max(0, len(content) - how)]
                os.truncate(path, len(content))
            elif isinstance(how, bytes):
                content = content + how if what == "append" else how
                other.write_bytes(content)
                append(path, how) if what == "append" else other.replace(path)
        seen.look()
    assert seen.lines == whole_lines(content, before_gap=before_gap)


def test_what_was_read_is_not_read_again(tmp_path: Path) -> None:
    """Bytes far before the end are changed behind its back: it looks at the last of what it read alone."""
    path = tmp_path / "lines"
    lines = [f"{number:063d}" for number in range(20)]
    path.write_text("".join(f"{line}\n" for line in lines))
    tail = Tail(path)
    assert len(tail.look().lines) == 20
    with path.open("r+b") as file:
        file.write(b"x" * 63)
    append(path, b"new\nha")
    found = tail.look()
    assert (found.lines, found.anew) == ([b"new"], False)
    append(path, b"lf\n")
    assert tail.look().lines == [b"half"]


def test_another_file_under_the_name_is_read_whole_though_it_ends_like_the_first(tmp_path: Path) -> None:
    path, other = tmp_path / "lines", tmp_path / "other"
    ends_alike = [f"{number:063d}" for number in range(20)]
    path.write_text("".join(f"{line}\n" for line in ["first", *ends_alike]))
    tail = Tail(path)
    tail.look()
    other.write_text("".join(f"{line}\n" for line in ["other", *ends_alike]))
    other.replace(path)
    found = tail.look()
    assert (found.lines[0], len(found.lines), found.anew) == (b"other", 21, True)


def test_a_file_beyond_the_bound_or_of_another_sort_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\ntwo\n")
    with pytest.raises(DataError, match="has 8 bytes, at most 4"):
        Tail(path, max_bytes=4).look()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="not a regular file"):
        Tail(tmp_path / "pipe").look()


def test_metrics_end_at_a_gap_and_events_go_on_behind_it(tmp_path: Path) -> None:
    for name in (METRICS, EVENTS):
        (tmp_path / name).write_bytes(b'{"step": 1}\n{"st\0\0\n{"step": 2}\n')
    assert tail_of(tmp_path / METRICS).look().lines == [b'{"step": 1}']
    assert tail_of(tmp_path / EVENTS).look().lines == [b'{"step": 1}', b'{"step": 2}']


def test_lines_are_objects_and_a_bad_one_is_named_at_every_look(tmp_path: Path) -> None:
    path = tmp_path / METRICS
    path.write_text('{"step": 1}\n')
    growing = Growing(path, lambda line: line["step"])
    assert growing.look() == [1]
    append(path, b"[2]\n")
    for _ in range(2):
        with pytest.raises(DataError, match=r"metrics\.jsonl, line 2 holds a JSON list"):
            growing.look()
    path.write_text('{"step": 1}\n{"step": 2}\n')
    assert growing.look() == [1, 2]


def test_what_was_skipped_is_not_given_and_counts_as_lines(tmp_path: Path) -> None:
    path = tmp_path / EVENTS
    growing = Growing(path, lambda line: line["step"])
    growing.skip()
    append(path, b'{"step": 1}\n{"step": 2}\n')
    growing.skip()
    append(path, b'{"step": 3}\n')
    assert growing.look() == [3]
    append(path, b"5\n")
    with pytest.raises(DataError, match="line 4"):
        growing.look()
