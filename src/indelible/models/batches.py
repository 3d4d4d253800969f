"""Batches: rows padded to one length, texts of like length together, and smaller batches where memory is short."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


def padded(
    rows: Sequence[Sequence[int]], fill: int = 0, *, side: Literal["left", "right"] = "right"
) -> tuple[Tensor, Tensor]:
    """Rows of any lengths in one tensor, with ``fill`` beside the shorter ones, and a mask (1 at a row's own, else 0).

    Both are int64 of shape ``(rows, longest row)``, on the CPU.
    """

    def whole(parts: Sequence[Sequence[int]], value: int) -> Tensor:
        tensors = [torch.tensor(part, dtype=torch.long) for part in parts]
        return pad_sequence(tensors, batch_first=True, padding_value=value, padding_side=side)

    return whole(rows, fill), whole([[1] * len(row) for row in rows], 0)


def in_pieces(items: Sequence[Item], size: int) -> list[Sequence[Item]]:
    """The items in order, ``size`` at a time, the last piece perhaps shorter."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def of_like_length(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Batches (as places in ``lengths``) of texts of like length, the shortest first.

    Each holds as many as ``tokens`` allows, padding included; a text that is longer by itself has a batch of its own.
    """
    batches: list[list[int]] = [[]]
    for place in sorted(range(len(lengths)), key=lengths.__getitem__):  # ascending, so the newest is the longest
        if batches[-1] and (len(batches[-1]) + 1) * lengths[place] > tokens:
            batches.append([])
        batches[-1].append(place)
    return batches if batches[0] else []


def in_halves(work: Callable[[Sequence[Item]], Sequence[Result]], batch: Sequence[Item]) -> list[Result]:
    """What comes of a batch of at least one item; of its halves, and theirs, when a GPU's memory does not hold it.

    ``work`` gives results in the order of the items, and is called again for the parts of what it has failed on. Raises
    torch.OutOfMemoryError if the memory does not hold one item.
    """
    try:
        return list(work(batch))
    except torch.OutOfMemoryError:
        if len(batch) == 1:
            raise
    # Outside the handler, where the failed attempt's tensors are no longer held by the exception.
    torch.cuda.empty_cache()
    middle = len(batch) // 2
    return [*in_halves(work, batch[:middle]), *in_halves(work, batch[middle:])]


def most_tokens(model: Any) -> float:
    """How many tokens a causal language model takes at a time; infinitely many where it names no limit."""
    most: float = getattr(model.config.get_text_config(), "max_position_embeddings", None) or math.inf
    if most <= 0:  # -1 stands for no limit in some families
        return math.inf
    # RoBERTa's kin counts positions from behind the padding token on
    tables = [part for part in model.modules() if isinstance(part, nn.Embedding) and part.num_embeddings == most]
    pads = [table.padding_idx for table in tables if table is not model.get_input_embeddings()]
    return most - max((pad + 1 for pad in pads if pad is not None), default=0)


def turning_points(model: Any) -> list[int]:
    """Lengths beyond which a model counts positions otherwise, from the first on (LongRoPE, arXiv 2402.13753).

    A text that grows past one is read anew as another text: its parts do not follow from one another.
    """
    parameters = getattr(model.config.get_text_config(), "rope_parameters", None) or {}
    by_layer = [parameters, *(one for one in parameters.values() if isinstance(one, dict))]
    found = {one["original_max_position_embeddings"] for one in by_layer if one.get("rope_type") == "longrope"}
    return sorted(found)
