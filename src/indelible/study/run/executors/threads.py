"""With how many threads each step computes: in every run of a folder with as many as its finished steps were.

Two threads add up in another order than one, so that numbers differ by rounding, and now and then an answer with them.
A study that goes on with another number of workers, or on another machine, is to come out as it would have at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def computing_with(threads: int) -> Iterator[None]:
    """Have this process compute with so many threads in the block."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)
