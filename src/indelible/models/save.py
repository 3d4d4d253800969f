"""Writing a model so that plain transformers loads it: whole or not at all, and never over something else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from indelible.errors import StoreError
from indelible.files import check_free, is_full_disk, whole_folder
from indelible.models.bundled.fetch import quiet_transformers
from indelible.models.load import LoadedModel


def save_model(loaded: LoadedModel, folder: Path, check: Callable[[Path], None] = lambda written: None) -> None:
    """Write weights (in the precision that they have), settings and tokenizer, and what stood beside it, into a folder
    that is new or empty, and ``check`` what was written: where that raises, nothing stays.

    Raises:
        StoreError: if the folder holds something, or cannot be written.
    """
    check_free(folder)
    with whole_folder(folder) as unfinished, quiet_transformers():
        try:
            loaded.model.save_pretrained(unfinished)
            loaded.tokenizer.save_pretrained(unfinished)
            for name, content in loaded.beside.items():
                (unfinished / name).write_bytes(content)
        except (SafetensorError, ValueError) as error:  # such as generation settings that contradict each other
            if is_full_disk(error):
                raise
            reason = str(error).partition("\n")[0]
            raise StoreError(f"{folder} cannot be written: {reason}.", "Mend what the model says.") from error
        check(unfinished)
        check_free(folder)  # another process may have been quicker, with another model
