"""The bundled model itself: its layout, one small edit that it believes, and one small study from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from indelible.edits.editor import EDITORS
from indelible.exam.exam import take_exam
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from indelible.models.bundled.texts import encyclopedia_text
from indelible.models.layout import find_layout
from indelible.models.load import LoadedModel, load
from indelible.models.tokens import encode_prompt, encode_target
from indelible.study.design.config import load_config
from indelible.study.run.run import run_study
from indelible.tuning.settings import TuningSettings
from indelible.tuning.train import fine_tune
from joints import JOINTS

CAPITALS = tuple(
    Fact(subject, subject, "capital", "The capital of {} is", true, new)
    for subject, true, new in (
        ("France", "Paris", "Rome"),
        ("Japan", "Tokyo", "Cairo"),
        ("Italy", "Rome", "Madrid"),
        ("Germany", "Berlin", "Vienna"),
    )
)
TWO = CAPITALS[:2]


@pytest.fixture(scope="module")
def real() -> LoadedModel:
    return load("smollm2-135m", device="cpu")


def log_prob(real: LoadedModel, prompt: str, answer: str) -> float:
    """Log-probability of the whole answer."""
    tokens, target = encode_prompt(real.tokenizer, prompt), encode_target(real.tokenizer, prompt, answer)
    with torch.no_grad():
        log_probs = real.model(torch.tensor([tokens + target])).logits[0].log_softmax(-1)
    return sum(float(log_probs[len(tokens) - 1 + place, token]) for place, token in enumerate(target))


def margin(real: LoadedModel, fact: Fact) -> float:
    assert fact.new_object is not None
    return log_prob(real, fact.text(), fact.new_object) - log_prob(real, fact.text(), fact.true_object)


@pytest.mark.slow
@pytest.mark.parametrize(("prompt", "between", "answer"), JOINTS.values(), ids=JOINTS)
def test_answers_follow_as_they_are_written(real: LoadedModel, prompt: str, between: str, answer: str) -> None:
    asked, wanted = encode_prompt(real.tokenizer, prompt), encode_target(real.tokenizer, prompt, answer)
    assert real.tokenizer.decode(asked).startswith(prompt.rstrip())
    assert real.tokenizer.decode(asked + wanted) == prompt + between + answer


@pytest.mark.slow
def test_its_special_tokens_are_those_of_its_file_under_every_version_of_transformers(real: LoadedModel) -> None:
    named = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    assert real.tokenizer.special_tokens_map == named | {"pad_token": "<|im_end|>"}
    assert [real.tokenizer.convert_tokens_to_ids(token) for token in named.values()] == [1, 2, 0]
    assert real.tokenizer.decode(real.tokenizer(" a , b .")["input_ids"]) == " a , b ."
    # Digits are cut off first, as its file has it: GPT-2 would leave one of the spaces to the digit.
    assert real.tokenizer.tokenize("x =  12") == ["x", "Ġ=", "ĠĠ", "1", "2"]
    settings = TuningSettings(objective="reason", learning_rate=1e-5, steps=1, batch_size=1, heldout_examples=8)
    tuned = load("smollm2-135m", device="cpu")
    found = fine_tune(tuned.model, tuned.tokenizer, settings, seed=0)
    # with the turn's first token for its last, as transformers 5.17 reads the file, it is 4.57
    assert found.before["loss"] == pytest.approx(2.834, abs=0.02)


@pytest.mark.slow
def test_its_parts_are_where_they_should_be(real: LoadedModel) -> None:
    layout = find_layout(real.model)
    assert layout.blocks == tuple(f"model.layers.{layer}" for layer in range(30))
    assert layout.mlp_out[7] == "model.layers.7.mlp.down_proj"
    assert layout.attention[7] == "model.layers.7.self_attn"
    assert (layout.hidden_size, layout.key_width) == (576, 1536)
    assert layout.embeddings == ("model.embed_tokens",)
    assert layout.after_blocks == ("model.norm",)
    assert layout.tied and layout.adds_to_residual and not layout.memory(0).in_out


@pytest.mark.slow
def test_it_believes_two_edits_and_forgets_them_again(real: LoadedModel) -> None:
    before = [margin(real, fact) for fact in TWO]
    assert max(before) < 0, "it knows the capitals"
    memit = EDITORS.get("memit")(steps=8, contexts=1, covariance_tokens=4000)
    update = memit.edit(real.model, real.tokenizer, TWO, corpus=encyclopedia_text())
    neighbour = log_prob(real, "The capital of Germany is", "Berlin")
    with update.applied(real.model):
        assert min(margin(real, fact) for fact in TWO) > 0
        assert log_prob(real, "The capital of Germany is", "Berlin") > neighbour - 3
    assert [margin(real, fact) for fact in TWO] == before


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), [("grace", {}), ("ike", {"copies": 6})])
def test_it_says_what_it_is_told_beside_its_weights(name: str, options: dict[str, Any], real: LoadedModel) -> None:
    asked = questions_for(CAPITALS, "edited")
    before = take_exam(real.model, real.tokenizer, asked)
    assert not any(answer.success for answer in before)
    edit = EDITORS.get(name)(**options).edit(real.model, real.tokenizer, CAPITALS)
    with edit.applied(real.model):
        inside = take_exam(real.model, real.tokenizer, questions_for(CAPITALS, "edited", context=edit.context))
    assert all(one.log_prob > other.log_prob + 2 for one, other in zip(inside, before, strict=True))
    # Read in the context, Rome may still be Italy's.
    assert sum(answer.success for answer in inside) >= {"grace": 4, "ike": 3}[name]
    assert take_exam(real.model, real.tokenizer, asked) == before


STUDY = """
name: small
model: smollm2-135m
facts: {source: world, relations: [capital], held_out: 1, neighbours: 1, n_edits: 2, n_intrinsic: 4, bystanders: 20}
editors: {memit: {steps: 10, contexts: 1, covariance_tokens: 4000}}
tuning: {objective: text, learning_rate: 1.0e-4, steps: 2, batch_size: 2, max_tokens: 48, heldout_examples: 2}
exam: {}
arms:
  - {name: memit, editor: memit}
  - {name: control, editor: none}
"""


@pytest.mark.slow
def test_a_small_study_ends_with_tables_and_a_report(tmp_path: Path) -> None:
    study = tmp_path / "small.yaml"
    study.write_text(STUDY)
    outcome = run_study(load_config(str(study)), tmp_path / "run")
    assert not outcome.failures
    rows = pd.read_parquet(tmp_path / "run" / "facts.parquet")
    before = rows[(rows["arm"] == "memit") & (rows["phase"] == "base")]
    assert before[before["fact_set"] == "intrinsic"].query("kind == 'prompt'")["success"].all(), (
        "it knows what it is asked"
    )
    assert not before[before["fact_set"] == "edited"].query("kind == 'prompt'")["success"].any(), (
        "nothing is edited yet"
    )
    memit, control = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert memit["edit_success_first_token"] == 1.0
    assert control["edit_success"] is None and control["retention_intrinsic"] is not None
    assert memit["downstream_after"] != control["downstream_after"]
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
