"""What the system says about a disk that is full or may not be written, as one clear error."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from indelible.errors import StoreError

_UNWRITABLE = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EEXIST,
    errno.EISDIR,
    errno.ENAMETOOLONG,
}
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def told(folder: Path) -> Iterator[None]:
    """Turn what the system says about a full or unwritable disk into one clear StoreError; let the rest pass."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if is_full_disk(error):
            raise full_disk(folder, error) from error
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:
            raise unwritable(folder, error) from error
        raise


def is_full_disk(error: BaseException) -> bool:
    """Whether the error, or what caused it, says that the disk is full (libraries wrap it in their own kinds)."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _FULL:
            return True
        if "no space left on device" in str(seen).lower():
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def full_disk(folder: Path, error: BaseException) -> StoreError:
    """The error for a disk on which nothing more fits: the one the error names, or else the run folder's."""
    named = getattr(error, "filename", None)
    place = Path(str(named)).parent if named else folder
    return StoreError(
        f"The disk that holds {place} is full.", "Make room and run the same command again; finished steps are kept."
    )


def unwritable(folder: Path, error: OSError) -> StoreError:
    """The error for a folder that the system does not let us write or read."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    return StoreError(f"The run folder {folder} cannot be used: {reason}.", "Choose another --out.")
