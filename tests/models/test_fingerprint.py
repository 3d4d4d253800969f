"""The fingerprint changes with anything that changes what a model computes, and with nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedModel

from indelible.models.fingerprint import fingerprint
from tiny_models import FAMILIES


@pytest.mark.parametrize("family", FAMILIES)
def test_one_bit_of_one_weight_changes_it(family: str, tiny_model: Callable[..., PreTrainedModel]) -> None:
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
def test_what_does_not_compute_does_not_count(
    family: str, tiny_model: Callable[..., PreTrainedModel], tmp_path: Path
) -> None:
    model = tiny_model(family)
    first = fingerprint(model)
    assert fingerprint(tiny_model(family)) == first
    assert fingerprint(model.train()) == first
    assert fingerprint(model.requires_grad_(False)) == first
    model.config.use_cache = False
    assert fingerprint(model) == first
    model.save_pretrained(tmp_path)
    assert fingerprint(AutoModelForCausalLM.from_pretrained(tmp_path)) == first


def test_settings_and_precision_count(tiny_model: Callable[..., PreTrainedModel]) -> None:
    model = tiny_model("llama")
    first = fingerprint(model)
    model.config.rms_norm_eps *= 2
    assert fingerprint(model) != first
    assert fingerprint(tiny_model("llama", seed=1)) != first
    assert fingerprint(tiny_model("llama").to(torch.bfloat16)) != first


@pytest.mark.parametrize(
    "change", [{"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}}, {"hidden_act": "gelu"}]
)
def test_the_same_weights_that_compute_something_else_count(
    change: dict[str, object], tiny_model: Callable[..., PreTrainedModel]
) -> None:
    model = tiny_model("llama")
    first = fingerprint(model)
    settings = model.config.to_dict()
    assert all(settings[key] != value for key, value in change.items())
    other = type(model)(type(model.config)(**{**settings, **change}))
    other.load_state_dict(model.state_dict())
    assert fingerprint(other) != first


def test_a_default_that_a_release_adds_does_not_count(
    tiny_model: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_two_weights_exchanged_count(tiny_model: Callable[..., PreTrainedModel]) -> None:
    model = tiny_model("llama")
    first = fingerprint(model)
    attention = model.model.layers[0].self_attn
    attention.k_proj.weight.data, attention.v_proj.weight.data = (
        attention.v_proj.weight.data,
        attention.k_proj.weight.data,
    )
    assert fingerprint(model) != first


def test_tied_weights_count_once(tiny_model: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("gpt2")
    assert model.lm_head.weight is model.transformer.wte.weight
    names: list[str] = []

    class Recorder:
        def __init__(self, _start: bytes) -> None: ...

        def update(self, piece: bytes | memoryview) -> None:
            if isinstance(piece, bytes):
                names.append(piece.decode().split()[0])

        def hexdigest(self) -> str:
            return ""

    monkeypatch.setattr("indelible.models.fingerprint.hashlib.sha256", Recorder)
    fingerprint(model)
    assert ("lm_head.weight" in names) != ("transformer.wte.weight" in names)
    assert len(names) == len(list(model.parameters()))
