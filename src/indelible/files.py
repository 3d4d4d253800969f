"""Files and folders: read as UTF-8, and written whole or not at all, whatever becomes of their writer.

What is written goes under a temporary name beside its place, is flushed to the disk and renamed, so that a killed
process leaves either the whole or nothing; a disk that is full or may not be written is one clear StoreError.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from os.path import expanduser
from pathlib import Path

from filelock import FileLock, Timeout

from indelible.errors import IndelibleError, IndelibleWarning, StoreError, near_names

UNFINISHED = ".writing-"
"""How the names of unfinished files and folders begin; nobody else writes such names."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_UNWRITABLE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENAMETOOLONG),
    *(errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY),
}
_STALE_SECONDS = 24 * 3600
_SCRATCH, _INSIDE = "indelible-", "files"


def read_text(path: Path, what: str, error: type[IndelibleError]) -> str:
    """A file's text without a byte order mark; ``what`` ("facts file") it is, for messages.

    Raises:
        error: if it is missing (with near names in its folder), a folder, unreadable, or not UTF-8.
    """
    raw = read_bytes(path, what, error)
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as bad:
        # the decoder counts from the end of a byte order mark, where there is one
        offset = bad.start + 3 * raw.startswith(b"\xef\xbb\xbf")
        line = raw.count(b"\n", 0, offset) + 1
        raise error(
            f"{path} is not UTF-8: byte 0x{raw[offset]:02x} at offset {offset} (line {line}).", "Save it as UTF-8."
        ) from None


def read_bytes(path: Path, what: str, error: type[IndelibleError]) -> bytes:
    """A file's bytes; arguments and errors as of ``read_text``."""
    try:
        device = path.is_char_device() or path.is_block_device()  # some of which never end
        raw = b"" if device else path.read_bytes()
    except IsADirectoryError:
        raise error(f"{path} is a folder, not a {what}.", "Name the file in it.") from None
    except (FileNotFoundError, NotADirectoryError):
        beside: list[str] = []
        with suppress(OSError):
            beside = [other.name for other in path.parent.iterdir()]
        near = near_names(path.name, beside)
        hint = f"Did you mean {' or '.join(map(repr, near))}?" if near else "Check the path."
        raise error(f"There is no {what} {path}.", hint) from None
    except OSError as bad:
        raise error(f"The {what} {path} cannot be read: {bad.strerror}.", "Check its name and permissions.") from None
    except ValueError:  # a NUL character, which no system takes
        raise error(f"There is no {what} {str(path)!r}: no name can hold a NUL character.", "Check the path.") from None
    if device:
        raise error(f"{path} is a device, not a {what}.", "Name a file.")
    return raw


def written_path(text: str, error: type[IndelibleError], folder: Path = Path()) -> Path:
    """The path that a user wrote, from a folder, with ``~`` and ``~user`` written out; there need be nothing.

    Raises:
        error: if no path can be so: of an unknown user, too long, with a NUL character, links in a circle, or below a
            folder that may not be looked into.
    """
    whole = expanduser(text)  # noqa: PTH111 -- which passes over users that it does not know
    if text.startswith("~") and whole == text:
        raise error(f"{text!r:.80}: there is no user of that name.", "Write ./~ for a file whose name begins so.")
    path = folder / whole
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            path.stat()
    except OSError as bad:
        raise error(f"{text!r:.80} cannot be used: {bad.strerror}.", "Check the path.") from None
    except ValueError:
        raise error(f"{text!r:.80}: no name can hold a NUL character.", "Check the path.") from None
    return path


