"""Data, then the name, then the folder: the order of every durable write, and what a reader takes of a torn file."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from storage.durable import (
    make_directory,
    place_folder,
    remove_folder,
    replace_file,
    swap_file,
    sync_directory,
    sync_folder,
    whole_lines,
    write_file,
)
from tests.synced import SyncedFiles

Synced = list[tuple[str, bool]]


@pytest.fixture
def synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Synced:
    """Each path that is synced, and whether `new` stood under its name by then."""
    found: Synced = []

    def fsync(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        found.append((str(path.relative_to(tmp_path)), (tmp_path / "new").exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    return found


def test_a_replaced_file_is_synced_before_its_rename_and_the_folder_after(tmp_path: Path, synced: Synced) -> None:
    replace_file(tmp_path / "new", b"x")
    assert synced == [(".new.partial", False), (".", True)]
    swap_file(tmp_path / "new", b"y")
    assert (tmp_path / "new").read_bytes() == b"y"
    assert [path for path, _ in synced[2:]] == [".new.partial"]


def test_what_the_buffer_held_is_on_disk_when_a_file_was_written(tmp_path: Path, synced_files: SyncedFiles) -> None:
    write_file(tmp_path / "file", b"held back until somebody flushes")
    assert tmp_path / "file" in synced_files


def test_a_folder_is_synced_before_its_rename_and_the_one_above_after(tmp_path: Path, synced: Synced) -> None:
    (tmp_path / "old").mkdir()
    write_file(tmp_path / "old" / "a", b"a")
    place_folder(tmp_path / "old", tmp_path / "new")
    assert synced == [("old/a", False), ("old", False), (".", True)]


def test_new_folders_are_synced_upwards(tmp_path: Path, synced: Synced) -> None:
    make_directory(tmp_path / "a" / "b" / "c")
    assert [path for path, _ in synced] == ["a/b", "a", "."]


def test_what_a_library_wrote_is_synced_from_below(tmp_path: Path, synced: Synced) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x").write_bytes(b"")
    (tmp_path / "a" / "y").write_bytes(b"")
    sync_folder(tmp_path / "a")
    assert [path for path, _ in synced] == ["a/b/x", "a/b", "a/y", "a", "."]


def test_a_removed_folder_has_lost_its_name_on_disk_before_its_first_file_goes(
    tmp_path: Path, synced: Synced, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "file").write_bytes(b"")
    (tmp_path / ".other.removed").mkdir()
    (tmp_path / ".other.removed" / "rest").write_bytes(b"")
    files_at_sync: list[bool] = []
    really = sync_directory

    def spy(path: Path) -> None:
        files_at_sync.append((tmp_path / ".new.removed" / "file").exists())
        really(path)

    monkeypatch.setattr("storage.durable.sync_directory", spy)
    remove_folder(tmp_path / "new")
    assert files_at_sync == [True]
    assert synced == [(".", False)]
    assert list(tmp_path.iterdir()) == [], "and what an earlier death left half-removed is gone too"


def test_a_folder_goes_although_an_earlier_death_left_one_of_its_name_hidden(tmp_path: Path) -> None:
    for name in (".old.removed", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_text("x")
    remove_folder(tmp_path / "old")
    assert list(tmp_path.iterdir()) == []


def refusing(number: int) -> Callable[[int], None]:
    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    return fsync


def test_a_file_system_without_directory_sync_is_borne_a_failing_disk_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", refusing(errno.EINVAL))
    sync_directory(tmp_path)
    with pytest.raises(OSError, match="Invalid argument"):
        write_file(tmp_path / "x", b"")
    monkeypatch.setattr(os, "fsync", refusing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        sync_directory(tmp_path)


def test_half_a_line_and_zeros_are_no_lines() -> None:
    assert whole_lines(b'{"a": 1}\n{"b\0\0\0": 2}\n{"c": 3}\n{"d"') == [b'{"a": 1}', b'{"c": 3}']
    assert whole_lines(b"") == []
