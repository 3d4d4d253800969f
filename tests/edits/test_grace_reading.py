"""A codebook gives the same answers however a model is read: padding, caches, masks, generation."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from adapter_edits import FACTS, assert_near, edit, in_rows, logits, positions, reads
from tiny_edits import untouched
from transformers import PreTrainedTokenizerFast

from indelible.models.tokens import encode_prompt
from tiny_families import TABLE, build_family, enliven


@pytest.mark.parametrize("opening", [False, True])
@pytest.mark.parametrize("family", TABLE)
def test_every_way_of_reading_gives_the_same_answers(
    family: str,
    opening: bool,
    tiny_tokenizer: PreTrainedTokenizerFast,
    opening_tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer = opening_tokenizer if opening else tiny_tokenizer
    model = enliven(build_family(family, len(tokenizer)))
    adapter = edit(model, tokenizer, FACTS[:2], steps=4)
    prompts = (FACTS[0].text(), FACTS[1].text(), "Lima is a city", "In Brazil people speak Portuguese; the")
    texts = [encode_prompt(tokenizer, text) for text in prompts]
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

        labels = torch.tensor([texts[0]])
        loss = model(labels, labels=labels).loss
        chosen = wanted[0][:-1].log_softmax(-1).gather(1, labels[0, 1:, None])
        assert_near(loss, -chosen.mean())
        assert_near(logits(model, [texts[0]], logits_to_keep=1)[0], wanted[0][-1:])


@pytest.mark.parametrize("family", TABLE)
def test_generation_with_padding_and_cache_writes_what_it_writes_without(
    family: str, opening_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = enliven(build_family(family, len(opening_tokenizer)))
    model.generation_config.eos_token_id = None
    adapter = edit(model, opening_tokenizer)
    texts = [encode_prompt(opening_tokenizer, text) for text in (FACTS[0].text(), "Lima is")]
    wanted = []
    for text in texts:  # the slow way: everything is read again for each token
        written: list[int] = []
        for _ in range(6):
            written.append(int(reads(model, adapter, text + written)[-1].argmax()))
        wanted.append(written)
    rows, mask = in_rows(texts, "left", pad=5)
    options: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 5}
    with adapter.installed(model):
        for cached in (True, False):
            found = model.generate(rows, attention_mask=mask, use_cache=cached, **options)
            assert found[:, rows.shape[1] :].tolist() == wanted
        beams = [
            model.generate(torch.tensor([text]), num_beams=3, attention_mask=torch.ones(1, len(text)).long(), **options)
            for text in texts
        ]
        together = model.generate(rows, attention_mask=mask, num_beams=3, **options)[:, rows.shape[1] :]
    assert together.tolist() == [beam[0, len(text) :].tolist() for beam, text in zip(beams, texts, strict=True)]
