"""Protections: each holds what it says, changes nothing at a dose of 0, and works in a plain Trainer."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from indelible.errors import ConfigError
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.models.trace import evaluating
from indelible.tuning.protection import (
    PROTECTIONS,
    Anchored,
    Guarded,
    Protection,
    Rehearsed,
    protections_from,
    wording_of,
)
from indelible.tuning.protections.anchor import Anchor
from indelible.tuning.protections.interpolate import Interpolate
from indelible.tuning.protections.key_anchor import KeyAnchor, keys_of
from indelible.tuning.protections.near import Near
from indelible.tuning.protections.projection import Projection
from indelible.tuning.protections.repair import Repair
from indelible.tuning.protections.replay import Replay
from indelible.tuning.protections.self_replay import SelfReplay
from indelible.tuning.train import TuningResult, fine_tune
from indelible.tuning.training import callbacks
from indelible.tuning.training.answering import Likeliest, following, predicted
from indelible.tuning.training.guarding import Guarding
from tiny_models import build_model, build_tokenizer

FACTS = [
    Fact("a", "Peru", "capital", "The capital of {} is", "Nor", "Port"),
    Fact("b", "Denmark", "language", "In {} people speak", "Par", "Bra"),
]
SETTINGS = {
    "objective": "reason", "learning_rate": 3e-3, "steps": 12, "batch_size": 4, "max_tokens": 96,
    "heldout_examples": 8, "precision": "fp32", "weight_decay": 0.1,
}  # fmt: skip
OFF = [KeyAnchor(weight=0), Anchor(weight=0), Replay(share=0), SelfReplay(weight=0), Near(weight=0)]
OFF += [Projection(energy=0), Interpolate(points=0), Repair(every=0)]


def guarded(family: str = "llama") -> Guarded:
    tokenizer = build_tokenizer(pad="<|pad|>")
    model = build_model(family, len(tokenizer), seed=1, layers=3, width=48)
    said = [wording_of(tokenizer, fact, fact.prompt, fact.new_object or "") for fact in FACTS]
    layout = find_layout(model)
    return Guarded(model, tokenizer, layout, said, [layout.mlp_out_weight[1]], seed=3)


def tuned(*protections: Protection, **more: object) -> tuple[Guarded, TuningResult]:
    held = guarded()
    settings = {**SETTINGS, **more}
    result = fine_tune(held.model, held.tokenizer, settings, protections=protections, guarded=held)
    return held, result


def weights(held: Guarded) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in held.model.named_parameters()}


@pytest.fixture(scope="module")
def plain() -> tuple[Guarded, TuningResult]:
    return tuned()


def test_a_dose_of_nothing_changes_no_bit(plain: tuple[Guarded, TuningResult]) -> None:
    assert {one.name for one in OFF} == set(PROTECTIONS)
    held, _ = tuned(*OFF)
    for name, weight in weights(plain[0]).items():
        assert torch.equal(weight, held.model.get_parameter(name)), name


def keys_moved(held: Guarded) -> float:
    start = guarded()
    with torch.no_grad():
        before, now = (keys_of(one, one.wordings) for one in (start, held))
    return float((now - before).norm() / before.norm())


def squares_moved(held: Guarded) -> float:
    start = guarded()
    with torch.no_grad(), evaluating(start.model):
        before, now = (keys_of(one, one.wordings) for one in (start, held))
    return float(((now - before).square().sum(-1) / before.square().sum(-1)).mean())


def predictions_moved(held: Guarded) -> float:
    start = guarded()
    texts, starts = [one.tokens for one in held.wordings], [len(one.prompt) for one in held.wordings]
    with torch.no_grad(), evaluating(start.model):
        before, now = (predicted(one, texts, starts) for one in (start, held))
    return float((before.exp() * (before - now)).sum(-1).mean())


def edits_unlikely(held: Guarded) -> float:
    texts, starts = [one.tokens for one in held.wordings], [len(one.prompt) for one in held.wordings]
    with torch.no_grad():
        return -float(predicted(held, texts, starts).gather(1, following(texts, starts)[:, None]).mean())


def own_texts_moved(held: Guarded) -> float:
    """On texts that are not those of training: another seed."""
    start = guarded()
    texts = SelfReplay().things(Guarded(**{**vars(start), "seed": 99}))
    with torch.no_grad():
        before, now = (predicted(one, texts, [1] * len(texts)) for one in (start, held))
    return float((before.exp() * (before - now)).sum(-1).mean())


def weights_moved(held: Guarded) -> float:
    before = weights(guarded())
    return sum(float((one - before[name]).norm()) for name, one in weights(held).items())


@pytest.mark.parametrize(
    ("protection", "figure", "share"),
    [
        (KeyAnchor(), keys_moved, 0.5),
        (Anchor(weight=10), predictions_moved, 0.5),
        (Replay(share=0.4, every=1), edits_unlikely, 0.6),
        (SelfReplay(weight=10, at_once=8), own_texts_moved, 0.7),
        (Near(weight=30), weights_moved, 0.8),
        (Projection(energy=1, most=1, where="all"), predictions_moved, 0.8),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_it_holds_what_it_is_about(
    protection: Protection, figure: Callable[[Guarded], float], share: float, plain: tuple[Guarded, TuningResult]
) -> None:
    held, result = tuned(protection)
    assert figure(held) < share * figure(plain[0])
    assert result.after["loss"] < result.before["loss"]


@pytest.mark.parametrize("family", ["llama", "gpt2", "qwen2"])
def test_what_edited_wordings_put_into_projected_maps_is_answered_as_before(family: str) -> None:
    start, held = guarded(family), guarded(family)
    projection = Projection(energy=1, most=1)
    maps = list(projection._maps(held.model, held.layout, held.layers))
    spaces = projection._spaces(held, maps)
    settings = {**SETTINGS, "steps": 50}
    result = fine_tune(held.model, held.tokenizer, settings, protections=[projection], guarded=held)
    others = projection._maps(start.model, start.layout, start.layers)
    moved = 0.0
    for path, (now, _) in projection._maps(held.model, held.layout, held.layers).items():
        before = others[path][0]
        answered, answers = before @ spaces[path], now @ spaces[path]
        assert float((answers - answered).norm() / answered.norm()) < 1e-5, path
        moved += float((now - before).norm() / before.norm())
        bias, was = (getattr(one.model.get_submodule(path), "bias", None) for one in (held, start))
        assert (bias is None) == (was is None) and (bias is None or torch.equal(bias, was)), path
    assert len(maps) == 2 * {"gpt2": 4}.get(family, 7) and moved > 1e-3
    assert result.after["loss"] < result.before["loss"]


def test_projection_holds_under_lora_and_none_is_taken_where_it_cannot_work(
    plain: tuple[Guarded, TuningResult],
) -> None:
    held, result = tuned(Projection(energy=1, most=1, where="all"), tuner="lora", rank=4, steps=6)
    without, learned = tuned(tuner="lora", rank=4, steps=6)
    assert predictions_moved(held) < 1e-6 < predictions_moved(without)
    assert result.before["loss"] - result.after["loss"] > 0.9 * (learned.before["loss"] - learned.after["loss"])
    # DoRA's magnitudes change all that a map answers, and weights in NF4 cannot be mixed
    for protection, tuner in ((Projection(), "ia3"), (Projection(), "dora"), (Interpolate(), "qlora")):
        with pytest.raises(ConfigError, match=f"{protection.name}.* does not work under the tuner {tuner!r}"):
            tuned(protection, tuner=tuner)


@pytest.mark.parametrize("protection", [KeyAnchor(), Anchor(), SelfReplay(texts=4, tokens=8)], ids=str)
def test_what_is_kept_of_many_at_once_is_what_is_kept_of_each(protection: Anchored) -> None:
    held = guarded()
    things = protection.things(held)
    with torch.no_grad():
        kept = protection.shown(held, things)
        assert len(kept) == len(things)
        for thing, one in zip(things, kept, strict=True):
            (alone,) = protection.shown(held, [thing])
            torch.testing.assert_close(figures_of(one), figures_of(alone))


def figures_of(kept: Tensor | Likeliest) -> Tensor:
    return kept.log_probs_nk if isinstance(kept, Likeliest) else kept


@pytest.mark.parametrize("protection", [Replay(every=3, share=0.5), Anchor(every=3, weight=2)], ids=str)
def test_a_penalty_every_few_steps_weighs_as_many_times_as_much(protection: Rehearsed) -> None:
    held = guarded()
    penalty, always = (one.penalty(held) for one in (protection, protection.model_copy(update={"every": 1})))
    assert penalty is not None and always is not None
    for weight in held.model.parameters():
        weight.data *= 1.1
    with torch.no_grad():
        said, each = [penalty(step) for step in range(6)], always(0)
    assert [one is None for one in said] == [True, False, True] * 2
    assert each is not None
    for one in said[1::3]:
        assert one is not None and float(one) == pytest.approx(3 * float(each), rel=1e-4) and float(one) > 0


def test_as_many_others_are_replayed_as_edits() -> None:
    held = guarded()
    known = [
        Fact(f"k{n}", place, "of", "{} is", "Bra") for n, place in enumerate(("Chad", "Mali", "Togo", "Oman", "Fiji"))
    ]
    held = replace(held, others=[wording_of(held.tokenizer, fact, fact.prompt, fact.true_object) for fact in known])
    both, edits, others = (Replay(of=of, at_once=2, every=1).penalty(held) for of in ("both", "edits", "others"))
    assert both is not None and edits is not None and others is not None
    sizes = [len(some.target) for some in (held.wordings[0], held.others[0])]
    assert sizes[0] == sizes[1] == len(held.wordings[1].target)
    with torch.no_grad():
        for step in range(4):
            assert float(both(step)) == pytest.approx((float(edits(step)) + float(others(step))) / 2, rel=1e-4)


def test_what_no_trained_weight_moves_is_refused_and_not_left_out() -> None:
    held = guarded()
    frozen = [name for name, _ in held.model.named_parameters() if "layers.2" not in name]
    with pytest.raises(ConfigError, match=r"No weight that is trained moves what 'key-anchor' holds"):
        fine_tune(held.model, held.tokenizer, SETTINGS, protections=[KeyAnchor()], guarded=held, frozen=frozen)


def test_what_is_done_once_is_told_from_what_each_step_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that goes on by one in each pass of training, by ten in each pass without a gradient, and by a hundred
    in every other."""
    now, init = [0.0], Guarded.__init__
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(process_time=lambda: now[-1], perf_counter=None))

    def counting(held: Guarded, *about: Any, **more: Any) -> None:
        init(held, *about, **more)
        held.model.register_forward_hook(
            lambda module, given, made: now.append(
                now[-1] + (1 if module.training else 100 if torch.is_grad_enabled() else 10)
            )
        )

    monkeypatch.setattr(Guarded, "__init__", counting)
    _, result = tuned(Anchor(every=2), steps=2)
    assert (result.fixed_seconds, result.training_seconds) == (10, 10 + 2 + 100)
    _, result = tuned(Interpolate(points=1), steps=2)
    assert result.fixed_seconds > 0 and result.training_seconds == 2 + result.fixed_seconds


