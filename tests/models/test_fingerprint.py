"""The fingerprint changes with anything that changes what a model computes, and with nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from indelible.models.fingerprint import Identity, fingerprint, tensor_digest
from tiny_models import FAMILIES, Make


@pytest.mark.parametrize("family", FAMILIES)
def test_one_bit_of_one_weight_changes_it(family: str, tiny_model: Make) -> None:
    model = tiny_model(family)
    first = fingerprint(model)
    assert len(first) == 64 and int(first, 16) >= 0
    parameters = list(model.parameters())
    for parameter in (parameters[0], parameters[len(parameters) // 2], parameters[-1]):
        raw = parameter.detach().reshape(-1).view(torch.int32)
        raw[-1] ^= 1
        assert fingerprint(model) != first
        raw[-1] ^= 1
        assert fingerprint(model) == first


@pytest.mark.parametrize("family", FAMILIES)
def test_what_does_not_compute_does_not_count(family: str, tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model(family)
    first = fingerprint(model)
    assert fingerprint(tiny_model(family)) == first
    assert fingerprint(model.train()) == first
    assert fingerprint(model.requires_grad_(False)) == first
    model.config.use_cache = False
    assert fingerprint(model) == first
    model.save_pretrained(tmp_path)
    assert fingerprint(AutoModelForCausalLM.from_pretrained(tmp_path)) == first


@pytest.mark.parametrize(
    "change",
    [
        {"rms_norm_eps": 1e-3},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        {"hidden_act": "gelu"},
    ],
)
def test_the_same_weights_that_compute_something_else_count(change: dict[str, object], tiny_model: Make) -> None:
    model = tiny_model("llama")
    first = fingerprint(model)
    settings = model.config.to_dict()
    assert all(settings[key] != value for key, value in change.items())
    other = type(model)(type(model.config)(**{**settings, **change}))
    other.load_state_dict(model.state_dict())
    assert fingerprint(other) != first


def test_a_default_that_a_release_adds_does_not_count(tiny_model: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")
    first, original = fingerprint(model), LlamaConfig.to_dict
    monkeypatch.setattr(LlamaConfig, "to_dict", lambda self: {**original(self), "new_in_a_release": "usual"})
    assert fingerprint(model) == first
    own = model.config
    monkeypatch.setattr(
        LlamaConfig,
        "to_dict",
        lambda self: {**original(self), "new_in_a_release": "special" if self is own else "usual"},
    )
    assert fingerprint(model) != first


def test_other_weights_other_places_and_another_precision_count(tiny_model: Make) -> None:
    model = tiny_model("llama")
    first = fingerprint(model)
    assert fingerprint(tiny_model("llama", seed=1)) != first
    assert fingerprint(tiny_model("llama").to(torch.bfloat16)) != first
    attention = model.model.layers[0].self_attn
    attention.k_proj.weight, attention.v_proj.weight = attention.v_proj.weight, attention.k_proj.weight
    assert fingerprint(model) != first


@pytest.mark.parametrize("family", FAMILIES)
def test_an_identity_follows_what_changed(family: str, tiny_model: Make) -> None:
    model = tiny_model(family)
    before = Identity.of(model)
    assert before.fingerprint == fingerprint(model)
    names = [name for name, _ in model.named_parameters()]
    changed = (names[0], names[len(names) // 2])  # the first are embeddings, tied to the head in some families
    with torch.no_grad():
        for name in changed:
            model.get_parameter(name).add_(1.0)
    after = before.with_changed(model, changed)
    assert after == Identity.of(model) and after.fingerprint == fingerprint(model) != before.fingerprint
    assert before.with_changed(model, ()) == before, "what is not named is not read"


def test_tied_weights_count_once(tiny_model: Make) -> None:
    model = tiny_model("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    names = Identity.of(model).tensors
    assert ("lm_head.weight" in names) != ("transformer.wte.weight" in names)
    assert len(names) == len(list(model.parameters()))
    after = Identity.of(model).with_changed(model, ["lm_head.weight"])
    with torch.no_grad():
        model.transformer.wte.weight.add_(1.0)
    assert after.with_changed(model, ["lm_head.weight"]) == Identity.of(model) != after


@pytest.mark.parametrize(
    "other", [torch.zeros(6), torch.zeros(2, 3, dtype=torch.int32), torch.zeros(3, 2), torch.full((2, 3), -0.0)]
)
def test_a_tensor_is_known_by_its_type_shape_and_bytes(other: torch.Tensor) -> None:
    assert tensor_digest(torch.zeros(2, 3)) != tensor_digest(other)
    assert tensor_digest(other.t() if other.dim() == 2 else other) == tensor_digest(
        other.t().contiguous() if other.dim() == 2 else other.clone()
    )
