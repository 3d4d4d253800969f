"""Attention caches of prefixes, cut and joined by rows; and texts grouped so that padding costs least."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


def grouped(lengths: Sequence[int], pass_tokens: int) -> list[list[int]]:
    """Cut ascending lengths into runs, of places, for which padded tokens plus ``pass_tokens`` a run are fewest."""
    starts = [place for place, length in enumerate(lengths) if place == 0 or length > lengths[place - 1]]
    ends = [*starts[1:], len(lengths)]
    best: list[tuple[int, int]] = [(0, 0)]  # cost of everything before a border, and where its last run begins
    for border, end in enumerate(ends):
        options = [
            (best[first][0] + pass_tokens + (end - starts[first]) * lengths[end - 1], first)
            for first in range(border + 1)
        ]
        best.append(min(options))
    runs: list[list[int]] = []
    border = len(starts)
    while border:
        first = best[border][1]
        runs.append(list(range(starts[first], ends[border - 1])))
        border = first
    return runs[::-1]


def hardest(lengths: Sequence[int], groups: Sequence[Sequence[int]]) -> set[int]:
    """Of rows behind so many tokens, padded to one length in groups: those behind the most (windows) and the fewest
    (perhaps nothing but padding), and, of those behind any, the one with the longest padding."""
    padding = {row: max(lengths[other] for other in group) - lengths[row] for group in groups for row in group}
    ordered = sorted(padding, key=lengths.__getitem__)
    return {ordered[0], ordered[-1], max(padding, key=lambda row: (lengths[row] > 0, padding[row]))}


def shared_copy(cache: Any) -> Any:
    """A cache that can grow without the original noticing; the stored tensors themselves are shared."""
    shared = copy.copy(cache)
    shared.layers = [copy.copy(layer) for layer in cache.layers]
    return shared


def joined(caches: Sequence[Any], length: int) -> Any:
    """One cache of all rows, padded on the left to one length."""
    joined = shared_copy(caches[0])
    for place, layer in enumerate(joined.layers):
        for name in ("keys", "values"):
            parts = [getattr(cache.layers[place], name) for cache in caches]
            padded = [functional.pad(part, (0, 0, length - part.shape[2], 0)) for part in parts]
            setattr(layer, name, torch.cat(padded))
        _grow_to(layer, length)
    return joined


def cache_rows(cache: Any, rows: Tensor, length: int) -> Any:
    """Chosen rows of a cache, as many times as they are named, with its last ``length`` positions."""
    chosen = shared_copy(cache)
    for layer in chosen.layers:
        layer.keys, layer.values = layer.keys[rows, :, -length:], layer.values[rows, :, -length:]
        _grow_to(layer, length)
    return chosen


def _grow_to(layer: Any, length: int) -> None:
    """Layers with a sliding window count their positions beside the tensors."""
    if hasattr(layer, "cumulative_length"):
        layer.cumulative_length = length