@pytest.mark.parametrize("protection", [KeyAnchor(), Anchor(), SelfReplay(texts=4, tokens=8)], ids=str)
def test_rounding_is_not_penalised(protection: Protection) -> None:
    held = guarded()
    guarding = Guarding([protection], held, lambda: torch.autocast("cpu", torch.bfloat16))
    arguments: Any = (SimpleNamespace(max_grad_norm=0), SimpleNamespace(global_step=2), None)
    sizes = []
    for change in (0.0, 0.01):
        if not change:
            guarding.prepare()
        for weight in held.model.parameters():
            weight.data += change * weight.std() * torch.randn_like(weight)
        guarding.on_pre_optimizer_step(*arguments)
        gradients = [one.grad for one in held.model.parameters() if one.grad is not None]
        sizes.append(sum(float(one.square().sum()) for one in gradients) ** 0.5)
        held.model.zero_grad()
    assert sizes[0] < 0.01 * sizes[1], sizes


def test_penalties_are_no_longer_than_the_trainer_allows_and_leave_the_task_as_it_is() -> None:
    lengths = []
    for most in (0, 0.5):
        held = guarded()
        guarding = Guarding([Replay(share=0.9, every=1), Anchor(every=1), Near()], held)
        arguments: Any = (SimpleNamespace(max_grad_norm=most), SimpleNamespace(global_step=0), None)
        guarding.on_train_begin(*arguments)
        of_task = {name: torch.randn_like(one) for name, one in held.model.named_parameters()}
        for name, gradient in of_task.items():
            held.model.get_parameter(name).grad = gradient.clone()
        guarding.on_pre_optimizer_step(*arguments)
        added = [one.grad - of_task[name] for name, one in held.model.named_parameters() if one.grad is not None]
        lengths.append(float(torch.stack([one.norm() for one in added]).norm()))
    assert lengths[0] > 1 and lengths[1] == pytest.approx(0.5, rel=1e-3)


