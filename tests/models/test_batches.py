"""Padding, batches of like length, and halves where memory is short."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from indelible.models.batches import in_halves, in_pieces, most_tokens, of_like_length, padded
from tiny_families import SHAPE, build_family
from tiny_models import build_model


def test_rows_are_padded_on_either_side() -> None:
    numbers, mask = padded([(5, 6, 7), [8], []], 9)
    assert numbers.tolist() == [[5, 6, 7], [8, 9, 9], [9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    numbers, mask = padded([(5, 6, 7), [8]], side="left")
    assert numbers.tolist() == [[5, 6, 7], [0, 0, 8]] and mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert numbers.dtype == mask.dtype == torch.int64


def test_texts_of_like_length_share_a_batch_within_the_budget() -> None:
    lengths = [4, 2, 9, 2, 3, 20]
    batches = of_like_length(lengths, 10)
    assert batches == [[1, 3, 4], [0], [2], [5]]
    assert of_like_length(lengths, 1000) == [[1, 3, 4, 0, 2, 5]]
    assert of_like_length([], 10) == []


def test_pieces_are_in_order_and_the_last_may_be_shorter() -> None:
    assert in_pieces("abcde", 2) == ["ab", "cd", "e"] and in_pieces([], 2) == []


@pytest.mark.parametrize("room", [1, 2, 3, 10])
def test_what_memory_does_not_hold_is_halved_until_it_does(room: int) -> None:
    done: list[Sequence[int]] = []

    def work(items: Sequence[int]) -> list[int]:
        if len(items) > room:
            raise torch.OutOfMemoryError
        done.append(items)
        return [item * item for item in items]

    assert in_halves(work, range(7)) == [0, 1, 4, 9, 16, 25, 36]
    assert [item for items in done for item in items] == list(range(7))


def test_one_item_that_memory_does_not_hold_is_an_error() -> None:
    def work(items: Sequence[int]) -> list[int]:
        raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        in_halves(work, [1, 2, 3])


def test_how_many_tokens_a_model_takes() -> None:
    assert most_tokens(build_model("llama", 400)) == 128
    roberta = build_family("roberta", 400, settings={**SHAPE, "is_decoder": True, "pad_token_id": 1})
    most = int(most_tokens(roberta))
    assert most == 126  # it counts positions from 2 on
    assert roberta(torch.full((1, most), 5)).logits.shape[1] == most
    with pytest.raises((IndexError, RuntimeError)):
        roberta(torch.full((1, most + 1), 5))
    assert most_tokens(build_family("xlnet", 400, settings={"d_model": 16, "n_layer": 1, "n_head": 2})) == math.inf
