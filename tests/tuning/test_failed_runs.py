"""Whatever fails leaves the model as it was, at every stage, with every kind of tuner."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import pytest
from peft.tuners.lora import LoraLayer
from test_objectives import settings, small_tasks  # noqa: F401
from torch import nn
from transformers import PreTrainedModel, TrainerCallback

from family.tiny import build
from indelible.errors import ConfigError, IndelibleError
from indelible.models.layout import find_layout
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.objective import OBJECTIVES
from indelible.tuning.train import fine_tune
from indelible.tuning.tuners.adapting import adapted
from indelible.tuning.tuners.tuner import TunerSettings
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


@pytest.mark.parametrize("name", ["afmoe", "deepseek_v3", "mamba"])
def test_adapters_go_where_they_are_named_and_nowhere_else(name: str, tiny_tokenizer: Tokenizer) -> None:
    """peft rewrites names of experts by the model's type, and refuses Mamba's output projection."""
    model = build(name, len(tiny_tokenizer))
    linear = {path for path, module in model.named_modules() if type(module) is nn.Linear and path != "lm_head"}
    modules = {path: id(module) for path, module in model.named_modules()}
    model.config.pretraining_tp = 2  # peft's own wrapper sets it to 1
    settings = model.config.to_dict()
    with adapted(model, TunerSettings(tuner="lora", dropout=0.5), ()) as tuned:
        assert {path for path, module in model.named_modules() if isinstance(module, LoraLayer)} == linear
        assert set(tuned.adapted_modules) == linear
        assert not any(module.training for module in model.modules())
    assert {path: id(module) for path, module in model.named_modules()} == modules
    assert model.config.to_dict() == settings


def test_what_derives_from_a_linear_map_and_is_none_is_left_alone() -> None:
    model = build("llama4_text", 400)  # its router returns a pair
    assert any(isinstance(module, nn.Linear) and "router" in path for path, module in model.named_modules())
    with adapted(model, TunerSettings(tuner="lora"), ()) as tuned:
        assert tuned.adapted_modules and not any("router" in path for path in tuned.adapted_modules)


def test_what_computes_a_linear_map_in_its_own_way_is_adapted() -> None:
    model = build("falcon", 400)
    kind: Any = type(model.get_submodule("transformer.h.0.mlp.dense_4h_to_h"))
    assert issubclass(kind, nn.Linear) and kind.forward is not nn.Linear.forward
    with adapted(model, TunerSettings(tuner="lora"), ()) as tuned:
        assert "transformer.h.0.mlp.dense_4h_to_h" in tuned.adapted_modules


def test_embeddings_that_are_written_into_are_trained_without_gradients_of_theirs(tiny_tokenizer: Tokenizer) -> None:
    model = build("git", len(tiny_tokenizer))
    assert fine_tune(model, tiny_tokenizer, options("text", "lora")).adapted


def test_a_matrix_that_layers_share_is_left_out_unless_it_is_asked_for() -> None:
    model = build("zamba", 400)
    left_out = pytest.warns(UserWarning, match=r"'lora' leaves out \d+ modules whose weights several layers share")
    with left_out, adapted(model, TunerSettings(tuner="lora"), ()) as tuned:
        assert tuned.adapted_modules and not any("shared_transf" in path for path in tuned.adapted_modules)
    named = TunerSettings(tuner="lora", target_modules=("q_proj",))
    refused = pytest.raises(ConfigError, match=r"'lora' cannot adapt .*q_proj': several layers share its weights")
    with nothing_changed(model), refused, adapted(model, named, ()):
        pass
