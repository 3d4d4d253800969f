"""The bundled model itself: its layout, and one small edit that it believes."""

from __future__ import annotations

import pytest
import torch

from indelible.edits.editor import EDITORS
from indelible.facts.fact import Fact
from indelible.models.bundled import encyclopedia_text
from indelible.models.layout import find_layout
from indelible.models.load import LoadedModel, load
from indelible.models.tokens import encode_prompt, encode_target

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
