"""Whatever fails leaves the model as it was, at every stage, with every kind of tuner."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from peft.tuners.lora import LoraLayer
from test_objectives import settings, small_tasks  # noqa: F401
from transformers import PreTrainedModel, TrainerCallback

from indelible.errors import IndelibleError
from indelible.models.layout import find_layout
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.objective import OBJECTIVES
from indelible.tuning.train import fine_tune
from tiny_families import build_family
from tiny_models import Make, Tokenizer
from untouched import untouched


class BoomError(Exception):
    """What is planted."""


class Bomb(TrainerCallback):
    def on_step_end(self, *around: Any, **more: Any) -> None:
        raise BoomError


@contextlib.contextmanager
def nothing_changed(model: PreTrainedModel) -> Iterator[None]:
    """All that is seen from outside, and what trainers and peft reach for: attributes, modules, settings."""

    def state() -> Any:
        inside = {name: (id(module), sorted(vars(module))) for name, module in model.named_modules()}
        settings = [copy.deepcopy(one.to_dict()) for one in (model.config, model.generation_config)]
        return inside, settings, [name for name, _ in model.named_parameters()]

    before = state()
    with untouched(model):
        yield
    assert state() == before


def options(objective: str, tuner: str, **more: Any) -> Any:
    own = {"answer_tokens": 2, "generations": 2} if objective == "reward" else {}
    return settings(objective, tuner=tuner, steps=2, batch_size=4, heldout_examples=4, **own, **more)


@pytest.mark.parametrize(
    ("objective", "tuner", "stage"),
    [
        *(("text", "full", stage) for stage in ("arguments", "before", "step", "loss", "after")),
        *(("text", "lora", stage) for stage in ("arguments", "before", "step", "loss", "merge", "after")),
        *(("text", tuner, "merge") for tuner in ("dora", "ia3", "ln_tuning", "oft")),
        *((objective, "full", "step") for objective in ("instruct", "classify", "preference", "reward")),
    ],
)
def test_a_failure_at_any_stage_leaves_the_model_as_it_was(
    objective: str,
    tuner: str,
    stage: str,
    tiny_model: Make,
    tiny_tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tiny_model("llama").train()
    model.lm_head.weight.requires_grad_(False)
    handle = model.model.layers[1].register_forward_hook(lambda *_: None)
    frozen = frozen_parameters("edited-layers", model, find_layout(model), ["model.layers.1.mlp.down_proj.weight"])
    kind = OBJECTIVES.get(objective)
    looks, judge = [], type(kind).judge

    def planted(self: Any, run: Any) -> Any:
        from indelible.tuning.training.judging import loss_judge

        inner = judge(self, run) or loss_judge(run)

        def look(names: Any) -> Any:
            looks.append(names)
            if len(looks) == ("before", "after").index(stage) + 1:
                raise BoomError
            return inner(names)

        return look

    more: dict[str, Any] = {"arguments": {"trainer": {"optim": "no such"}}, "loss": {"learning_rate": 1e30}}.get(
        stage, {}
    )
    if stage in ("before", "after"):
        monkeypatch.setattr(type(kind), "judge", planted)
    if stage == "merge":
        from indelible.tuning.tuners import adapting

        monkeypatch.setattr(adapting, "_merged", lambda *_: (_ for _ in ()).throw(BoomError))
    before = sum(len(module._forward_hooks) for module in model.modules())
    with nothing_changed(model), pytest.raises((BoomError, IndelibleError)):
        callbacks = [Bomb()] if stage == "step" else []
        fine_tune(model, tiny_tokenizer, options(objective, tuner, **more), frozen=frozen, callbacks=callbacks)
    handle.remove()
    assert sum(len(module._forward_hooks) for module in model.modules()) == before - 1, "its handle still holds"


MIXTURE = {
    **{"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4},
    **{"num_key_value_heads": 2, "num_local_experts": 2, "num_experts_per_tok": 1, "max_position_embeddings": 128},
}


@pytest.mark.parametrize("names", [None, ("q_proj", "w1")])
def test_adapters_that_peft_puts_elsewhere_are_taken_out(
    names: tuple[str, ...] | None, tiny_tokenizer: Tokenizer
) -> None:
    """peft rewrites names of experts: it leaves some modules that it was given, and adapts others."""
    model = build_family("mixtral", len(tiny_tokenizer), settings=MIXTURE)
    with nothing_changed(model), contextlib.suppress(IndelibleError):
        fine_tune(model, tiny_tokenizer, options("text", "lora", target_modules=names, learning_rate=1e-20))
    assert not any(isinstance(module, LoraLayer) for module in model.modules())
