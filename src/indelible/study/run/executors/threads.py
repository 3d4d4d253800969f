"""With how many threads each step computes: in every run of a folder with as many as it was begun with.

Two threads add up in another order than one, so that numbers differ by rounding, and now and then an answer with them.
A study that goes on with another number of workers, or on another machine, is to come out as it would have at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from indelible.files import whole_file
from indelible.hashes import read_sealed, sealed

_THREADS = "threads"
FILE = f"{_THREADS}.json"


def known_threads(folder: Path) -> int | None:
    """The number that a run folder was begun with; None where it was not, or by an older version."""
    return read_sealed(folder / FILE, besides=_THREADS).get(_THREADS)


def keep_threads(folder: Path, threads: int) -> None:
    """Note it for later runs of the folder."""
    with whole_file(folder / FILE) as path:
        path.write_text(json.dumps(sealed({_THREADS: threads})) + "\n", encoding="utf-8")


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Have this process compute with so many threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
