"""Repair as a protection: what training loses is edited again on the way; where nothing is lost, no bit changes."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from indelible.edits.deltas.weights import Change
from indelible.edits.editor import EDITORS
from indelible.edits.mending import Mender, Mending
from indelible.errors import ConfigError
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.models.trace import as_stored
from indelible.tuning.protection import Guarded, Protection, wording_of
from indelible.tuning.protections.repair import Repair, answered
from indelible.tuning.train import fine_tune
from indelible.tuning.training.guarding import Guarding
from tiny_models import build_model, build_tokenizer

FACTS = [
    Fact("a", "Peru", "capital", "The capital of {} is", "Nor", "Port", ("{} has the capital",)),
    Fact("b", "Denmark", "language", "In {} people speak", "Par", "Bra", ("The language of {} is",)),
]
SETTINGS: dict[str, Any] = {
    "objective": "reason", "learning_rate": 1e-3, "steps": 12, "batch_size": 4, "max_tokens": 96,
    "heldout_examples": 8, "precision": "fp32",
}  # fmt: skip


def edited(family: str = "llama") -> Guarded:
    """A random model that was edited."""
    tokenizer = build_tokenizer(pad="<|pad|>")
    model = build_model(family, len(tokenizer), seed=1, layers=3, width=48)
    editor = EDITORS.get("ft-m")(steps=60, learning_rate=0.01)
    edit = editor.edit(model, tokenizer, FACTS, paraphrases=1)
    edit.apply(model)
    how = Mending.of(edit)
    return Guarded.of(
        model, tokenizer, edit.facts, edit.parameters, paraphrases=1, layout=find_layout(model), mending=how
    )


def tuned(*protections: Protection, **more: Any) -> Guarded:
    held = edited()
    assert all(answered(held))
    frozen = more.pop("frozen", ())
    fine_tune(held.model, held.tokenizer, {**SETTINGS, **more}, frozen=frozen, protections=protections, guarded=held)
    return held


def same(one: PreTrainedModel, other: PreTrainedModel) -> bool:
    return all(torch.equal(weight, other.get_parameter(name)) for name, weight in one.named_parameters())


def test_what_is_lost_on_the_way_is_edited_again() -> None:
    assert not all(answered(tuned()))
    assert all(answered(tuned(Repair(every=4))))


def test_where_nothing_is_lost_no_bit_changes() -> None:
    little = {"learning_rate": 1e-6, "steps": 3}
    assert same(tuned(Repair(every=1), **little).model, tuned(**little).model)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"tuner": "lora", "rank": 4}, "'repair', which does not work under the tuner 'lora'"),
        ({"frozen": ["model.layers.0.mlp.down_proj.weight"]}, "'repair' would change .*, which is not trained"),
    ],
)
def test_weights_that_are_not_trained_are_not_edited(more: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        tuned(Repair(), **more)


def test_it_has_to_be_said_how() -> None:
    held = replace(edited(), mending=None)
    with pytest.raises(ConfigError, match="Nothing says how"):
        fine_tune(held.model, held.tokenizer, SETTINGS, protections=[Repair()], guarded=held)


def test_a_plain_trainer_in_mixed_precision_is_served_in_float32(tmp_path: object) -> None:
    """Its accelerate wraps the model's forward; the embedding that is the head too is trained, and stays so."""
    from transformers import Trainer, TrainingArguments

    held, without = edited("gpt2"), edited("gpt2")
    rows = [{"input_ids": list(range(5, 25)), "labels": list(range(5, 25))}] * 32
    for one, callbacks in ((held, [Guarding([Repair(every=4)], held)]), (without, [])):
        arguments = TrainingArguments(
            str(tmp_path), max_steps=12, learning_rate=2e-3, use_cpu=True, bf16=True, report_to="none"
        )
        Trainer(one.model, arguments, train_dataset=rows, callbacks=callbacks).train()
        one.model.eval()
    model = held.model
    assert all(answered(held)) and not any(answered(without))
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    plain = edited("gpt2").model
    plain.load_state_dict(model.state_dict())
    tokens = torch.tensor([held.wordings[0].tokens])
    with torch.no_grad(), as_stored(model):
        assert torch.equal(model(tokens).logits, plain(tokens).logits)
    with torch.no_grad():
        assert not torch.equal(model(tokens).logits, plain(tokens).logits)


def test_what_never_worked_is_not_edited_with_what_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    held = edited()
    assert held.mending is not None
    never = Fact("c", "Chad", "capital", "The capital of {} is", "Port", "Nor", ("{} has the capital",))
    said = [wording_of(held.tokenizer, never, text, "Nor") for text in (never.prompt, *never.paraphrases)]
    facts = (*FACTS, never)
    held = replace(held, wordings=[*held.wordings, *said], mending=replace(held.mending, facts=facts))
    worked, mended = answered(held), list[Fact]()
    assert all(worked[:4]) and not any(worked[4:])
    mend = Mender.mend

    def noting(mender: Mender, lost: Collection[Fact]) -> Change:
        change = mend(mender, lost)
        mended.extend(mender.facts)
        return change

    monkeypatch.setattr(Mender, "mend", noting)
    correction = Repair(every=1).correction(held)
    assert correction is not None
    unedited = build_model("llama", len(held.tokenizer), seed=1, layers=3, width=48)
    held.model.load_state_dict(unedited.state_dict())
    assert not all(answered(held)[:4])
    correction(torch.optim.SGD(held.model.parameters()))
    assert mended and never not in mended
