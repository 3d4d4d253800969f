"""What is trained on in batches is what the model says of each row alone: one whole pass, no padding, no cache."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import trl
from test_objectives import settings, small_tasks  # noqa: F401
from transformers import PreTrainedModel

from indelible.errors import ModelError
from indelible.tuning.objective import NO_LOSS, OBJECTIVES
from indelible.tuning.rows import draw_rows
from indelible.tuning.task import TASKS, Example, Task
from indelible.tuning.train import fine_tune
from tiny_families import ODD, SHAPE, TABLE, build_family, enliven
from tiny_models import Tokenizer, build_tokenizer
from untouched import bits, changed, untouched

_GROUPED = {**SHAPE, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES: dict[str, dict[str, Any]] = {
    "gpt2": {**TABLE["gpt2"].settings, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "xglm": {
        **{"d_model": 32, "ffn_dim": 64, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 128},
        **{"dropout": 0.0, "attention_dropout": 0.0},
    },
    "recurrent_gemma": {**_GROUPED, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 8},
    "rwkv": {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2, "context_length": 128},
    "mamba": {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "time_step_rank": 4},
    "reformer": {
        **{"attn_layers": ["local", "lsh"], "hidden_size": 32, "num_attention_heads": 4, "attention_head_size": 8},
        **{"feed_forward_size": 64, "axial_pos_embds": False, "num_buckets": 2, "hidden_dropout_prob": 0.0},
        **{"local_attention_probs_dropout_prob": 0.0, "is_decoder": True, "max_position_embeddings": 128},
    },
    "llama4_text": {
        **{**_GROUPED, "num_hidden_layers": 2, "intermediate_size_mlp": 64, "num_local_experts": 2},
        **{"interleave_moe_layer_step": 2, "attention_chunk_size": 16, "router_aux_loss_coef": 0.0},
    },
}


def family(name: str, tokenizer: Tokenizer) -> PreTrainedModel:
    model = build_family(name, len(tokenizer), settings=FAMILIES[name])
    return model if name in ("rwkv", "mamba") else enliven(model)


def scored(model: PreTrainedModel, ids: Sequence[int]) -> torch.Tensor:
    """Log-probability of each token but the first, float64."""
    with torch.no_grad():
        found_tv = model(torch.tensor([list(ids)]), use_cache=False).logits[0, :-1].double().log_softmax(-1)
    return found_tv.gather(1, torch.tensor(ids[1:])[:, None])[:, 0]


def mean_loss(model: PreTrainedModel, rows: Sequence[Any]) -> float:
    losses = [
        -scored(model, row.input_ids)[torch.tensor([label != NO_LOSS for label in row.labels[1:]])] for row in rows
    ]
    return float(torch.cat(losses).mean())


@pytest.mark.parametrize("objective", ["text", "instruct", "classify", "preference", "reward"])
@pytest.mark.parametrize("name", FAMILIES)
def test_rows_are_scored_in_batches_as_each_is_alone(
    name: str, objective: str, tiny_tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = family(name, tiny_tokenizer)
    own = (
        {"answer_tokens": 4, "generations": 2, "train_examples": 2} if objective == "reward" else {"train_examples": 4}
    )
    chosen = settings(objective, steps=1, batch_size=4, heldout_examples=4, precision="fp32", learning_rate=1e-9, **own)
    off: list[float] = []
    trls = trl.GRPOTrainer._compute_loss

    def watched(self: Any, model: Any, inputs: Any) -> Any:
        both = [torch.cat([inputs[f"prompt_{what}"], inputs[f"completion_{what}"]], 1) for what in ("ids", "mask")]
        found = self._get_per_token_logps_and_entropies(model, *both, inputs["completion_ids"].shape[1])[0].detach()
        for row, mask, one, said in zip(*both, found, inputs["completion_mask"].sum(1).tolist(), strict=True):
            off.append(float((one[:said] - scored(model, row[mask.bool()].tolist())[-said:]).abs().max()))
        assert inputs["prompt_mask"].sum(1).unique().numel() > 1, "prompts of unequal length"
        return trls(self, model, inputs)

    unequal = [Example(f"{'so ' * number}what is gold?", "", score=len) for number in range(1, 16)]
    monkeypatch.setitem(TASKS._entries, "reward", Task(lambda seed: iter(unequal)))
    monkeypatch.setattr(trl.GRPOTrainer, "_compute_loss", watched)
    rows = draw_rows(TASKS.get(objective), OBJECTIVES.get(objective), tiny_tokenizer, chosen, facts=(), seed=0)
    if objective in ("preference", "reward"):
        expected = [math.log(2)]
    else:
        expected = [mean_loss(model, rows.train), mean_loss(model, rows.heldout)]
    result = fine_tune(model, tiny_tokenizer, chosen)
    if objective == "reward":
        assert off and max(off) < 1e-3
    else:
        assert result.log[0]["loss"] == pytest.approx(expected[0], abs=1e-3)
    if objective in ("text", "instruct"):
        assert result.before["loss"] == pytest.approx(expected[1], abs=1e-3)


def test_a_model_that_is_not_causal_is_refused_before_anything_is_changed(tiny_tokenizer: Tokenizer) -> None:
    small = {"d_model": 32, "n_layer": 2, "n_head": 4, "d_inner": 64, "dropout": 0.0}
    model = enliven(build_family("xlnet", len(tiny_tokenizer), settings=small))
    with untouched(model), pytest.raises(ModelError, match="XLNetLMHeadModel cannot be tuned here: "):
        fine_tune(model, tiny_tokenizer, settings("reward", answer_tokens=2, generations=2, batch_size=4))


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_gradients_reach_reversible_blocks_behind_frozen_embeddings(tuner: str, tiny_tokenizer: Tokenizer) -> None:
    model = family("reformer", tiny_tokenizer)
    frozen = {name for name, _ in model.named_parameters() if "embeddings" in name}
    before = bits(model)
    own = {"tuner": tuner, "train_examples": 4, "heldout_examples": 2, "weight_decay": 0.0}
    result = fine_tune(model, tiny_tokenizer, settings("text", steps=2, batch_size=4, **own), frozen=frozen)
    blocks = {name for name, _ in model.named_parameters() if name.startswith("reformer.encoder.layers.")}
    if tuner == "lora":
        blocks &= {f"{path}.weight" for path in result.adapted}
    moved = set(changed(before, model))
    assert blocks and moved >= blocks and not moved & frozen
    assert not model.get_input_embeddings()._forward_hooks


@pytest.mark.parametrize(
    ("name", "own", "options", "said"),
    [
        (
            "reformer",
            {"local_attn_chunk_length": 4, "pad_token_id": 0},
            {},
            "ValueError: If training, sequence length",
        ),
        ("openai-gpt", {}, {"gradient_checkpointing": True}, "ValueError: OpenAIGPTLMHeadModel does not"),
        ("gpt2", {}, {"tuner": "lora"}, "no gradient reaches what is to be trained"),
    ],
)
def test_a_model_that_is_read_well_and_cannot_be_trained_is_refused(
    name: str, own: dict[str, Any], options: dict[str, Any], said: str, tiny_tokenizer: Tokenizer
) -> None:
    shape = FAMILIES.get(name) or ODD[name].settings
    model = enliven(build_family(name, len(tiny_tokenizer), settings=shape | own))
    if name == "gpt2":  # what its owner has cut off
        model.transformer.ln_f.register_forward_hook(lambda _module, _args, output: output.detach())
    with untouched(model), pytest.raises(ModelError, match=said):
        fine_tune(model, tiny_tokenizer, settings("text", batch_size=4, heldout_examples=2, **options))


@pytest.mark.parametrize("full", ["batch", "training", "cache"])
def test_a_memory_that_is_full_is_no_way_that_a_model_cannot_be_read(full: str, tiny_tokenizer: Tokenizer) -> None:
    model = family("gpt2", tiny_tokenizer)

    def too_much(module: Any, _args: Any, options: dict[str, Any]) -> None:
        if {"batch": True, "training": module.training, "cache": bool(options.get("use_cache"))}[full]:
            raise torch.OutOfMemoryError("planted")

    own = {"answer_tokens": 2, "generations": 2, "batch_size": 4, "heldout_examples": 2}
    planted = model.register_forward_pre_hook(too_much, with_kwargs=True)
    with planted, untouched(model), pytest.raises(torch.OutOfMemoryError, match="planted"):
        fine_tune(model, tiny_tokenizer, settings("reward", **own))


def test_adapters_that_a_model_reads_past_are_named(tiny_tokenizer: Tokenizer) -> None:
    model = family("mamba", tiny_tokenizer)
    before = bits(model)
    asked = settings("text", tuner="lora", steps=2, batch_size=4, heldout_examples=2)
    with pytest.warns(UserWarning, match=r"2 of the adapted modules may learn nothing, such as '.*mixer\.dt_proj'"):
        result = fine_tune(model, tiny_tokenizer, asked)
    idle = {f"{path}.weight" for path in result.adapted} - set(changed(before, model))
    assert idle == {f"backbone.layers.{layer}.mixer.dt_proj.weight" for layer in (0, 1)}


@pytest.mark.parametrize("objective", ["preference", "reward"])
def test_a_padding_token_that_the_model_does_not_have_is_not_used(objective: str) -> None:
    tokenizer = build_tokenizer(pad="<|pad|>")
    model = build_family("gpt2", len(tokenizer), settings=FAMILIES["gpt2"])
    tokenizer.add_special_tokens({"pad_token": "<|beyond|>"})
    assert tokenizer.pad_token_id == len(model.get_input_embeddings().weight)
    own = {"answer_tokens": 2, "generations": 2} if objective == "reward" else {}
    fine_tune(model, tokenizer, settings(objective, steps=1, batch_size=4, heldout_examples=4, **own))
    assert tokenizer.pad_token == "<|beyond|>"
