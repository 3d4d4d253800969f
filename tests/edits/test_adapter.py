"""Edits as LoRA adapters of peft: the same model with the adapter as with the edit, and read again as that edit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import safe_open
from tiny_edits import logits
from transformers import PreTrainedModel
from worked_facts import CAPITALS

from indelible.edits.deltas.adapter import Factors, factored, read_delta, write_adapter
from indelible.edits.deltas.manifest import Made, WeightManifest
from indelible.edits.deltas.origin import origin
from indelible.edits.deltas.weights import Delta, Dense, LowRank, WeightUpdate
from indelible.errors import EditError, FingerprintError, ModelError
from indelible.models.fingerprint import fingerprint
from indelible.models.load import LoadedModel
from tiny_models import Make, Tokenizer
from untouched import untouched

TOKENS = torch.arange(5, 25)[None]
# By family: weights and the ranks of their differences; tied embeddings, an own head, stored (in, out) and (out, in).
WEIGHTS: dict[str, dict[str, int]] = {
    "gpt2": {"transformer.h.1.mlp.c_proj.weight": 3, "transformer.h.11.attn.c_attn.weight": 40},
    "llama": {"model.layers.1.mlp.down_proj.weight": 2, "model.layers.11.mlp.down_proj.weight": 1, "lm_head.weight": 5},
    "qwen2": {"model.layers.2.self_attn.q_proj.weight": 1, "model.embed_tokens.weight": 4},
}


def update_of(model: PreTrainedModel, deltas: dict[str, Delta]) -> WeightUpdate:
    manifest = WeightManifest(
        fingerprint=fingerprint(model),
        model=origin(model),
        made=(Made(editor="memit", options={}, paraphrases=0, seed=0, versions={}),),
        parameters=tuple(deltas),
        facts=tuple(CAPITALS[:2]),
    )
    return WeightUpdate(deltas, manifest).sealed(model)


def random_deltas(model: PreTrainedModel, ranks: dict[str, int]) -> dict[str, Delta]:
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Delta] = {}
    for name, rank in ranks.items():
        rows, columns = model.get_parameter(name).shape
        left, right = torch.randn(rows, rank, generator=generator), torch.randn(rank, columns, generator=generator)
        found[name] = LowRank.balanced(0.1 * left, right)
    return found


def written(folder: Path, update: WeightUpdate, model: PreTrainedModel, rank: int | None = None) -> Path:
    folder.mkdir()
    write_adapter(
        folder, update, model, {name: factored(name, one, rank) for name, one in update.deltas.items()}, "x/y"
    )
    return folder


@pytest.mark.parametrize("family", WEIGHTS)
def test_an_edit_is_the_same_as_an_adapter_and_comes_back_as_it_was(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path, family: str
) -> None:
    model = tiny_model(family, layers=12)
    ranks = WEIGHTS[family]
    update = update_of(model, random_deltas(model, ranks))
    folder = written(tmp_path / "adapter", update, model)
    plain = logits(model, TOKENS)
    with update.installed(model):
        edited = logits(model, TOKENS)
    assert (edited - plain).abs().max() > 0.1
    adapted = PeftModel.from_pretrained(tiny_model(family, layers=12), str(folder)).eval()
    assert (logits(adapted, TOKENS) - edited).abs().max() < 1e-3

    # One rank and alpha / r = 1 for all, for those who read no patterns.
    settings = json.loads((folder / "adapter_config.json").read_text())
    assert settings["r"] == settings["lora_alpha"] == max(ranks.values())
    assert not settings["rank_pattern"] and not settings["modules_to_save"] and settings["bias"] == "none"
    assert settings["base_model_name_or_path"] == "x/y"
    with safe_open(folder / "adapter_model.safetensors", "pt") as saved:
        for key in saved.keys():  # noqa: SIM118 -- it is no mapping
            assert min(saved.get_slice(key).get_shape()) == settings["r"] or settings["r"] > 32, key
            module = key.removeprefix("base_model.model.").rpartition(".lora_")[0]
            assert module in settings["target_modules"]

    with untouched(model):
        again = read_delta(folder, base=LoadedModel(model, tiny_tokenizer, "x"))
    assert isinstance(again, WeightUpdate) and again.parameters == tuple(
        sorted(update.parameters, key=again.parameters.index)
    )
    assert again.manifest.seal == update.manifest.seal and again.facts == update.facts
    with pytest.raises(FingerprintError, match="was made for"):
        read_delta(folder, base=LoadedModel(tiny_model(family, seed=1, layers=12), tiny_tokenizer, "x"))


def test_a_difference_without_a_low_rank_is_cut_only_where_that_is_asked_for() -> None:
    full = torch.randn(40, 24, generator=torch.Generator().manual_seed(0))
    with pytest.raises(EditError, match=r"w has no low rank: factors of rank 24 of 24.*leave out \d+% at rank 16"):
        factored("w", Dense(full), None)
    values = np.linalg.svd(full.double().numpy(), compute_uv=False)
    for rank in (1, 7, 24, 100):
        cut = factored("w", Dense(full), rank)
        wanted = np.sqrt((values[rank:] ** 2).sum() / (values**2).sum())
        error = np.linalg.norm((full - cut.delta.difference()).double().numpy()) / np.linalg.norm(values)
        assert cut.rank == min(rank, 24)
        assert cut.error == pytest.approx(wanted, abs=1e-6) and error == pytest.approx(wanted, abs=1e-5)
    low = full[:, :3] @ full[:3]
    assert factored("w", Dense(low), None).rank == 3  # a sum of edits may be kept in full
    assert factored("w", LowRank(full[:, :5], full[:5]), 2).rank == 2
    assert factored("w", Dense(torch.zeros(4, 4)), None).rank == 1


def test_what_lora_does_not_change_is_refused(tiny_model: Make, tmp_path: Path) -> None:
    model = tiny_model("gpt2")
    for name in ("transformer.h.1.mlp.c_proj.bias", "transformer.ln_f.weight"):
        update = update_of(model, {name: Dense(torch.ones_like(model.get_parameter(name)))})
        with pytest.raises(EditError, match=f"{name} is no weight of a linear map or an embedding"):
            write_adapter(
                tmp_path, update, model, {name: Factors(LowRank(torch.ones(1, 1), torch.ones(1, 1)), 0.0)}, "x"
            )


@pytest.mark.parametrize(
    ("family", "options"),
    [
        (
            "llama",
            {
                "target_modules": ["q_proj", "down_proj"],
                "rank_pattern": {"layers.1.mlp.down_proj": 5},
                "alpha_pattern": {"q_proj": 3},
            },
        ),
        ("gpt2", {"target_modules": ["c_attn"], "use_rslora": True}),
        ("llama", {"target_modules": ["embed_tokens", "lm_head"]}),
    ],
)
def test_an_adapter_made_elsewhere_is_read(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path, family: str, options: dict[str, Any]
) -> None:
    made = elsewhere(tiny_model(family), tmp_path, **options)
    model = tiny_model(family)
    read = read_delta(tmp_path, base=LoadedModel(model, tiny_tokenizer, "x"), facts=CAPITALS[:1])
    assert read.facts == list(CAPITALS[:1]) and read.manifest.editor == "adapter"
    merged = made.merge_and_unload()
    changed = {name for name, weight in merged.named_parameters() if not torch.equal(weight, model.get_parameter(name))}
    assert set(read.parameters) == changed
    read.apply(model)
    for name, weight in merged.named_parameters():
        assert torch.allclose(model.get_parameter(name), weight, atol=1e-6), name


@pytest.mark.parametrize(
    "options",
    [
        {"use_dora": True},
        {"bias": "lora_only", "target_modules": ["q_proj"]},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": ["embed_tokens"]},  # of which the head is not moved, though its weight is the same
    ],
)
def test_an_adapter_that_is_no_edit_is_refused(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path, options: dict[str, Any]
) -> None:
    elsewhere(tiny_model("qwen2"), tmp_path, **{"target_modules": ["down_proj"], **options})
    model = tiny_model("qwen2")
    with untouched(model), pytest.raises(EditError, match="does more than add low-rank differences"):
        read_delta(tmp_path, base=LoadedModel(model, tiny_tokenizer, "x"))


def test_an_adapter_that_is_damaged_or_of_another_model_is_refused(
    tiny_model: Make, tiny_tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = tiny_model("llama")
    update = update_of(model, random_deltas(model, {"model.layers.1.mlp.down_proj.weight": 2}))
    folder = written(tmp_path / "adapter", update, model)
    weights = folder / "adapter_model.safetensors"
    raw = weights.read_bytes()
    weights.write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(EditError, match="is damaged"):
        read_delta(folder, base=LoadedModel(model, tiny_tokenizer, "x"))
    weights.write_bytes(raw[:-1])
    with pytest.raises(EditError, match="cannot be read"):
        read_delta(folder, base=LoadedModel(model, tiny_tokenizer, "x"))
    weights.write_bytes(raw)
    other = tiny_model("llama", width=64)
    with untouched(other), pytest.raises(ModelError, match="does not fit its model"):
        read_delta(folder, base=LoadedModel(other, tiny_tokenizer, "x"))


def elsewhere(model: PreTrainedModel, folder: Path, **options: Any) -> PeftModel:
    """An adapter as peft makes it, in which everything was trained a good way."""
    made = get_peft_model(model, LoraConfig(**{"r": 4, "lora_alpha": 8, **options})).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.requires_grad:
                weight.add_(0.2 * torch.randn(weight.shape, generator=generator))
    made.save_pretrained(folder)
    return made
