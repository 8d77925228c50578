"""The durable log: what was written comes back in order; a torn tail is cut and counted; other damage is refused."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.record.run_log import BEGINNING, Position, RunLog, read_log
from contracts.errors import DataError
from tests.synced import SyncedFiles

Frames = list[tuple[int, bytes]]


def written(directory: Path, frames: Frames, segment_bytes: int = 10**6) -> RunLog:
    log = RunLog(directory, segment_bytes)
    for kind, payload in frames:
        log.append(kind, payload)
    log.close()
    return log


def back(directory: Path, start: Position = BEGINNING) -> Frames:
    return [(frame.kind, frame.payload) for frame in read_log(directory, start)]


@settings(max_examples=30)
@given(frames=st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=60)), max_size=20), size=st.integers(1, 200))
def test_what_was_appended_comes_back_in_order_over_any_number_of_segments(
    tmp_path_factory: pytest.TempPathFactory, frames: Frames, size: int
) -> None:
    directory = tmp_path_factory.mktemp("log")
    written(directory, frames, size)
    assert back(directory) == frames


def test_reading_from_a_position_gives_what_came_after(tmp_path: Path) -> None:
    log = RunLog(tmp_path, 30)
    log.append(1, b"before" * 5)
    position = log.position
    log.append(2, b"after")
    log.close()
    assert back(tmp_path, position) == [(2, b"after")]


@pytest.mark.parametrize("cut", [1, 5, 9, 12])
def test_a_torn_tail_is_cut_counted_and_written_over(tmp_path: Path, cut: int) -> None:
    written(tmp_path, [(1, b"one"), (2, b"two"), (3, b"three")])
    path = tmp_path / "000000.log"
    path.write_bytes(path.read_bytes()[:-cut])
    assert back(tmp_path) == [(1, b"one"), (2, b"two")]
    log = RunLog(tmp_path)
    assert log.torn_bytes == 9 + 5 - cut
    log.append(4, b"four")
    log.close()
    assert back(tmp_path) == [(1, b"one"), (2, b"two"), (4, b"four")]


def test_damage_before_the_end_is_refused(tmp_path: Path) -> None:
    written(tmp_path, [(1, b"one" * 20), (2, b"two")], segment_bytes=10)
    path = tmp_path / "000000.log"
    data = bytearray(path.read_bytes())
    data[12] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(DataError, match=r"000000\.log is damaged at byte 0"):
        back(tmp_path)


def test_an_absurd_length_is_a_torn_tail_and_no_allocation(tmp_path: Path) -> None:
    (tmp_path / "000000.log").write_bytes(b"\xff\xff\xff\x7f" + b"\0" * 40)
    assert back(tmp_path) == []
    log = RunLog(tmp_path)
    log.close()
    assert log.torn_bytes == 44


def synced_and_cut(directory: Path, keep: int) -> Position:
    """A log whose position was stored, and which the disk then shortened to `keep` bytes; returns the position."""
    log = written(directory, [(1, b"one"), (2, b"two"), (3, b"three")])
    path = directory / "000000.log"
    path.write_bytes(path.read_bytes()[:keep])
    return log.position


@pytest.mark.parametrize("keep", [0, 5, 24, 30])
def test_a_log_shorter_than_a_stored_position_goes_on_in_a_new_segment(tmp_path: Path, keep: int) -> None:
    """Not below it: what a later life writes there would be read from the middle of a frame, and lost as a torn tail."""
    stored = synced_and_cut(tmp_path, keep)
    log = RunLog(tmp_path, floor=stored)
    assert log.ended_at == Position(0, 24 if keep >= 24 else 0)
    assert log.position == Position(1, 0)
    log.append(4, b"long enough to reach beyond the place" * 3)
    log.close()
    assert back(tmp_path, stored) == [(4, b"long enough to reach beyond the place" * 3)]
    again = RunLog(tmp_path, floor=stored)
    assert again.ended_at is None
    again.append(5, b"five")
    again.close()
    assert [kind for kind, _ in back(tmp_path, stored)] == [4, 5]


def test_a_lost_segment_that_a_position_names_is_not_written_again(tmp_path: Path) -> None:
    log = written(tmp_path, [(1, b"one" * 20), (2, b"two")], segment_bytes=10)
    (tmp_path / "000001.log").unlink()
    again = RunLog(tmp_path, 10, floor=log.position)
    assert again.position == Position(2, 0)
    again.append(3, b"three")
    again.close()
    assert back(tmp_path, log.position) == [(3, b"three")]


def test_a_log_that_reaches_the_stored_position_goes_on_where_it_ends(tmp_path: Path) -> None:
    stored = written(tmp_path, [(1, b"one")]).position
    log = RunLog(tmp_path, floor=stored)
    assert (log.ended_at, log.position) == (None, stored)
    log.close()


def spoilt(directory: Path, offset: int) -> None:
    path = directory / "000000.log"
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def test_a_bad_byte_before_a_stored_position_cuts_nothing_that_came_after(tmp_path: Path) -> None:
    stored = written(tmp_path, [(1, b"one"), (2, b"two")]).position
    written(tmp_path, [(3, b"three")])
    spoilt(tmp_path, 10)
    log = RunLog(tmp_path, floor=stored)
    assert (log.torn_bytes, log.ended_at) == (0, None)
    log.append(4, b"four")
    log.close()
    assert back(tmp_path, stored) == [(3, b"three"), (4, b"four")]


def test_who_reads_from_before_a_bad_byte_is_told_and_does_not_take_it_for_the_end(tmp_path: Path) -> None:
    stored = written(tmp_path, [(1, b"one"), (2, b"two")]).position
    spoilt(tmp_path, 10)
    with pytest.raises(DataError, match=r"000000\.log is damaged at byte 0, and what came later is whole"):
        list(read_log(tmp_path, floor=stored))


def test_a_position_inside_a_frame_is_refused_and_not_a_torn_tail(tmp_path: Path) -> None:
    """What memr up to commit 57c9e8c made of a log that a power cut had shortened."""
    stored = synced_and_cut(tmp_path, 12)
    log = RunLog(tmp_path)
    log.append(4, b"written below the stored position, and past it")
    log.close()
    with pytest.raises(DataError, match=r"000000\.log: byte 38.* inside a frame.*57c9e8c"):
        back(tmp_path, stored)


def test_a_torn_frame_right_at_a_position_is_a_torn_tail(tmp_path: Path) -> None:
    log = RunLog(tmp_path)
    log.append(1, b"one")
    stored = log.position
    log.append(2, b"two")
    log.close()
    path = tmp_path / "000000.log"
    path.write_bytes(path.read_bytes()[:-1])
    assert back(tmp_path, stored) == []


def test_zeros_behind_the_last_sync_are_a_torn_tail_and_no_frames(tmp_path: Path) -> None:
    """Nine zeros have the right checksum: found by a block that never reached the disk."""
    written(tmp_path, [(1, b"one")])
    path = tmp_path / "000000.log"
    path.write_bytes(path.read_bytes() + bytes(4096) + b"later blocks came")
    assert back(tmp_path) == [(1, b"one")]
    log = RunLog(tmp_path)
    assert log.torn_bytes == 4096 + 17
    with pytest.raises(ValueError, match="kind 0"):
        log.append(0, b"")
    log.close()


def test_every_frame_so_far_is_on_disk_after_a_sync(tmp_path: Path, synced_files: SyncedFiles) -> None:
    log = RunLog(tmp_path)
    log.append(1, b"sampled")
    assert tmp_path / "000000.log" not in synced_files, "a frame alone costs no sync"
    log.sync()
    assert tmp_path / "000000.log" in synced_files
    assert synced_files.missing(tmp_path) == []
    log.close()


def test_a_segment_is_on_disk_before_the_next_one_begins(tmp_path: Path, synced_files: SyncedFiles) -> None:
    """A power cut would leave a hole in the middle of the log otherwise, which no reader takes."""
    log = RunLog(tmp_path, segment_bytes=1)
    log.append(1, b"the whole first segment")
    log.append(1, b"the second one")
    assert tmp_path / "000000.log" in synced_files
    assert synced_files.missing(tmp_path) == ["000001.log"]
    log.close()
