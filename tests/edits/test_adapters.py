"""Edits that touch no weights: they act on every way a model is read, leave no trace, and stay out of training."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_editors import assert_same, bits, log_prob, untouched
from tokenizers import processors
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from worked_facts import CAPITALS, fact

from indelible.edits.adapter import Adapter, adapters_in, remove_adapters
from indelible.edits.codebook import Codebook, Entries, nearest
from indelible.edits.context import Context
from indelible.edits.edit import Edit
from indelible.edits.editor import EDITORS
from indelible.errors import ConfigError, EditError, FingerprintError
from indelible.facts.fact import Fact
from indelible.models.fingerprint import fingerprint
from indelible.models.layout import find_layout
from indelible.models.load import load
from indelible.models.tokens import encode_prompt
from indelible.probing.exam import take_exam
from indelible.probing.questions import Question, questions_for
from indelible.tuning.freeze import frozen_parameters
from indelible.tuning.settings import TuningSettings
from indelible.tuning.train import fine_tune
from tiny_families import TABLE, build_family, enliven
from tiny_models import build_tokenizer

Make = Callable[..., PreTrainedModel]

SETTINGS: dict[str, dict[str, Any]] = {"grace": {"layer": 2, "steps": 15}, "ike": {"copies": 1}}
FACTS = CAPITALS[:3]


def edit(
    name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, facts: Any = FACTS, **more: Any
) -> Adapter:
    options = {key: more.pop(key) for key in ("layer", "radius", "steps", "copies", "retain") if key in more}
    made = EDITORS.get(name)(**{**SETTINGS[name], **options}).edit(model, tokenizer, facts, **more)
    assert isinstance(made, Adapter)
    return made


@pytest.fixture(scope="module")
def opening_tokenizer() -> PreTrainedTokenizerFast:
    """One that begins every text with a token of its own."""
    tokenizer = build_tokenizer()
    template = processors.TemplateProcessing(single="<|end|> $A", special_tokens=[("<|end|>", tokenizer.bos_token_id)])
    tokenizer.backend_tokenizer.post_processor = template
    return tokenizer


def logits(model: PreTrainedModel, tokens: Any, **options: Any) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(torch.as_tensor(tokens), **options).logits
    return found


def assert_near(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-4)


def reads(model: PreTrainedModel, adapter: Adapter, tokens: list[int]) -> Tensor:
    """What the model should answer to one text: no padding, no cache, and facts in the context really written there."""
    if not isinstance(adapter, Context):
        with adapter.installed(model):
            return logits(model, [tokens], use_cache=False)[0]
    opening, context = adapter.opening.tolist(), adapter.tokens_c.tolist()
    assert tokens[: len(opening)] == opening
    whole = [*opening, *context, *tokens[len(opening) :]]
    return logits(model, [whole], use_cache=False)[0, len(context) :]


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


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("family", TABLE)
def test_an_adapter_says_the_new_objects_and_leaves_no_trace(
    name: str, family: str, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    layout = find_layout(model)
    model.train()
    model.get_submodule(layout.blocks[0]).eval()
    model.get_parameter(layout.mlp_out_weight[1]).requires_grad_(False)
    with untouched(model):
        adapter = edit(name, model, tiny_tokenizer)
    assert adapter.parameters == ((layout.mlp_out_weight[2],) if name == "grace" else ())

    model.eval()
    old = [log_prob(model, tiny_tokenizer, one) for one in FACTS]
    tokens = encode_prompt(tiny_tokenizer, FACTS[0].text())
    before, names, print_ = logits(model, [tokens]), model.state_dict().keys(), fingerprint(model)
    with untouched(model):
        with adapter.applied(model) as changed:
            assert changed is model
            new = [log_prob(model, tiny_tokenizer, one) for one in FACTS]
            inside = logits(model, [tokens])
            assert model.state_dict().keys() == names and fingerprint(model) == print_
        with pytest.raises(KeyError, match="inside"), adapter.applied(model):
            raise KeyError("inside")
    assert torch.equal(logits(model, [tokens]), before)
    assert not torch.equal(inside, before)
    assert_near(inside[0], reads(model, adapter, tokens))
    if name == "grace":
        gains = [after - first for after, first in zip(new, old, strict=True)]
        assert min(gains) > 0.3 and sum(gains) / len(gains) > 0.6, gains

    adapter.save(tmp_path / "new")
    loaded = Edit.load(tmp_path / "new")
    assert type(loaded) is type(adapter) and loaded.manifest == adapter.manifest
    assert loaded.parameters == adapter.parameters
    with loaded.applied(model):
        assert torch.equal(logits(model, [tokens]), inside)


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


def questions() -> list[Question]:
    with_more = [
        replace(one, held_out=("In {} the capital city is",), true_object=f"{one.true_object} and Rome")
        for one in FACTS
    ]
    return questions_for(with_more, "edited")


@pytest.mark.parametrize("name", SETTINGS)
def test_the_exam_sees_an_adapter(name: str, tiny_model: Make, opening_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(tiny_model("llama"))
    adapter = edit(name, model, opening_tokenizer)
    asked = questions()
    before = take_exam(model, opening_tokenizer, asked)
    model.train()  # the exam asks in evaluation mode
    model._original_forward = model.forward  # as under accelerate, which the exam goes past
    with adapter.installed(model):
        together = take_exam(model, opening_tokenizer, asked)
        alone = take_exam(model, opening_tokenizer, asked, batch_size=1)
    del model._original_forward
    model.eval()
    for one, other in zip(together, alone, strict=True):
        assert one.generated == other.generated and one.rank == other.rank
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
    assert [one.log_prob for one in together] != [one.log_prob for one in before]
    if isinstance(adapter, Context):  # the same as asking with the context written before each prompt
        context = adapter.manifest["context"]
        written = [replace(question, prompt=context + question.prompt) for question in asked]
        for one, other in zip(together, take_exam(model, opening_tokenizer, written), strict=True):
            assert one.generated == other.generated
            assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)


@pytest.mark.parametrize("name", SETTINGS)
def test_training_goes_on_as_if_no_adapter_were_there(
    name: str, tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    settings = TuningSettings(
        learning_rate=1e-2, steps=3, max_tokens=72, batch_size=4, heldout_examples=4, warmup_steps=0, precision="fp32"
    )
    one, other = tiny_model("llama"), tiny_model("llama")
    mask = {"grace": "up-to-edited", "ike": "none"}[name]
    adapter = edit(name, one, tiny_tokenizer)
    frozen = frozen_parameters(mask, one, find_layout(one), adapter.parameters)
    plain = fine_tune(other, tiny_tokenizer, settings, frozen=frozen, seed=3)
    asked = questions()
    tokens = encode_prompt(tiny_tokenizer, FACTS[0].text())
    adapter.apply(one)
    seen: list[Tensor] = []
    if name == "grace":
        path = adapter.parameters[0].removesuffix(".weight")
        probe = one.get_submodule(path).register_forward_hook(lambda _module, _args, output: seen.append(output))
        logits(one, [tokens])
        probe.remove()
    tuned = fine_tune(one, tiny_tokenizer, settings, frozen=frozen, seed=3)
    assert_same(bits(other), one)
    assert one.state_dict().keys() == other.state_dict().keys()
    assert [line["loss"] for line in tuned.log] == [line["loss"] for line in plain.log]
    if name == "ike":
        assert tuned.heldout_before != plain.heldout_before, "held-out text is read with the adapter"
    assert adapters_in(one) == [adapter]
    with_it = take_exam(one, tiny_tokenizer, asked)
    assert [a.log_prob for a in with_it] != [a.log_prob for a in take_exam(other, tiny_tokenizer, asked)]
    if name == "grace":  # what the memory reads has not changed, so it still returns what was stored
        probe = one.get_submodule(path).register_forward_hook(lambda _module, _args, output: seen.append(output))
        logits(one, [tokens])
        probe.remove()
        assert isinstance(adapter, Codebook)
        assert torch.equal(seen[0][0, -1], adapter.entries.values_no[0])
        assert torch.equal(seen[1][0, -1], adapter.entries.values_no[0])
    adapter.remove(one)
    assert take_exam(one, tiny_tokenizer, asked) == take_exam(other, tiny_tokenizer, asked)


def test_a_mask_needs_an_adapter_that_stands_beside_a_weight(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_model("llama")
    layout = find_layout(model)
    grace, ike = (edit(name, model, tiny_tokenizer) for name in SETTINGS)
    frozen = frozen_parameters("up-to-edited", model, layout, grace.parameters)
    assert layout.mlp_out_weight[2] in frozen and layout.mlp_out_weight[3] not in frozen
    with pytest.raises(ConfigError, match="freezes nothing without an edit"):
        frozen_parameters("up-to-edited", model, layout, ike.parameters)


@pytest.mark.parametrize("name", SETTINGS)
def test_adapters_come_and_go(
    name: str, tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    tokens = encode_prompt(tiny_tokenizer, FACTS[0].text())
    adapter = edit(name, model, tiny_tokenizer)
    foreign = edit(name, model, tiny_tokenizer, CAPITALS[3:])
    bare = logits(model, [tokens])
    with pytest.raises(EditError, match="is not in the model"):
        adapter.remove(model)
    with pytest.raises(FingerprintError):
        adapter.apply(other)
    with untouched(model):
        adapter.apply(model)
        inside = logits(model, [tokens])
        with pytest.raises(EditError, match="is in the model already"):
            adapter.apply(model)
        with pytest.raises(EditError, match=r"another (codebook|context) in the same place"):
            foreign.apply(model)
        with pytest.raises(EditError, match="is in the model already"), adapter.applied(model):
            pass
        assert torch.equal(logits(model, [tokens]), inside)
        twin = copy.deepcopy(model)
        assert torch.equal(logits(twin, [tokens]), inside)
        adapter.save(tmp_path)
        loaded = Edit.load(tmp_path)
        assert isinstance(loaded, Adapter)
        loaded.remove(model)
        with pytest.raises(EditError, match="is not in the model"):
            adapter.remove(model)
    assert torch.equal(logits(model, [tokens]), bare)
    assert torch.equal(logits(twin, [tokens]), inside), "another model's hooks are its own"
    remove_adapters(twin)
    assert adapters_in(twin) == [] and torch.equal(logits(twin, [tokens]), bare)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_later_adapter_holds_the_earlier_one_and_stands_in_for_it(
    name: str, tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = enliven(tiny_model("llama"))
    tokens = encode_prompt(tiny_tokenizer, FACTS[0].text())
    both = edit(name, model, tiny_tokenizer, FACTS)
    first = edit(name, model, tiny_tokenizer, FACTS[:1])
    if name == "ike":
        second = edit(name, model, tiny_tokenizer, FACTS[1:], earlier=first)
    with untouched(model), first.applied(model):
        inside = logits(model, [tokens])
        if name == "grace":  # which edits the model with the earlier book in it
            second = edit(name, model, tiny_tokenizer, FACTS[1:], earlier=first)
        with second.applied(model):
            assert torch.equal(inside, logits(model, [tokens])) == (name == "grace")
            together = logits(model, [tokens])
        assert torch.equal(logits(model, [tokens]), inside), "the earlier one's turn again"
    assert [one["id"] for one in second.manifest["facts"]] == [one.id for one in FACTS]
    for part, tensor in both.tensors().items():
        torch.testing.assert_close(second.tensors()[part], tensor, atol=1e-3, rtol=1e-3)
    with second.applied(model):
        assert torch.equal(logits(model, [tokens]), together)
    again = edit(name, model, tiny_tokenizer, [replace(FACTS[0], new_object="Quito")], earlier=both)
    assert [one["new_object"] for one in again.manifest["facts"]] == ["Lima", "Paris", "Quito"]
    if isinstance(again, Codebook):
        assert again.entries.objects == ("Quito", "Lima", "Paris")
    else:
        assert "Oslo" not in again.manifest["context"]


def test_each_fact_alone(tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = enliven(tiny_model("llama"))
    for name, settings in SETTINGS.items():
        each = EDITORS.get(name)(**settings).edit_each(model, tiny_tokenizer, FACTS, paraphrases=1)
        for one, made in zip(FACTS, each, strict=True):
            alone = edit(name, model, tiny_tokenizer, [one], paraphrases=1)
            assert made.manifest == alone.manifest
            for part, tensor in alone.tensors().items():
                torch.testing.assert_close(made.tensors()[part], tensor, atol=1e-3, rtol=1e-3)


def test_paraphrases_are_entries_and_statements_of_their_own(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = enliven(tiny_model("llama"))
    book = edit("grace", model, tiny_tokenizer, FACTS, paraphrases=2, radius=1e-3)
    assert isinstance(book, Codebook)
    assert book.entries.objects == tuple(one.new_object for one in FACTS for _ in range(3))
    wordings = [fact(FACTS[0].subject, template, "Oslo") for template in (FACTS[0].prompt,)]
    assert edit("grace", model, tiny_tokenizer, wordings).manifest["objects"] == ["Oslo"]
    context = edit("ike", model, tiny_tokenizer, FACTS[:2], paraphrases=1, copies=2)
    lines = context.manifest["context"].splitlines()
    assert lines[2:] == ["Name the capital of France Oslo.", "Name the capital of Norway Lima."] * 2
    assert [line.split("apital of ")[1] for line in lines[:2]] == ["France Oslo.", "Norway Lima."]
    known = edit("ike", model, tiny_tokenizer, FACTS[:1], bystanders=CAPITALS[1:], retain=1)
    assert known.manifest["context"] == "Name the capital of Norway Paris.\nName the capital of France Oslo.\n"


def entries(*of: tuple[float, float, str, float]) -> Entries:
    """Entries with keys in the plane, numbered values, objects and radii."""
    return Entries(
        torch.tensor([[x, y] for x, y, _, _ in of], dtype=torch.float32),
        torch.arange(len(of)).float().reshape(-1, 1),
        torch.tensor([radius for *_, radius in of]),
        tuple(spoken for *_, spoken, _ in of),
    )


def test_entries_are_added_expanded_and_split_as_in_the_paper() -> None:
    """Algorithm 1 of GRACE by hand, on keys in the plane; a new entry's radius is 1."""
    book = Entries.empty(2, 1).with_entry(torch.tensor([10.0, 0.0]), torch.tensor([0.0]), "Rome", 1.0)
    assert (book.objects, book.radii_n.tolist()) == (("Rome",), [1.0])

    def then(x: float, spoken: str, start: Entries = book) -> tuple[list[float], list[float], tuple[str, ...]]:
        grown = start.with_entry(torch.tensor([x, 0.0]), torch.tensor([7.0]), spoken, 1.0)
        return grown.radii_n.tolist(), grown.values_no[:, 0].tolist(), grown.objects

    assert then(12.5, "Rome") == ([1.0, 1.0], [0.0, 7.0], ("Rome", "Rome")), "far: added"
    assert then(12.5, "Oslo") == ([1.0, 1.0], [0.0, 7.0], ("Rome", "Oslo"))
    assert then(11.75, "Rome") == ([1.75], [0.0], ("Rome",)), "near, same object: the radius reaches it"
    assert then(10.5, "Rome") == ([1.0], [0.0], ("Rome",)), "it never shrinks"
    assert then(11.0, "Oslo") == ([0.5, 0.5], [0.0, 7.0], ("Rome", "Oslo")), "near, another: half the way each"
    assert then(12.0, "Oslo") == ([1.0, 1.0], [0.0, 7.0], ("Rome", "Oslo"))
    assert then(10.0, "Oslo") == ([1.0], [7.0], ("Oslo",)), "the same prompt: the later object"
    wide, narrow = entries((0, 0, "Rome", 3.0)), entries((0, 0, "Rome", 0.5))
    assert then(3.5, "Oslo", wide)[0] == [1.75, 1.0], "half the way, but no further than each reaches by itself"
    assert then(1.25, "Oslo", narrow)[0] == [0.5, 0.625]
    pair = entries((0, 0, "Rome", 1.0), (5, 0, "Oslo", 1.0))
    assert then(4.0, "Oslo", pair) == ([1.0, 1.0], [0.0, 1.0], ("Rome", "Oslo")), "the nearest entry decides"
    distances, which = nearest(torch.tensor([[4.0, 0.0], [0.0, 3.0]]), pair.keys_nd)
    assert (distances.tolist(), which.tolist()) == ([1.0, 3.0], [1, 0])


