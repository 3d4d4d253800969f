"""Folders of deltas, as commands write them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from indelible.edits.deltas.files import MANIFEST, TENSORS
from indelible.errors import StoreError
from indelible.files import check_writable

if TYPE_CHECKING:
    from pathlib import Path

    from indelible.edits.deltas.delta import Edit


def check_out(out: Path, force: bool) -> None:
    """Say at once that a delta cannot be written there.

    Raises:
        StoreError: if the folder cannot be written, holds a delta already, or something else's manifest.
    """
    check_writable(out)
    if (out / MANIFEST).exists() and not (out / TENSORS).is_file():
        raise StoreError(f"{out} has a {MANIFEST} that is no delta's: there is no {TENSORS}.", "Give another folder.")
    if (out / MANIFEST).exists() and not force:
        raise StoreError(f"{out} holds a delta already.", "Give another folder, or --force to replace it.")


def save_edit(done: Edit, out: Path) -> None:
    """Save an edit.

    Raises:
        StoreError: if it cannot be written.
    """
    from safetensors import SafetensorError

    try:
        done.save(out)
    except (OSError, SafetensorError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or error
        raise StoreError(f"{out} cannot be written: {reason}.", "Check the folder and its space.") from None