def test_weights_go_back_as_far_as_the_task_allows(plain: tuple[Guarded, TuningResult]) -> None:
    held, result = tuned(Interpolate(allowed=0.05))
    reached = plain[1].after["loss"]
    assert reached < result.after["loss"] <= 1.05 * reached + 1e-6
    assert weights_moved(held) < weights_moved(plain[0])


def test_a_figure_from_which_weights_went_back_is_not_reached() -> None:
    stopping = {"stop_at": {"loss": 5.7}, "evaluate_every": 1}
    (_, reached), (_, back) = tuned(**stopping), tuned(Interpolate(allowed=0.05), **stopping)
    assert reached.reached and reached.after["loss"] <= 5.7
    assert not back.reached and back.after["loss"] > 5.7


def test_several_together_and_unknown_ones() -> None:
    named = protections_from("key-anchor+replay")
    assert [one.name for one in named] == ["key-anchor", "replay"]
    (replay,) = protections_from({"replay": {"share": 0.4}})
    assert isinstance(replay, Replay) and replay.share == 0.4
    with pytest.raises(ConfigError, match=r"key-ancor.*protect"):
        protections_from("key-ancor")
    with pytest.raises(ConfigError, match=r"replay.*share"):
        protections_from({"replay": {"share": 2}})
    for of in ("others", "both"):
        with pytest.raises(ConfigError, match="no other facts"):
            tuned(Replay.model_validate({"of": of}))
    held = guarded()
    with pytest.raises(ConfigError, match=r"protected by replay\(share=0\.4\)"):
        fine_tune(held.model, held.tokenizer, SETTINGS, protections=[replay])


