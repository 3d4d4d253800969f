"""Files of deltas, as commands write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indelible.edits.deltas.manifest import with_suffix
from indelible.errors import StoreError
from indelible.files import check_writable

if TYPE_CHECKING:
    from pathlib import Path


def file_for(out: Path, force: bool) -> Path:
    """The file of a delta that is to be called so, once it is sure that it can be written.

    Raises:
        StoreError: if it cannot, or it is there already.
    """
    file = with_suffix(out)
    check_writable(file.parent)
    if file.is_dir():
        raise StoreError(f"{file} is a folder.", "Give a file.")
    if file.exists() and not force:
        raise StoreError(f"{file} is there already.", "Give another file, or --force to replace it.")
    return file
