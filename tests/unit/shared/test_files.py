import os
import stat
from pathlib import Path

import pytest

from shared.files import make_folder, quarantine, write_atomically


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the inodes of the files and folders that have been written to disk, in order."""
    inodes: list[int] = []
    fsync = os.fsync

    def record(handle: int) -> None:
        inodes.append(os.fstat(handle).st_ino)
        fsync(handle)

    monkeypatch.setattr(os, "fsync", record)
    return inodes


def inodes(*paths: Path) -> list[int]:
    """Return the inodes of files and folders."""
    return [path.stat().st_ino for path in paths]


@pytest.mark.parametrize(("data", "content"), [(b"\x00\xff", b"\x00\xff"), ("°C", b"\xc2\xb0C")], ids=["bytes", "text"])
def test_a_written_file_has_the_new_content(tmp_path: Path, data: bytes | str, content: bytes) -> None:
    """Text is UTF-8, and nothing else is left in the folder."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    write_atomically(path, data)

    assert path.read_bytes() == content
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("umask", [0o000, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o644])
def test_a_written_file_has_its_mode_whatever_the_umask(tmp_path: Path, mode: int, umask: int) -> None:
    """A file that was readable by all is not any more."""
    path = tmp_path / "file"
    path.touch(0o666)
    previous = os.umask(umask)
    try:
        write_atomically(path, b"new", mode=mode)
    finally:
        os.umask(previous)

    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_a_secret_is_never_readable_by_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file is private before the content is written to it."""
    modes: list[int] = []
    replace = Path.replace

    def record(temporary: Path, target: Path) -> Path:
        modes.append(stat.S_IMODE(temporary.stat().st_mode))
        return replace(temporary, target)

    monkeypatch.setattr(Path, "replace", record)

    write_atomically(tmp_path / "file", b"secret")

    assert modes == [0o600]


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    """What it points to is not changed."""
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("untouched")
    link.symlink_to(target)

    write_atomically(link, "new")

    assert not link.is_symlink()
    assert (link.read_text(), target.read_text()) == ("new", "untouched")


def test_a_write_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old content stays, and the temporary file is removed."""
    path = tmp_path / "file"
    path.write_text("old")

    def fail(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


def test_a_path_that_is_a_folder_is_an_error(tmp_path: Path) -> None:
    """The temporary file is removed."""
    folder = tmp_path / "folder"
    folder.mkdir()

    with pytest.raises(IsADirectoryError):
        write_atomically(folder, "new")

    assert [*tmp_path.iterdir()] == [folder]


def test_content_and_name_are_on_disk_when_the_write_returns(tmp_path: Path, synced: list[int]) -> None:
    """The file is written to disk first, and then the folder with its new name."""
    path = tmp_path / "file"

    write_atomically(path, "new")

    assert synced == inodes(path, tmp_path)


def test_a_write_that_need_not_last_waits_for_no_disk(tmp_path: Path, synced: list[int]) -> None:
    """Health is written every few seconds."""
    write_atomically(tmp_path / "file", "new", durable=False)

    assert synced == []
    assert (tmp_path / "file").read_text() == "new"


def test_missing_folders_are_made_durably_for_their_owner_alone(tmp_path: Path, synced: list[int]) -> None:
    """Each new name is on disk, in the folder above it."""
    make_folder(tmp_path / "a" / "b")

    assert synced == inodes(tmp_path, tmp_path / "a")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("a", "a/b")] == [0o700, 0o700]


def test_a_folder_that_exists_is_not_changed(tmp_path: Path, synced: list[int]) -> None:
    """Its permissions are the owner's choice."""
    tmp_path.chmod(0o755)

    make_folder(tmp_path)

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    assert synced == []


def test_a_corrupt_file_is_renamed_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its content is kept, and the log has the reason and the new name."""
    path = tmp_path / "cache.json"
    path.write_text("{")

    quarantined = quarantine(path, "not JSON")

    assert quarantined == tmp_path / "cache.json.corrupt"
    assert quarantined.read_text() == "{"
    assert not path.exists()
    assert caplog.messages == [f"{path} is corrupt (not JSON); moved to {quarantined}"]


def test_files_quarantined_earlier_are_kept(tmp_path: Path) -> None:
    """Each gets a name of its own."""
    path = tmp_path / "cache.json"
    for content in ("first", "second", "third"):
        path.write_text(content)
        quarantine(path, "not JSON")

    assert sorted(kept.read_text() for kept in tmp_path.glob("cache.json*.corrupt")) == ["first", "second", "third"]


def test_what_belongs_to_a_corrupt_file_is_renamed_with_it(tmp_path: Path) -> None:
    """SQLite finds the log of a quarantined database, and a new database does not read it."""
    for suffix in ("", "-wal"):
        (tmp_path / f"journal.sqlite{suffix}").write_text(f"content{suffix}")

    quarantine(tmp_path / "journal.sqlite", "not a database", companions=("-wal", "-shm"))

    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {"journal.sqlite.corrupt": "content", "journal.sqlite.corrupt-wal": "content-wal"}


def test_a_quarantine_that_fails_is_an_error(tmp_path: Path) -> None:
    """The caller must not take the file for renamed."""
    with pytest.raises(FileNotFoundError):
        quarantine(tmp_path / "missing", "not JSON")


def test_a_quarantine_is_on_disk(tmp_path: Path, synced: list[int]) -> None:
    """After a power cut the corrupt file is not back."""
    (tmp_path / "file").touch()

    quarantine(tmp_path / "file", "empty")

    assert synced == inodes(tmp_path)