def damaged(path: Path) -> StoreError:
    """The error for a file of a run folder that is not as it was written."""
    return StoreError(f"{path} is damaged.", "Remove it, and run the study again: finished steps are kept.")


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its name when the block ends well, and is removed when it does not.

    The folder has to exist; a file of that name is replaced.

    Raises:
        StoreError: if the disk is full or may not be written, or the file would have no name to be seen.
    """
    check_named(path)
    unfinished = _beside(path)
    with disk_errors(path):
        sweep(path.parent, prefix=f"{UNFINISHED}{path.name}-")
        unfinished.touch(exist_ok=False)
        try:
            yield unfinished
            _flush(unfinished)
            unfinished.replace(path)
            _flush(path.parent)
        finally:
            with suppress(OSError):  # on a disk that cannot be written, nothing was
                unfinished.unlink(missing_ok=True)


@contextmanager
def whole_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder beside ``folder`` that takes its name when the block ends well, and is removed when it does not.

    ``replace`` puts it in the place of what stands there; without, another process's folder that was finished sooner
    stays: both were to write the same. Folders above it are made.

    Raises:
        StoreError: if the disk is full or may not be written.
    """
    unfinished = _beside(folder)
    with disk_errors(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        sweep(folder.parent, prefix=f"{UNFINISHED}{folder.name}-")
        unfinished.mkdir()
        try:
            yield unfinished
            for path in (*unfinished.rglob("*"), unfinished):
                _flush(path)
            _rename(unfinished, folder, replace)
            _flush(folder.parent)
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def unkept(what: str) -> Iterator[None]:
    """Go on where something cannot be written into a cache, and say, once, that ``what`` is not kept."""
    try:
        yield
    except StoreError as error:
        fix = "Set INDELIBLE_CACHE to a folder with room that you may write to."
        warnings.warn(f"{what} not kept for the next time: {error.what} {fix}", IndelibleWarning, stacklevel=3)


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for the block alone. Those of killed processes go: nobody holds their locks any more.

    The lock is held before there is a place for files, so that a folder without that place is left to its maker.

    Raises:
        StoreError: if the disk with the system's temporary files is full, or may not be written.
    """
    home = Path(tempfile.gettempdir())
    for left in home.glob(f"{_SCRATCH}*/{_INSIDE}"):
        with suppress(OSError, StoreError, Timeout), FileLock(left.with_name("lock"), timeout=0):
            remove(left.parent)
    with ExitStack() as held:
        with disk_errors(home):
            folder = Path(held.enter_context(tempfile.TemporaryDirectory(prefix=_SCRATCH, ignore_cleanup_errors=True)))
            held.enter_context(FileLock(folder / "lock", thread_local=False))
            inside = folder / _INSIDE
            inside.mkdir()
        try:
            yield inside
        except Exception as error:
            if is_full_disk(error) and not isinstance(error, IndelibleError):
                raise full_disk(home, error) from error
            raise


def sweep(folder: Path, *, prefix: str = UNFINISHED, older_than: float | None = _STALE_SECONDS) -> None:
    """Remove what killed writers have left in a folder under such names.

    ``older_than`` is in seconds: nobody writes for more than a day; None where the caller knows that all writers are
    dead, whatever a clock says that may have been set back.
    """
    with suppress(OSError):
        for path in [path for path in folder.iterdir() if path.name.startswith(prefix)]:
            with suppress(OSError, StoreError):  # its own writer has just removed it
                if older_than is None or time.time() - path.lstat().st_mtime >= older_than:
                    remove(path)


def remove(path: Path) -> None:
    """Take away a file or a whole folder, if it is there; a link goes without what it leads to.

    Raises:
        StoreError: if it may not be, or the disk is so full that nothing can be.
    """
    with disk_errors(path):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def check_free(folder: Path) -> None:
    """Raise a StoreError if a folder holds anything or cannot be made, before anything is computed for it."""
    with disk_errors(folder):
        taken = folder.is_file() or (folder.is_dir() and any(folder.iterdir()))
    if taken:
        raise StoreError(f"{folder} exists already.", "Give a folder that does not, or remove it.")
    check_writable(folder)


def check_named(path: Path) -> None:
    """Raise a StoreError if a file or folder, or one above it, would have a name of nothing but blanks."""
    if not all(part.strip() for part in path.parts):
        raise StoreError(f"{str(path)!r} has no name that could be seen.", "Give it letters.")


def check_writable(folder: Path) -> None:
    """Raise a StoreError if a folder, or the nearest above it that exists, is a file or may not be written."""
    check_named(folder)
    with disk_errors(folder):
        there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise StoreError(f"{there} is a file.", "Give a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(f"{there} may not be written.", "Give another folder.")


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """Turn what the system says about a full disk or an unwritable place into one clear StoreError; the rest passes.

    Errors about files that lie elsewhere pass too: they are not the place's.

    Args:
        place: the file or folder that is written in the block.
    """
    try:
        yield
    except IndelibleError:
        raise
    except Exception as error:
        if is_full_disk(error):
            raise full_disk(place, error) from error
        if isinstance(error, OSError) and error.errno in _UNWRITABLE and _concerns(error, place):
            reason = os.strerror(error.errno)
            raise StoreError(f"{place} cannot be written: {reason}.", "Check the folder, or give another.") from error
        raise


def is_full_disk(error: BaseException) -> bool:
    """Whether the error, or what caused it, says that the disk is full (libraries wrap it in their own kinds)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        text = str(seen).lower()
        if "no space left on device" in text or any(f"(os error {code})" in text for code in _FULL):
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def full_disk(place: Path, error: BaseException) -> StoreError:
    """The error for a disk on which nothing more fits: the one that the error names, or else the place's."""
    named = getattr(error, "filename", None)
    where = Path(str(named)).parent if named else place
    return StoreError(
        f"The disk that holds {where} is full.", "Make room and run the same command again; finished steps are kept."
    )


def _beside(path: Path) -> Path:
    """A name that nobody else uses. Made by hand: what ``tempfile`` makes is closed to all but its owner."""
    return path.with_name(f"{UNFINISHED}{path.name}-{uuid.uuid4().hex[:12]}")


def _rename(unfinished: Path, folder: Path, replace: bool) -> None:
    """Give a finished folder its name. An old one is out of the way for no longer than that takes."""
    old = _beside(folder)
    while True:
        if replace:
            with suppress(FileNotFoundError):
                folder.rename(old)
        try:
            unfinished.rename(folder)
        except OSError as error:
            taken = error.errno in (errno.ENOTEMPTY, errno.EEXIST)
            if not taken and not folder.is_dir():
                with suppress(FileNotFoundError):
                    old.rename(folder)
                raise
            if not replace and folder.is_dir():
                return
            remove(old)  # another process was quicker: what it has put there goes next, if it has not gone already
        else:
            remove(old)
            return


def _concerns(error: OSError, place: Path) -> bool:
    if error.filename is None:
        return True
    named, folder = Path(str(error.filename)).absolute(), place.parent.absolute()
    return named.is_relative_to(folder) or folder.is_relative_to(named)


def _flush(path: Path) -> None:
    """Have the system put a file's or folder's content on the disk, where it can."""
    if os.name == "nt":
        return
    try:
        handle = os.open(path, os.O_RDONLY)
    except PermissionError:  # a folder may be writable but not readable
        return
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # some network disks flush no folders
            raise
    finally:
        os.close(handle)
