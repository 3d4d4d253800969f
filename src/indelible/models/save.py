"""Writing a model so that plain transformers loads it: whole or not at all, and never over something else."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from safetensors import SafetensorError
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.errors import StoreError
from indelible.models.bundled.fetch import quiet_transformers


def check_free(folder: Path) -> None:
    """Say at once that a folder cannot be written, before anything is computed for it.

    Raises:
        StoreError: if it exists and holds anything, or cannot be made.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise StoreError(f"{folder} exists already.", "Give a folder that does not, or remove it.")
    check_writable(folder)


def check_writable(folder: Path) -> None:
    """Say at once that a folder cannot be made or written into.

    Raises:
        StoreError: if it, or the nearest folder above it that exists, is a file or may not be written.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise StoreError(f"{there} is a file.", "Give a folder.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise StoreError(f"{there} may not be written.", "Give another folder.")


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write weights (in the precision that they have), settings and tokenizer.

    Args:
        model: an ordinary transformers model.
        tokenizer: the model's.
        folder: must not exist, or be empty.

    Raises:
        StoreError: if the folder holds something, or cannot be written.
    """
    check_free(folder)
    unfinished: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        with quiet_transformers():
            model.save_pretrained(unfinished)
            tokenizer.save_pretrained(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(folder)
    except (OSError, SafetensorError, ValueError) as error:  # a full disk, or generation settings that contradict
        reason = (isinstance(error, OSError) and error.strerror) or str(error).partition("\n")[0]
        raise StoreError(f"{folder} cannot be written: {reason}.", "Check the folder and its space.") from error
    finally:
        if unfinished is not None:
            shutil.rmtree(unfinished, ignore_errors=True)
