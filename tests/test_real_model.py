"""The bundled model itself: its layout, one small edit that it believes, and one small study from end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from indelible.edits.editor import EDITORS
from indelible.facts.fact import Fact
from indelible.models.bundled.texts import encyclopedia_text
from indelible.models.layout import find_layout
from indelible.models.load import LoadedModel, load
from indelible.models.tokens import encode_prompt, encode_target
from indelible.study.design.config import load_config
from indelible.study.run.run import run_study

CAPITALS = tuple(
    Fact(subject, subject, "capital", "The capital of {} is", true, new)
    for subject, true, new in (("France", "Paris", "Rome"), ("Japan", "Tokyo", "Cairo"))
)


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
def test_its_parts_are_where_they_should_be(real: LoadedModel) -> None:
    layout = find_layout(real.model)
    assert layout.blocks == tuple(f"model.layers.{layer}" for layer in range(30))
    assert layout.mlp_out[7] == "model.layers.7.mlp.down_proj"
    assert layout.attention[7] == "model.layers.7.self_attn"
    assert (layout.hidden_size, layout.key_width) == (576, 1536)
    assert layout.embeddings == ("model.embed_tokens",)
    assert layout.after_blocks == ("model.norm",)
    assert layout.tied and layout.adds_to_residual and not layout.in_out


@pytest.mark.slow
def test_it_believes_two_edits_and_forgets_them_again(real: LoadedModel) -> None:
    before = [margin(real, fact) for fact in CAPITALS]
    assert max(before) < 0, "it knows the capitals"
    memit = EDITORS.get("memit")(steps=8, contexts=1, covariance_tokens=4000)
    update = memit.edit(real.model, real.tokenizer, CAPITALS, corpus=encyclopedia_text())
    neighbour = log_prob(real, "The capital of Germany is", "Berlin")
    with update.applied(real.model):
        assert min(margin(real, fact) for fact in CAPITALS) > 0
        assert log_prob(real, "The capital of Germany is", "Berlin") > neighbour - 3
    assert [margin(real, fact) for fact in CAPITALS] == before


STUDY = """
name: small
model: smollm2-135m
facts: {source: world, relations: [capital], held_out: 1, n_edits: 2, n_intrinsic: 4, bystanders: 20}
editors: {memit: {steps: 10, contexts: 1, covariance_tokens: 4000}}
tuning: {objective: reason, learning_rate: 1.0e-4, steps: 2, batch_size: 2, max_tokens: 48, heldout_examples: 4}
exam: {every: 1}
arms:
  - {name: memit, editor: memit}
  - {name: frozen, editor: memit, mask: up-to-edited}
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
    memit, frozen, control = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert memit["edit_success_first_token"] == frozen["edit_success_first_token"] == 1.0
    assert control["edit_success"] is None and control["retention_intrinsic"] is not None
    assert memit["downstream_after"] != frozen["downstream_after"] != control["downstream_after"]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    finished = [event["title"] for event in events if event["event"] == "finished"]
    assert len([title for title in finished if title.startswith("edit:")]) == 1, "both arms share the edit"
    assert "<html" in (tmp_path / "run" / "report.html").read_text()
