"""Which way of reading a model is right cannot be known from its family: each exam proves it on a batch of its own.

A cache is not safe everywhere, and masks and positions from outside even less so. There are models that make these
themselves, that count positions from 0 again, that mix or drop their recurrent state when several tokens come at once
or rows change places, that lose a tuned prefix, or that know no such cache. The fastest way is kept whose answers are
those of plain whole passes over single texts.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from indelible.errors import ModelError
from indelible.exam.scoring import WAYS, Reader

Done = TypeVar("Done")

TOLERANCE = 1e-3
"""Nats a token by which a text's log-probability may differ from that of a plain pass."""
ROUNDING = 1.0
"""Or so many units in the last place of the largest logit, of those that are highest or of the text's own tokens.

Only in half precision this is more than TOLERANCE: 0.2 nats with SmolLM2-135M in bfloat16, which is off by 0.02 with a
cache."""

PROVED_TOKENS = 4
"""What a proof reads on a cache, at once and one by one, where there is room: a text of one token never comes there."""


@dataclass(frozen=True)
class Claim:
    """What a reader has found of a text after a prompt, both in tokens."""

    prompt: tuple[int, ...]
    text: tuple[int, ...]
    log_prob: float
    written: bool = False  # greedily, by the model

    def begins_with(self, other: Claim) -> bool:
        """Whether its text goes on from the other's, after the same prompt."""
        return self.prompt == other.prompt and self.text[: len(other.text)] == other.text

    def trouble(self, logits_tv: Tensor, dtype: torch.dtype) -> str | None:
        """What of this is not confirmed by a plain pass, of whose logits these are the text's."""
        chosen_t = logits_tv[range(len(self.text)), list(self.text)]
        # Not of all logits: some families rule words out by the lowest number there is.
        largest = torch.stack([logits_tv.max(-1).values, chosen_t]).abs().max()
        allowed = max(TOLERANCE, ROUNDING * torch.finfo(dtype).eps * float(largest))
        plain = float((chosen_t - logits_tv.logsumexp(-1)).double().sum())
        both_nan = math.isnan(plain) and math.isnan(self.log_prob)  # a model that has come to grief, read rightly
        if not (self.log_prob == plain or abs(plain - self.log_prob) <= allowed * len(self.text) or both_nan):
            return f"the log-probability of a text differs by {abs(plain - self.log_prob):.2g} nats"
        if self.written and float((logits_tv.max(-1).values - chosen_t).max()) > allowed:
            return "another text is written"
        return None


@dataclass
class Ways:
    """From which of WAYS on the right one is sought; whoever asks a model again and again keeps this, as what was wrong
    in one exam need not be tried in the next."""

    first: int = 0


def proved(model: Any, work: Callable[[Reader], tuple[Done, Sequence[Claim]]], ways: Ways) -> tuple[Reader, Done]:
    """The fastest reader whose work is right, and that work; ``ways`` begins with it from then on.

    Args:
        work: done with one reader after another; returns its results, and what of them is held against plain passes.

    Raises:
        ModelError: if in no way the model is read as in plain passes.
    """

    @cache
    def plain(prompt: tuple[int, ...], text: tuple[int, ...]) -> Tensor:
        return Reader(model).plain([*prompt, *text[:-1]], len(text))

    def trouble_with(claims: Sequence[Claim]) -> str | None:
        """The first; one plain pass serves all claims on the beginnings of one text."""
        for claim in claims:
            texts = [one.text for one in claims if one.begins_with(claim)]
            found = claim.trouble(plain(claim.prompt, max(texts, key=len))[: len(claim.text)], model.dtype)
            if found is not None:
                return found
        return None

    troubles: list[str] = []
    for number, way in enumerate(WAYS[ways.first :], ways.first):
        reader = Reader(model, way)
        try:
            with warnings.catch_warnings(action="ignore"):  # of what a way does that may not be taken
                done, claims = work(reader)
            trouble = trouble_with(claims)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # a model may raise whatever it likes when it is not made for this
            trouble = f"{type(error).__name__}: {next(iter(str(error).splitlines()), 'no reason given')}"
        if trouble is None:
            if troubles and not way.usual:
                warnings.warn(
                    f"{type(model).__name__} does not answer as in plain passes when it is read"
                    f" {WAYS[ways.first].name}; it is read {way.name}, which is slower.",
                    stacklevel=2,
                )
            ways.first = number
            return reader, done
        troubles.append(trouble)
    raise ModelError(
        f"{type(model).__name__} cannot be asked: even {WAYS[-1].name} it does not answer as in plain passes"
        f" ({troubles[-1].rstrip('.')}).",
        "Give a causal language model (a decoder).",
    )
