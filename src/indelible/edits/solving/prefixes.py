"""Texts laid out so that padding costs least, and what many of them begin with read as trees, once for all."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from indelible.models.batches import padded
from indelible.models.tokens import common_start

Tokens = tuple[int, ...]


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


def packed(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Cut texts, in their order, into rows, of places, that have about equally many tokens, and about ``size`` at most
    where no text is longer."""
    ends = list(accumulate(lengths))
    count = math.ceil(ends[-1] / max(size, *lengths))
    rows: dict[int, list[int]] = {}
    for place, end in enumerate(ends):
        rows.setdefault((end - 1) * count // ends[-1], []).append(place)
    return list(rows.values())


@dataclass(frozen=True)
class Trees:
    """Prefixes as trees of tokens, one to a row, in which those that begin alike share tokens.

    Attributes:
        tokens_rt: padded on the right.
        positions_rt: how many tokens come before each in its prefix.
        sees_rtt: whether a token (rows) comes after another one (columns) in a prefix, or is it.
        slots: of each prefix, where its tokens stand when all rows are laid end to end.
    """

    tokens_rt: Tensor
    positions_rt: Tensor
    sees_rtt: Tensor
    slots: dict[Tokens, list[int]]

    @classmethod
    def of(cls, prefixes: Iterable[Tokens], size: int) -> Trees | None:
        """Trees of about ``size`` tokens at most; None of prefixes without tokens."""
        ordered = sorted(set(prefixes) - {()})
        if not ordered:
            return None
        new = [len(one) - common_start(one, before) for before, one in zip([(), *ordered[:-1]], ordered, strict=True)]
        rows = [[ordered[place] for place in row] for row in packed(new, size)]
        nodes = [
            {
                node: slot
                for slot, node in enumerate(dict.fromkeys(one[: end + 1] for one in row for end in range(len(one))))
            }
            for row in rows
        ]
        tokens, _ = padded([[node[-1] for node in some] for some in nodes])
        positions, _ = padded([[len(node) - 1 for node in some] for some in nodes])
        width = tokens.shape[1]
        sees = torch.eye(width, dtype=torch.bool).repeat(len(rows), 1, 1)
        slots: dict[Tokens, list[int]] = {(): []}
        for number, (row, some) in enumerate(zip(rows, nodes, strict=True)):
            for node, slot in some.items():
                if len(node) > 1:
                    sees[number, slot] |= sees[number, some[node[:-1]]]
            slots |= {one: [number * width + some[one[: end + 1]] for end in range(len(one))] for one in row}
        return cls(tokens, positions, sees, slots)


def added(sees: Tensor, dtype: torch.dtype) -> Tensor:
    """What attention adds, ``(rows, 1, tokens, keys)``, so that tokens see those keys alone that they are told to."""
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill_(~sees, torch.finfo(dtype).min)
    return mask.unsqueeze(1)


def shared_copy(cache: Any) -> Any:
    """A cache that can grow without the original noticing; the stored tensors themselves are shared."""
    shared = copy.copy(cache)
    shared.layers = [copy.copy(layer) for layer in cache.layers]
    return shared


def by_slot(cache: Any) -> Any:
    """A cache whose keys and values are ``(slots, heads, width)``, all rows laid end to end."""
    flat = shared_copy(cache)
    for layer in flat.layers:
        layer.keys, layer.values = (one.transpose(1, 2).flatten(0, 1) for one in (layer.keys, layer.values))
    return flat


def of_slots(flat: Any, slots_rp: Tensor) -> Any:
    """A cache of rows of these slots, made of one by slot."""
    chosen = shared_copy(flat)
    for layer in chosen.layers:
        layer.keys, layer.values = (one[slots_rp].transpose(1, 2) for one in (layer.keys, layer.values))
    return chosen