@pytest.mark.parametrize("example", ["protect_trainer.py", "protect_sft.py"])
def test_the_examples_run(
    example: str,
    taught: Path,
    own_cache: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [example, str(taught / "model"), str(taught / "facts.jsonl")])
    runpy.run_path(str(Path(__file__).parents[2] / "examples" / example))
    assert "present" in capsys.readouterr().out


def test_a_second_training_is_held_against_the_edited_model_too(tmp_path: object) -> None:
    from transformers import Trainer, TrainingArguments

    held = guarded()
    callback = Guarding([KeyAnchor(weight=0.1)], held)
    rows = [{"input_ids": list(range(5, 25)), "labels": list(range(5, 25))}] * 32
    arguments = TrainingArguments(str(tmp_path), max_steps=4, learning_rate=3e-3, use_cpu=True, report_to="none")
    for _ in range(2):
        Trainer(held.model, arguments, train_dataset=rows, callbacks=[callback]).train()
    held.model.eval()
    ((_, penalty),) = callback.penalties or ()
    moved = penalty(2)
    assert moved is not None and float(moved) == pytest.approx(0.1 * squares_moved(held), rel=1e-4)


def test_after_a_second_training_too_weights_are_drawn_towards_the_edited_model() -> None:
    held, start = guarded(), weights(guarded())
    guarding = Guarding([Near(weight=1)], held)
    arguments: Any = (None, SimpleNamespace(global_step=0), None)
    for _ in range(2):
        guarding.on_train_begin(*arguments)
        for weight in held.model.parameters():
            weight.data += 0.1
    guarding.on_optimizer_step(*arguments, optimizer=torch.optim.SGD(held.model.parameters(), lr=1.0))
    for name, weight in weights(held).items():
        assert torch.equal(weight, start[name]), name


def test_training_that_goes_on_from_a_checkpoint_is_held_against_the_edited_model(tmp_path: Path) -> None:
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": list(range(5, 25)), "labels": list(range(5, 25))}] * 32
    given: dict[str, Any] = {"learning_rate": 3e-3, "save_steps": 2, "use_cpu": True, "report_to": "none"}

    def trainer(held: Guarded, steps: int, *callbacks: Guarding) -> Trainer:
        arguments = TrainingArguments(str(tmp_path), max_steps=steps, **given)
        return Trainer(held.model, arguments, train_dataset=rows, callbacks=list(callbacks))

    trainer(guarded(), 2).train()
    held = guarded()
    with pytest.raises(ConfigError, match=r"goes on from step 2 of a checkpoint.*prepare\(\)"):
        trainer(held, 3, Guarding([KeyAnchor()], held)).train(resume_from_checkpoint=True)
    held = guarded()
    callback = Guarding([KeyAnchor(weight=0.1)], held)
    callback.prepare()
    trainer(held, 3, callback).train(resume_from_checkpoint=True)
    held.model.eval()
    ((_, penalty),) = callback.penalties or ()
    moved = penalty(2)
    assert moved is not None and float(moved) == pytest.approx(0.1 * squares_moved(held), rel=1e-4)


def test_the_callback_alone_serves_a_plain_trainer(tmp_path: object) -> None:
    from transformers import Trainer, TrainingArguments

    held, without = guarded(), guarded()
    rows = [{"input_ids": list(range(5, 25)), "labels": list(range(5, 25))}] * 32
    for one, added in ((held, [Guarding([KeyAnchor()], held)]), (without, [])):
        arguments = TrainingArguments(str(tmp_path), max_steps=12, learning_rate=3e-3, use_cpu=True, report_to="none")
        Trainer(one.model, arguments, train_dataset=rows, callbacks=added).train()
        one.model.eval()
    assert keys_moved(held) < 0.5 * keys_moved(without)
