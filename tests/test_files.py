"""Files and folders are written whole or not at all, whatever becomes of their writer."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from indelible.errors import DataError, FactsError, StoreError
from indelible.files import (
    UNFINISHED,
    check_free,
    check_writable,
    disk_errors,
    is_full_disk,
    read_text,
    remove,
    scratch_folder,
    sweep,
    whole_file,
    whole_folder,
)
from small_disks import small_disk


def names(folder: Path) -> list[str]:
    """Everything in a folder, hidden names included."""
    return sorted(path.name for path in folder.iterdir())


def write(path: Path, text: str, *, replace: bool = False, folder: bool = False) -> None:
    """A file of that text, or a folder with such a file in it."""
    if folder:
        with whole_folder(path, replace=replace) as unfinished:
            (unfinished / "deep").mkdir()
            (unfinished / "deep" / "text").write_text(text)
    else:
        with whole_file(path) as unfinished:
            unfinished.write_text(text)


@pytest.mark.parametrize("folder", [False, True])
def test_a_failed_writer_leaves_what_was_there(tmp_path: Path, folder: bool) -> None:
    place = tmp_path / "[odd] *name"
    for text in ("old", "new"):
        write(place, text, replace=True, folder=folder)
        inside = place / "deep" / "text" if folder else place
        assert inside.read_text() == text
        with pytest.raises(ZeroDivisionError), whole_folder(place) if folder else whole_file(place) as unfinished:
            (unfinished / "x" if folder else unfinished).write_text("half")
            raise ZeroDivisionError
        assert inside.read_text() == text and names(tmp_path) == [place.name]


@pytest.mark.parametrize("kind", ["whole_file", "whole_folder"])
def test_a_killed_writer_leaves_nothing_under_the_name_and_is_swept_up_when_old(tmp_path: Path, kind: str) -> None:
    place = tmp_path / "place"
    script = (
        f"import os, pathlib\nfrom indelible import files\n"
        f"with files.{kind}(pathlib.Path({str(place)!r})) as unfinished:\n"
        "    (unfinished if unfinished.is_file() else unfinished / 'x').write_text('half')\n    os.kill(os.getpid(), 9)"
    )
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", script], check=False).returncode == -9
    assert not place.exists() and len(names(tmp_path)) == 2

    write(place, "text", folder=kind == "whole_folder")  # leaves alone what somebody may be writing now
    assert len(names(tmp_path)) == 3
    for path in tmp_path.glob(f"{UNFINISHED}*"):
        os.utime(path, (0, 0))
    write(place, "text", replace=True, folder=kind == "whole_folder")
    assert names(tmp_path) == ["place"]


def test_a_sweep_takes_what_has_the_prefix_and_the_age(tmp_path: Path) -> None:
    for name in (f"{UNFINISHED}a-1", f"{UNFINISHED}b-1", "mine"):
        (tmp_path / name).mkdir()
    sweep(tmp_path)
    assert len(names(tmp_path)) == 3
    sweep(tmp_path, prefix=f"{UNFINISHED}a-", older_than=None)
    assert names(tmp_path) == [f"{UNFINISHED}b-1", "mine"]
    sweep(tmp_path, older_than=None)
    sweep(tmp_path / "gone", older_than=None)
    assert names(tmp_path) == ["mine"]


def test_of_two_writers_of_one_folder_the_quicker_stays_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    place = tmp_path / "above" / "place"
    for replace in (False, True):
        with whole_folder(place, replace=replace) as slow:
            (slow / "text").write_text("slow")
            with whole_folder(place, replace=True) as quick:
                (quick / "text").write_text("quick")
        assert (place / "text").read_text() == ("slow" if replace else "quick")
        assert names(place.parent) == ["place"]


@pytest.mark.parametrize("folder", [False, True])
def test_many_writers_at_once_leave_one_whole_result(tmp_path: Path, folder: bool) -> None:
    place = tmp_path / "place"
    texts = [str(number) * 1000 for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda text: write(place, text, replace=True, folder=folder), texts))
    assert (place / "deep" / "text" if folder else place).read_text() in texts
    assert names(tmp_path) == ["place"]


@pytest.mark.parametrize("replace", [True, False])
def test_a_quicker_writers_folder_may_be_gone_again_when_it_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replace: bool
) -> None:
    rename, refused = Path.rename, []

    def taken_once(path: Path, target: Path) -> Path:
        if path.name.startswith(".writing") and not refused:
            refused.append(path)
            raise OSError(errno.ENOTEMPTY, "Directory not empty")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", taken_once)
    write(tmp_path / "place", "text", replace=replace, folder=True)
    assert refused and (tmp_path / "place" / "deep" / "text").read_text() == "text"
    assert names(tmp_path) == ["place"]


def test_a_folder_takes_the_place_of_a_file_or_a_link_and_spares_what_the_link_leads_to(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "x").touch()
    (tmp_path / "place").symlink_to(tmp_path / "kept")
    write(tmp_path / "place", "text", replace=True, folder=True)
    (tmp_path / "file").touch()
    write(tmp_path / "file", "text", replace=True, folder=True)
    assert names(tmp_path / "kept") == ["x"] and names(tmp_path / "file") == names(tmp_path / "place") == ["deep"]
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    remove(tmp_path / "link")
    remove(tmp_path / "link")
    assert names(tmp_path / "kept") == ["x"]


def test_what_cannot_be_removed_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()

    def full(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(Path, "unlink", full)
    with pytest.raises(StoreError, match="is full"):
        remove(tmp_path / "file")
    (tmp_path / f"{UNFINISHED}left").touch()
    sweep(tmp_path, older_than=None)
    assert names(tmp_path) == [f"{UNFINISHED}left", "file"]


def test_modes_follow_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "file", "text")
        write(tmp_path / "folder", "text", folder=True)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


@pytest.mark.parametrize("folder", [False, True])
def test_a_full_disk_is_one_clear_error_and_leaves_nothing(tmp_path: Path, folder: bool) -> None:
    with pytest.raises(StoreError, match=r"The disk that holds .* is full.*Make room"), small_disk(1000):
        write(tmp_path / "place", "x" * 10_000, folder=folder)
    assert names(tmp_path) == []


def test_a_full_disk_is_seen_through_what_libraries_make_of_it() -> None:
    wrapped = RuntimeError("writing failed")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    rust = Exception(f"I/O error: Disk quota exceeded (os error {errno.EDQUOT})")
    assert is_full_disk(wrapped) and is_full_disk(rust)
    assert not is_full_disk(OSError(errno.EACCES, "denied")) and not is_full_disk(ValueError("os error"))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").touch()
    for place, folder in (("gone/file", False), ("file/x", True), ("folder", False), ("file", True)):
        with pytest.raises(StoreError, match=rf"{place} cannot be written: \w+"):
            write(tmp_path / place, "text", folder=folder)
    for place in ("folder", "file"):
        with pytest.raises(StoreError, match="exists already"):
            check_free(tmp_path / place)
    for check in (check_free, check_writable):
        with pytest.raises(StoreError, match="file is a file"):
            check(tmp_path / "file" / "below" / "it")
        for blank in (" ", "new/\t/x", "\u3000"):
            with pytest.raises(StoreError, match="has no name that could be seen"):
                check(tmp_path / blank)
        check(tmp_path / "new" / "below")
    check_writable(tmp_path / "folder")
    assert names(tmp_path) == ["file", "folder"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    with pytest.raises(StoreError, match="may not be written"):
        check_writable(tmp_path / "new")
    with pytest.raises(StoreError, match="cannot be written: Permission denied"):
        write(tmp_path / "new", "text")


def test_errors_about_other_files_and_other_errors_pass(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), disk_errors(tmp_path / "run" / "place"):
        (tmp_path / "elsewhere").read_text()
    with pytest.raises(ConnectionRefusedError), disk_errors(tmp_path / "place"):
        raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
    with pytest.raises(DataError, match="own"), disk_errors(tmp_path / "place"):
        raise DataError("own")


def test_text_is_read_as_utf8_or_refused_with_the_place_of_the_bad_byte(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_bytes(b"\xef\xbb\xbfgr\xc3\xbc\xc3\x9fe\n")
    assert read_text(path, "facts file", FactsError) == "grüße\n"
    for mark in (b"", b"\xef\xbb\xbf"):
        path.write_bytes(mark + b"one\ntwo \xff")
        with pytest.raises(FactsError, match=rf"byte 0xff at offset {8 + len(mark)} \(line 2\)"):
            read_text(path, "facts file", FactsError)


def test_a_file_that_is_not_there_is_named_with_near_names(tmp_path: Path) -> None:
    (tmp_path / "facts.jsonl").touch()
    with pytest.raises(DataError, match=r"There is no facts file .*fact\.jsonl\. Did you mean 'facts\.jsonl'\?"):
        read_text(tmp_path / "fact.jsonl", "facts file", DataError)
    for place in ("gone/facts.jsonl", "facts.jsonl/below"):
        with pytest.raises(DataError, match=r"There is no data file .*Check the path"):
            read_text(tmp_path / place, "data file", DataError)
    with pytest.raises(DataError, match="is a folder, not a data file"):
        read_text(tmp_path, "data file", DataError)
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        read_text(tmp_path / ("x" * 300), "data file", DataError)


def test_a_scratch_folder_goes_with_its_process_even_if_that_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import os; from indelible.files import scratch_folder\n"
        "with scratch_folder() as folder: (folder / 'x').touch(); os.kill(os.getpid(), 9)"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    assert subprocess.run([sys.executable, "-c", script], env=environment, check=False).returncode == -9
    assert len(names(tmp_path)) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with scratch_folder() as mine, scratch_folder() as other:
        assert len(names(tmp_path)) == 2 and mine != other and not names(mine)
        with pytest.raises(StoreError, match=f"The disk that holds {tmp_path} is full"), scratch_folder():
            raise OSError(errno.ENOSPC, "No space left on device")
    assert names(tmp_path) == []


@pytest.mark.parametrize("error", [DataError, StoreError])
def test_a_device_is_never_read(error: type[DataError | StoreError]) -> None:
    with pytest.raises(error, match=r"^/dev/zero is a device, not a corpus\. Name a file\.$"):
        read_text(Path("/dev/zero"), "corpus", error)