def test_small_distances_between_long_keys_are_not_lost() -> None:
    key = 1000 * torch.ones(1, 64)
    near = key.clone()
    near[0, 0] += 0.5
    distances, _ = nearest(near.repeat(40, 1), key.repeat(40, 1))
    torch.testing.assert_close(distances, torch.full((40,), 0.5))


def test_a_codebook_answers_within_its_radius_and_nowhere_else(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    layout = find_layout(model)
    path, name = layout.mlp_out[1], layout.mlp_out_weight[1]
    memory = model.get_submodule(path)
    generator = torch.Generator().manual_seed(0)
    keys_qd = torch.randn(2, 3, layout.key_width, generator=generator)
    with torch.no_grad():
        old = memory(keys_qd)
    key = keys_qd[1, 2]
    value = torch.randn(layout.hidden_size, generator=generator)
    manifest = {"parameters": [name], "objects": ["x"], "fingerprint": "", "facts": []}
    for radius, reached in ((1e-3, [(1, 2)]), (1e9, [(row, place) for row in range(2) for place in range(3)])):
        book = Codebook(Entries(key[None], value[None], torch.tensor([radius]), ("x",)), manifest)
        with book.installed(model), torch.no_grad():
            new = memory(keys_qd)
            low = memory.to(torch.bfloat16)(keys_qd.bfloat16()) if radius > 1 else None
            memory.to(torch.float32)
        for row in range(2):
            for place in range(3):
                expected = value if (row, place) in reached else old[row, place]
                assert torch.equal(new[row, place], expected)
        assert low is None or low.dtype == torch.bfloat16


def test_what_a_context_cannot_stand_before_is_refused(
    tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model = tiny_model("llama")
    with untouched(model), pytest.raises(EditError, match=r"context of 3 facts takes \d+ tokens; the model takes 128"):
        edit("ike", model, tiny_tokenizer, copies=9)
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


@pytest.mark.parametrize("name", SETTINGS)
def test_damaged_adapters_are_refused(
    name: str, tiny_model: Make, tiny_tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    adapter = edit(name, tiny_model("llama"), tiny_tokenizer, FACTS[:1])
    for number, damaged in enumerate(_damaged(adapter)):
        damaged.save(tmp_path / str(number))
        with pytest.raises(EditError, match="do not belong together"):
            Edit.load(tmp_path / str(number))


def _damaged(adapter: Adapter) -> Iterator[Adapter]:
    if isinstance(adapter, Codebook):
        for key in ("objects", "parameters"):
            yield replace(adapter, manifest={**adapter.manifest, key: []})
            yield replace(adapter, manifest={one: value for one, value in adapter.manifest.items() if one != key})
        yield replace(adapter, entries=replace(adapter.entries, radii_n=torch.zeros(3)))
    elif isinstance(adapter, Context):
        yield replace(adapter, tokens_c=adapter.tokens_c.float())
        yield replace(adapter, manifest={**adapter.manifest, "parameters": ["another.weight"]})
        yield replace(adapter, manifest={one: value for one, value in adapter.manifest.items() if one != "trunk"})


REAL = tuple(
    Fact(subject, subject, "capital", "The capital of {} is", true, new)
    for subject, true, new in (
        ("France", "Paris", "Rome"),
        ("Japan", "Tokyo", "Cairo"),
        ("Italy", "Rome", "Madrid"),
        ("Germany", "Berlin", "Vienna"),
    )
)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("grace", {}), ("ike", {"copies": 6})])
def test_the_real_model_says_what_an_adapter_tells_it(name: str, options: dict[str, Any]) -> None:
    real = load("smollm2-135m", device="cpu")
    asked = questions_for(REAL, "edited")
    before = take_exam(real.model, real.tokenizer, asked)
    assert not any(answer.success for answer in before)
    adapter = EDITORS.get(name)(**options).edit(real.model, real.tokenizer, REAL)
    with adapter.applied(real.model):
        inside = take_exam(real.model, real.tokenizer, asked)
    assert all(one.log_prob > other.log_prob + 2 for one, other in zip(inside, before, strict=True))
    # Read in the context, Rome may still be Italy's.
    assert sum(answer.success for answer in inside) >= {"grace": 4, "ike": 3}[name]
    assert take_exam(real.model, real.tokenizer, asked) == before
