"""Random state that belongs to one run: seeded inside, given back as it was outside."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

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


@dataclass
class Drawn:
    """Some of many things, in another order each time that all have been drawn."""

    items: Sequence[Any]
    generator: torch.Generator
    rest: list[int] = field(default_factory=list)

    @classmethod
    def of(cls, items: Sequence[Any], seed: int) -> Self:
        """Drawn the same under the same seed, whatever others draw."""
        return cls(items, torch.Generator().manual_seed(seed % 2**63))

    def some(self, count: int) -> list[Any]:
        """So many different ones, or all if there are fewer."""
        found: list[int] = []
        while len(found) < min(count, len(self.items)):
            if not self.rest:
                self.rest = torch.randperm(len(self.items), generator=self.generator).tolist()
            place = self.rest.pop()
            if place not in found:
                found.append(place)
        return [self.items[place] for place in found]
