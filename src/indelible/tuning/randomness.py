"""Random state that belongs to one run: seeded inside, given back as it was outside."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


@contextlib.contextmanager
def kept_random_state() -> Iterator[None]:
    """Give the generators of Python, numpy and torch (all devices) back as they were when the block ends."""
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng(devices=list(range(torch.cuda.device_count()))):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """As kept_random_state, with all generators seeded inside. Any integer is a seed; numpy takes it modulo 2**32."""
    with kept_random_state():
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.manual_seed(seed)
        yield
