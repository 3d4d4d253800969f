"""Texts side by side: how suffixes of many lengths are laid out in rows, and what they see of each other and before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import Any

import torch
from torch import Tensor

from indelible.edits.solving.texts import Row
from indelible.models.batches import padded

TextRows = Sequence[Sequence[int]]
"""Rows of texts, by their numbers."""


@dataclass(frozen=True)
class Placed:
    """A text with the fact it belongs to, its weight in that fact's loss, and whether it is the fact's bare prompt."""

    fact: int
    row: Row
    weight: float
    bare: bool
    start: int
    """Where its suffix begins: at the subject's last token, or at 0."""

    @property
    def prefix(self) -> tuple[int, ...]:
        """Tokens before the suffix."""
        return self.row.tokens[: self.start]

    @property
    def read(self) -> tuple[int, ...]:
        """The suffix; the last target token is predicted, never read."""
        return self.row.tokens[self.start : -1 if self.row.target else None]

    @property
    def length(self) -> int:
        """Of the suffix."""
        return len(self.read)


@dataclass(frozen=True)
class Suffixes:
    """What is left to compute each step: texts from the subject's last token on, or whole where nothing is cached.

    ``x`` texts, ``r`` rows of them, ``s`` positions in a row (padded on the right), ``q`` places where a target token
    is predicted, ``e`` places where the word after an essence is.
    """

    texts: Sequence[int]
    tokens_rs: Tensor
    positions_rs: Tensor
    kept_rs: Tensor  # where each position is kept among those of all texts
    rows_x: Tensor
    subjects_x: Tensor  # position of the subject's last token in its row
    facts_x: Tensor
    rows_q: Tensor
    places_q: Tensor
    facts_q: Tensor
    targets_q: Tensor
    shares_q: Tensor  # weight of each target token in its fact's loss
    rows_e: Tensor
    places_e: Tensor
    facts_e: Tensor
    mask: Tensor  # what the model is given: (r, s), or (r, 1, s, keys of prefixes and of the row)
    cache: Any = None  # of the prefixes; None where no text has any
    states_rsh: Tensor | None = None  # what is resumed from; None where nothing lies below


def lay_out(
    placed: Sequence[Placed], rows: TextRows, begins: Sequence[int], numbers: dict[int, int], device: torch.device
) -> Suffixes:
    """Some texts in rows of one batch.

    Args:
        begins: where each text is kept among all; behind the last, what padding is taken from.
        numbers: of facts, as they are counted now.
    """
    texts = [*chain(*rows)]
    laid: list[tuple[int, int, Placed]] = []  # row, where the text begins there, and the text
    for number, row in enumerate(rows):
        starts = accumulate((placed[index].length for index in row), initial=0)
        laid += [(number, start, placed[index]) for index, start in zip(row, starts, strict=False)]

    def side_by_side(values: Callable[[int], Iterable[int]], fill: int = 0) -> Tensor:
        return padded([[*chain.from_iterable(map(values, row))] for row in rows], fill)[0].to(device)

    def columns(table: Sequence[Sequence[int]], count: int) -> Iterable[Tensor]:
        return torch.tensor(table, dtype=torch.long, device=device).view(-1, count).T

    rows_x, subjects_x, facts_x = columns(
        [(row, at + one.row.subject - one.start, numbers[one.fact]) for row, at, one in laid], 3
    )
    asked = [(row, at + one.length - left, one, left) for row, at, one in laid for left in range(one.row.target, 0, -1)]
    rows_q, places_q, facts_q, targets_q = columns(
        [(row, place, numbers[one.fact], one.row.tokens[-left]) for row, place, one, left in asked], 4
    )
    rows_e, places_e, facts_e = columns(
        [(row, at + one.length - 1, numbers[one.fact]) for row, at, one in laid if not one.row.target], 3
    )
    return Suffixes(
        texts,
        side_by_side(lambda index: placed[index].read),
        side_by_side(lambda index: range(placed[index].start, placed[index].start + placed[index].length)),
        side_by_side(lambda index: range(begins[index], begins[index + 1]), begins[-1]),
        rows_x,
        subjects_x,
        facts_x,
        rows_q,
        places_q,
        facts_q,
        targets_q,
        torch.tensor([one.weight / one.row.target for _, _, one, _ in asked], device=device),
        rows_e,
        places_e,
        facts_e,
        padded([[1] * sum(placed[index].length for index in row) for row in rows])[0].to(device),
    )


def seen(placed: Sequence[Placed], rows: TextRows, slots: dict[tuple[int, ...], list[int]]) -> tuple[Tensor, Tensor]:
    """Which slots of prefixes stand before the rows, ``(r, p)``, and what each position sees of these and of its row,
    ``(r, s, p + s)``: its own text up to itself, and its prefix. Padding sees itself.

    Args:
        slots: of each prefix.
    """
    before = [[*dict.fromkeys(chain(*(slots[placed[index].prefix] for index in row)))] for row in rows]
    slots_rp, _ = padded(before)
    prefix, width = slots_rp.shape[1], max(sum(placed[index].length for index in row) for row in rows)
    sees = torch.zeros(len(rows), width, prefix + width, dtype=torch.bool)
    sees[:, range(width), range(prefix, prefix + width)] = True
    for number, row in enumerate(rows):
        column, at = {slot: place for place, slot in enumerate(before[number])}, 0
        for one in (placed[index] for index in row):
            own = sees[number, at : at + one.length]
            own[:, [column[slot] for slot in slots[one.prefix]]] = True
            own[:, prefix + at : prefix + at + one.length] = torch.ones(one.length, one.length, dtype=torch.bool).tril()
            at += one.length
    return slots_rp, sees
