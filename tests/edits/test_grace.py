"""A codebook says the new objects, leaves no trace, comes and goes, and stays out of training."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_edits import edit as edit_with
from tiny_edits import log_prob, logits, one_vocabulary
from torch import Tensor
from worked_facts import CAPITALS, CORPUS, fact

from indelible.edits.beside.codebook import Codebook
from indelible.edits.beside.hook import Adapter, adapters_in, remove_adapters, set_aside
from indelible.edits.deltas.delta import Edit
from indelible.edits.editor import EDITORS
from indelible.errors import EditError, FingerprintError
from indelible.exam.exam import take_exam
from indelible.exam.questions import Question, questions_for
from indelible.models.fingerprint import fingerprint
from indelible.models.layout import find_layout
from indelible.models.tokens import encode_prompt
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.settings import TuningSettings
from indelible.tuning.train import fine_tune
from tiny_families import TABLE, build_family, enliven
from tiny_models import Make, Tokenizer
from untouched import assert_same, bits, untouched

FACTS = CAPITALS[:3]


def edit(model: Any, tokenizer: Any, facts: Any = FACTS, **more: Any) -> Codebook:
    return edit_with("grace", model, tokenizer, facts, **more)


@pytest.mark.parametrize("family", TABLE)
def test_an_adapter_says_the_new_objects_and_leaves_no_trace(
    family: str, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = enliven(build_family(family, len(tiny_tokenizer)))
    layout = find_layout(model)
    model.train()
    model.get_submodule(layout.blocks[0]).eval()
    model.get_parameter(layout.mlp_out_weight[1]).requires_grad_(False)
    with untouched(model):
        adapter = edit(model, tiny_tokenizer)
    assert adapter.parameters == (layout.mlp_out_weight[2],)

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
    gains = [after - first for after, first in zip(new, old, strict=True)]
    assert min(gains) > 0.3 and sum(gains) / len(gains) > 0.6, gains

    adapter.save(tmp_path / "new.safetensors")
    loaded = Edit.load(tmp_path / "new.safetensors")
    assert type(loaded) is type(adapter) and loaded.manifest == adapter.manifest
    assert loaded.parameters == adapter.parameters
    with loaded.applied(model):
        assert torch.equal(logits(model, [tokens]), inside)


def questions() -> list[Question]:
    with_more = [
        replace(one, held_out=("In {} the capital city is",), true_object=f"{one.true_object} and Rome")
        for one in FACTS
    ]
    return questions_for(with_more, "edited")


def test_the_exam_sees_an_adapter(tiny_model: Make) -> None:
    tokenizer = one_vocabulary(space=False, start=True)
    model = enliven(tiny_model("llama"))
    adapter = edit(model, tokenizer)
    asked = questions()
    before = take_exam(model, tokenizer, asked)
    model.train()  # the exam asks in evaluation mode
    model._original_forward = model.forward  # as under accelerate, which the exam goes past
    with adapter.installed(model):
        together = take_exam(model, tokenizer, asked)
        alone = take_exam(model, tokenizer, asked, batch_size=1)
    del model._original_forward
    model.eval()
    for one, other in zip(together, alone, strict=True):
        assert one.generated == other.generated and one.rank == other.rank
        assert one.log_prob == pytest.approx(other.log_prob, abs=1e-4)
    assert [one.log_prob for one in together] != [one.log_prob for one in before]


def test_training_goes_on_as_if_no_adapter_were_there(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    settings = TuningSettings(
        learning_rate=1e-2, steps=3, max_tokens=72, batch_size=4, heldout_examples=4, warmup_steps=0, precision="fp32"
    )
    one, other = tiny_model("llama"), tiny_model("llama")
    adapter = edit(one, tiny_tokenizer)
    frozen = frozen_parameters("up-to-edited", one, find_layout(one), adapter.parameters)
    plain = fine_tune(other, tiny_tokenizer, settings, frozen=frozen, seed=3)
    asked = questions()
    adapter.apply(one)
    tuned = fine_tune(one, tiny_tokenizer, settings, frozen=frozen, seed=3)
    assert_same(bits(other), one)
    assert one.state_dict().keys() == other.state_dict().keys()
    assert [line["loss"] for line in tuned.log] == [line["loss"] for line in plain.log]
    assert adapters_in(one) == [adapter]
    with_it = take_exam(one, tiny_tokenizer, asked)
    assert [a.log_prob for a in with_it] != [a.log_prob for a in take_exam(other, tiny_tokenizer, asked)]
    # What the memory reads has not changed, so it still returns what was stored.
    seen: list[Tensor] = []
    memory = one.get_submodule(adapter.parameters[0].removesuffix(".weight"))
    memory.register_forward_hook(lambda _module, _args, output: seen.append(output))
    logits(one, [encode_prompt(tiny_tokenizer, FACTS[0].text())])
    assert torch.equal(seen[0][0, -1], adapter.entries.values_no[0])
    adapter.remove(one)
    assert take_exam(one, tiny_tokenizer, asked) == take_exam(other, tiny_tokenizer, asked)


def test_adapters_come_and_go(tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path) -> None:
    model, other = tiny_model("llama"), tiny_model("llama", seed=1)
    tokens = encode_prompt(tiny_tokenizer, FACTS[0].text())
    adapter = edit(model, tiny_tokenizer)
    foreign = edit(model, tiny_tokenizer, CAPITALS[3:])
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
        asked = adapter.with_answers({fact.id: "gone" for fact in adapter.facts})
        with pytest.raises(EditError, match="is in the model already"):
            asked.apply(model)
        with pytest.raises(EditError, match=r"another codebook in the same place"):
            foreign.apply(model)
        with pytest.raises(EditError, match="is in the model already"), adapter.applied(model):
            pass
        assert torch.equal(logits(model, [tokens]), inside)
        with set_aside(model):
            assert torch.equal(logits(model, [tokens]), bare) and adapters_in(model) == [adapter]
        assert torch.equal(logits(model, [tokens]), inside)
        twin = copy.deepcopy(model)
        assert torch.equal(logits(twin, [tokens]), inside)
        asked.save(tmp_path / "asked")
        loaded = Edit.load(tmp_path / "asked")
        assert isinstance(loaded, Adapter)
        loaded.remove(model)
        with pytest.raises(EditError, match="is not in the model"):
            adapter.remove(model)
    assert torch.equal(logits(model, [tokens]), bare)
    assert torch.equal(logits(twin, [tokens]), inside), "another model's hooks are its own"
    remove_adapters(twin)
    assert adapters_in(twin) == [] and torch.equal(logits(twin, [tokens]), bare)


def test_a_later_adapter_holds_the_earlier_one_and_stands_in_for_it(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = enliven(tiny_model("llama"))
    tokens = encode_prompt(tiny_tokenizer, FACTS[0].text())
    both = edit(model, tiny_tokenizer, FACTS)
    first = edit(model, tiny_tokenizer, FACTS[:1])
    with untouched(model), first.applied(model):
        inside = logits(model, [tokens])
        second = edit(model, tiny_tokenizer, FACTS[1:], earlier=first)
        with second.applied(model):
            assert torch.equal(inside, logits(model, [tokens]))
            together = logits(model, [tokens])
        assert torch.equal(logits(model, [tokens]), inside), "the earlier one's turn again"
    assert [one.id for one in second.facts] == [one.id for one in FACTS]
    for part, tensor in both.tensors().items():
        torch.testing.assert_close(second.tensors()[part], tensor, atol=1e-3, rtol=1e-3)
    with second.applied(model):
        assert torch.equal(logits(model, [tokens]), together)
    again = edit(model, tiny_tokenizer, [replace(FACTS[0], new_object="Quito")], earlier=both)
    assert [one.new_object for one in again.facts] == ["Lima", "Paris", "Quito"]
    assert again.entries.objects == ("Quito", "Lima", "Paris")


def test_a_model_with_an_adapter_in_it_is_edited_only_to_continue_it(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = enliven(tiny_model("llama"))
    first, foreign = (edit(model, tiny_tokenizer, facts) for facts in (FACTS[:1], CAPITALS[3:]))
    options: dict[str, Any] = {"layers": (1,), "steps": 1, "contexts": 0, "covariance_tokens": 600}
    weights = EDITORS.get("memit")(**options)
    arguments: dict[str, Any] = {"corpus": CORPUS, "cache": tmp_path}
    refused = pytest.raises(EditError, match=f"A {first.kind} is in the model.*remove_adapters")
    with untouched(model), first.applied(model):
        with refused:
            weights.edit(model, tiny_tokenizer, FACTS[1:], **arguments)
        with refused:
            next(weights.edit_each(model, tiny_tokenizer, FACTS[1:], **arguments))
        for earlier in (None, foreign):
            with refused:
                edit(model, tiny_tokenizer, FACTS[1:], earlier=earlier)
        second = edit(model, tiny_tokenizer, FACTS[1:2], earlier=first)
        assert list(tmp_path.iterdir()) == [], "nothing was read off a model that is not what its fingerprint says"
        with second.applied(model):
            third = edit(model, tiny_tokenizer, FACTS[2:], earlier=second)
            with refused:
                edit(model, tiny_tokenizer, FACTS[2:], earlier=first)
    assert [one.id for one in third.facts] == [one.id for one in FACTS]
    with untouched(model), first.applied(model), refused:
        EDITORS.get("ike")().edit(model, tiny_tokenizer, FACTS[1:])
    with pytest.raises(EditError, match="A codebook is no edit that ike can go on from"):
        EDITORS.get("ike")().edit(model, tiny_tokenizer, FACTS[1:], earlier=first)


@pytest.mark.parametrize(
    ("family", "width", "words"),
    [
        ("gpt2", 32, "no parameter 'model.layers.2.mlp.down_proj.weight'"),
        ("llama", 48, r"takes 96 numbers and returns 48 in this model; the codebook's keys have 64 and"),
    ],
)
def test_an_adapter_is_put_into_no_model_of_another_shape(
    family: str, width: int, words: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    adapter, other = edit(tiny_model("llama"), tiny_tokenizer), tiny_model(family, width=width)
    with untouched(other), pytest.raises(FingerprintError, match=words):
        adapter.install(other)


def test_paraphrases_are_entries_of_their_own(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = enliven(tiny_model("llama"))
    book = edit(model, tiny_tokenizer, FACTS, paraphrases=2, radius=1e-3)
    assert book.entries.objects == tuple(one.new_object for one in FACTS for _ in range(3))
    wordings = [fact(FACTS[0].subject, template, "Oslo") for template in (FACTS[0].prompt,)]
    assert edit(model, tiny_tokenizer, wordings).manifest.objects == ("Oslo",)
