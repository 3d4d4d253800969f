"""Edits that touch no weights give the same answers however a model is read: padding, caches, masks, generation."""

from __future__ import annotations

import copy
import logging
from dataclasses import replace
from typing import Any

import pytest
import torch
from adapter_edits import FACTS, SETTINGS, Make, assert_near, edit, in_rows, logits, positions, reads
from tiny_edits import untouched
from transformers import PreTrainedTokenizerFast

from indelible.edits.beside.context import Context
from indelible.errors import EditError
from indelible.models.tokens import encode_prompt
from tiny_families import TABLE, build_family, enliven


@pytest.mark.parametrize("opening", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("family", TABLE)
def test_every_way_of_reading_gives_the_same_answers(
    name: str,
    family: str,
    opening: bool,
    tiny_tokenizer: PreTrainedTokenizerFast,
    opening_tokenizer: PreTrainedTokenizerFast,
) -> None:
    tokenizer = opening_tokenizer if opening else tiny_tokenizer
    model = enliven(build_family(family, len(tokenizer)))
    adapter = edit(name, model, tokenizer, FACTS[:2], steps=4) if name == "grace" else edit(name, model, tokenizer)
    if isinstance(adapter, Context):
        assert adapter.opening.tolist() == ([tokenizer.bos_token_id] if opening else [])
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


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("family", TABLE)
def test_generation_with_padding_and_cache_writes_what_it_writes_without(
    name: str, family: str, opening_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = enliven(build_family(family, len(opening_tokenizer)))
    model.generation_config.eos_token_id = None
    adapter = edit(name, model, opening_tokenizer)
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


def test_a_context_goes_into_each_row_where_its_text_begins(
    tiny_model: Make, opening_tokenizer: PreTrainedTokenizerFast
) -> None:
    """Texts with and without the opening, padded rows, and a row of padding alone, in one batch."""
    model = enliven(tiny_model("gpt2"))
    adapter = edit("ike", model, opening_tokenizer)
    assert isinstance(adapter, Context)
    begun = encode_prompt(opening_tokenizer, "Lima is a city")
    closed = replace(adapter, opening=torch.zeros(0, dtype=torch.long))
    rows, mask = in_rows([begun, begun[1:], begun[:1], []], "left", pad=5)
    with adapter.installed(model):
        found = logits(model, rows, attention_mask=mask, **positions(model, mask))
        mixed = logits(model, *in_rows([begun, begun[1:]], "right", pad=5)[:1])
        lone = logits(model, rows[1:2], attention_mask=mask[1:2], **positions(model, mask[1:2]))
    assert_near(mixed[0], reads(model, adapter, begun))
    assert_near(mixed[1, :-1], reads(model, closed, begun[1:]))
    assert_near(lone[0, 1:], reads(model, closed, begun[1:]))
    assert_near(found[0], reads(model, adapter, begun))
    assert_near(found[1, 1:], reads(model, closed, begun[1:]))
    assert_near(found[2, -1:], reads(model, adapter, begun[:1]))


def test_what_a_context_cannot_stand_before_is_refused(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_model("llama")
    own = copy.deepcopy(tiny_tokenizer)
    own.deprecation_warnings.clear()  # it has warned of nothing yet
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("transformers").addHandler(handler)
    with untouched(model), pytest.raises(EditError, match=r"context of 3 facts takes \d+ tokens; the model takes 128"):
        edit("ike", model, own, copies=9)
    assert said == [], "one refusal, in our own words"
    own("word " * 200)
    logging.getLogger("transformers").removeHandler(handler)
    assert len(said) == 1, "the tokenizer goes on warning others"
    adapter = edit("ike", model, tiny_tokenizer)
    other = edit("ike", model, tiny_tokenizer, FACTS[:1])
    assert isinstance(adapter, Context)
    size, tokens = len(adapter.tokens_c), torch.tensor([encode_prompt(tiny_tokenizer, "Lima is a city in Peru")])
    with torch.no_grad():
        outside = model(tokens[:, :2], use_cache=True).past_key_values
        with other.installed(model):
            foreign = model(tokens[:, :2], use_cache=True).past_key_values
    bare = logits(model, tokens[:, 2:], past_key_values=copy.deepcopy(outside))
    with adapter.installed(model):
        assert torch.equal(logits(model, tokens[:, 2:], past_key_values=outside), bare), "begun without the context"
        fits = torch.zeros(1, 128 - size, dtype=torch.long)
        assert logits(model, fits).shape[1] == 128 - size
        with pytest.raises(
            EditError, match=f"context's {size} tokens and the text's {129 - size} are more than the 128"
        ):
            logits(model, torch.zeros(1, 129 - size, dtype=torch.long))
        with pytest.raises(EditError, match="begun under another context"):
            model(tokens[:, 2:], past_key_values=foreign)
        with pytest.raises(EditError, match="before input_ids only"):
            model(inputs_embeds=model.get_input_embeddings()(tokens))
        with pytest.raises(EditError, match="attention cache that grows"):
            model.generate(tokens, max_new_tokens=2, cache_implementation="static", pad_token_id=0)
        with pytest.raises(EditError, match="mask and positions of one row per text"):
            model(tokens, attention_mask=torch.ones(1, 1, tokens.shape[1], tokens.shape[1]))
        begun = model(tokens, use_cache=True).past_key_values
        with pytest.raises(EditError, match="mask has 1 columns"):
            model(tokens[:, :1], past_key_values=begun, attention_mask=torch.ones(1, 1).long())
    headless = replace(adapter, manifest={**adapter.manifest, "trunk": ""})
    with untouched(model), pytest.raises(EditError, match="Nothing can be put before a text of LlamaForCausalLM"):
        headless.install(model)
