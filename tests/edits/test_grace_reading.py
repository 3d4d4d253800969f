"""A codebook gives the same answers however a model is read: padding, caches, masks, generation."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from tiny_edits import edit, logits
from torch import Tensor
from transformers import PreTrainedModel
from worked_facts import CAPITALS

from indelible.models.tokens import encode_prompt
from tiny_families import TABLE, build_family, enliven
from tiny_models import Tokenizer
from untouched import untouched


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def reads(model: PreTrainedModel, adapter: Any, tokens: list[int]) -> Tensor:
    """What the model should answer to one text: no padding and no cache."""
    with adapter.installed(model):
        return logits(model, [tokens], use_cache=False)[0]


def in_rows(texts: list[list[int]], side: str, pad: int) -> tuple[Tensor, Tensor]:
    """Tokens and mask of several texts."""
    longest = max(map(len, texts))
    pads = [[pad] * (longest - len(text)) for text in texts]
    marks = [[0] * len(padding) + [1] * len(text) for text, padding in zip(texts, pads, strict=True)]
    if side == "left":
        rows = [padding + text for text, padding in zip(texts, pads, strict=True)]
    else:
        rows = [text + padding for text, padding in zip(texts, pads, strict=True)]
        marks = [mark[::-1] for mark in marks]
    return torch.tensor(rows), torch.tensor(marks)


def positions(model: PreTrainedModel, mask: Tensor) -> dict[str, Tensor]:
    """Positions that padding does not count for, for the families that take them."""
    taken = "position_ids" in inspect.signature(model.forward).parameters
    return {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if taken else {}


@pytest.mark.parametrize("family", TABLE)
def test_every_way_of_reading_gives_the_same_answers(family: str, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    adapter = edit("grace", model, tiny_tokenizer, CAPITALS[:2], steps=4)
    prompts = (CAPITALS[0].text(), CAPITALS[1].text(), "Lima is a city", "In Brazil people speak Portuguese; the")
    texts = [encode_prompt(tiny_tokenizer, text) for text in prompts]
    wanted = [reads(model, adapter, text) for text in texts]
    # Asked for states once, transformers leaves hooks of its own behind.
    bare = logits(model, [texts[0]], output_hidden_states=True)[0]
    assert (wanted[0] - bare).abs().max() > 0.1, "the adapter acts"

    with untouched(model), adapter.installed(model), torch.no_grad():
        for text, expected in zip(texts, wanted, strict=True):
            assert_near(logits(model, [text])[0], expected)
            for cut in (1, len(text) - 1):  # read in two parts, as the exam does, and token by token
                first = model(input_ids=torch.tensor([text[:cut]]), use_cache=True)
                parts, cache = [first.logits], first.past_key_values
                for place in range(cut, len(text)):
                    parts.append(model(torch.tensor([text[place : place + 1]]), past_key_values=cache).logits)
                assert_near(torch.cat(parts, dim=1)[0], expected)
        assert model(torch.tensor([texts[0]]), use_cache=False).past_key_values is None
        states = model(torch.tensor([texts[0]]), output_hidden_states=True).hidden_states
        assert {tuple(state.shape[:2]) for state in states} == {(1, len(texts[0]))}

        for side in ("left", "right"):
            rows, mask = in_rows(texts, side, pad=5)
            found = logits(model, rows, attention_mask=mask, **(positions(model, mask) if side == "left" else {}))
            for row, marks, expected in zip(found, mask, wanted, strict=True):
                assert_near(row[marks.bool()], expected)
        short = texts[0][: min(map(len, texts))]
        rows = torch.tensor([text[: len(short)] for text in texts])  # nothing to pad: no mask either
        for row, expected in zip(logits(model, rows), wanted, strict=True):
            assert_near(row, expected[: len(short)])

        model.generation_config.eos_token_id = None
        rows, mask = in_rows(texts, "left", pad=5)
        options: dict[str, Any] = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 5}
        written = [model.generate(rows, attention_mask=mask, use_cache=cached, **options) for cached in (True, False)]
        assert torch.equal(*written)

        labels = torch.tensor([texts[0]])
        loss = model(labels, labels=labels).loss
        chosen = wanted[0][:-1].log_softmax(-1).gather(1, labels[0, 1:, None])
        assert_near(loss, -chosen.mean())
        assert_near(logits(model, [texts[0]], logits_to_keep=1)[0], wanted[0][-1:])
