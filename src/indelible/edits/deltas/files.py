"""The files of a delta, and how files are written: whole or not at all, whatever becomes of their writer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TENSORS = "update.safetensors"
MANIFEST = "manifest.json"
FILES = (TENSORS, MANIFEST)
"""What ``Edit.save`` writes."""


@contextmanager
def renamed_to(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its name when the block ends well, and is removed when it does not.

    Args:
        path: in a folder that exists; what stood there is replaced.
    """
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", suffix=".tmp", delete=False) as opened:
        unfinished = Path(opened.name)
    try:
        yield unfinished
        unfinished.chmod(0o644)  # temporary files are for their owner alone
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
