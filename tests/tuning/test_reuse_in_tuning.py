"""Fine-tuning that reuses what frozen leading layers return ends where it ends without, and runs them once per row."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from frozen_models import FROZEN_LAYERS, made, passed, reusing, rows_through, up_to, weights
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from indelible.exam.callback import RetentionCallback
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.frozen_prefix import REUSE_BYTES
from indelible.tuning.settings import TuningSettings
from indelible.tuning.tasks.task import TASKS, Example, Task
from indelible.tuning.train import TuningResult, fine_tune

WORDS = ("gold", "rain", "fox", "dog", "north", "capital")


def _examples(seed: int, made: Callable[[int, str], Example]) -> Iterator[Example]:
    generator = random.Random(seed)
    for number in range(100):
        said = " ".join(generator.choices(WORDS, k=generator.randint(1, 6)))  # rows of many lengths
        yield made(number, said)


SOURCES: Mapping[str, Callable[[int, str], Example]] = {
    "text": lambda number, said: Example("", f"{number} says: {said}, and {number} is a number of the fox."),
    "instruct": lambda number, said: Example(f"{number}: what is {said}?", said),
    "classify": lambda number, said: Example(f"{number}: {said}", "yes" if "gold" in said else "no"),
    "preference": lambda number, said: Example(f"{number}: what is {said}?", said, rejected=f"Lima is {number}"),
    "reward": lambda number, said: Example(f"{number}: {said}", "", score=lambda answer: float("e" in answer)),
}


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks of short rows, in place of the built-in ones."""
    found = {
        name: Task(lambda seed, made=made: _examples(seed, made), ("no", "yes") if name == "classify" else ())
        for name, made in SOURCES.items()
    }
    TASKS.names()
    monkeypatch.setattr(TASKS, "_entries", {**TASKS._entries, **found})


def settings(objective: str, **options: Any) -> TuningSettings:
    """Three epochs over eight rows. Plain gradient descent: Adam's steps make rounding of tiny gradients large."""
    tiny = {"learning_rate": 3e-2, "steps": 6, "train_examples": 8, "batch_size": 4, "heldout_examples": 6}
    rest = {"max_tokens": 64, "warmup_steps": 0, "evaluate_every": 3, "precision": "fp32", "trainer": {"optim": "sgd"}}
    return TuningSettings.model_validate({"objective": objective} | tiny | rest | options)


def both_ways(
    build: Callable[[], PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    asked: TuningSettings,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[TuningResult, TuningResult, Tensor, Tensor]:
    """Results and weights without and with reuse."""
    found = []
    for reuse_bytes in (0, REUSE_BYTES):
        model = build()
        frozen = up_to(model)
        result = fine_tune(model, tokenizer, asked, frozen=frozen, seed=3, callbacks=callbacks, reuse_bytes=reuse_bytes)
        found.append((result, weights(model)))
    (plain, plain_weights), (reused, reused_weights) = found
    assert plain.frozen_layers_reused == 0
    return plain, reused, plain_weights, reused_weights


def assert_alike(plain: TuningResult, reused: TuningResult) -> None:
    for one, other in ((plain.before, reused.before), (plain.after, reused.after)):
        assert other == pytest.approx(one, rel=1e-4, abs=1e-5)
    for one, other in zip(plain.log, reused.log, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)


MATRIX = [
    *((family, "text") for family in ("gpt2", "gpt_neox", "bloom", "falcon", "llama", "gemma2")),
    *((family, objective) for family in ("gpt2", "phi", "qwen3") for objective in ("instruct", "preference")),
]


@pytest.mark.parametrize("tuner", ["full", "lora"])
@pytest.mark.parametrize(("family", "objective"), MATRIX)
def test_weights_and_figures_are_those_of_a_run_without_reuse(
    family: str, objective: str, tuner: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    asked = settings(objective, tuner=tuner, rank=4)
    plain, reused, expected, found = both_ways(lambda: made(family, tiny_tokenizer), tiny_tokenizer, asked)
    assert reused.frozen_layers_reused == FROZEN_LAYERS
    assert_alike(plain, reused)
    moved = (expected - weights(made(family, tiny_tokenizer))).abs().max()
    assert moved > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(moved))


@pytest.mark.parametrize(
    "options",
    [
        {"tuner": "dora", "rank": 4},
        {"tuner": "lora", "rank": 4, "dropout": 0.2},
        {"accumulation": 2},
        {"gradient_checkpointing": True},
        {"precision": "bf16-mixed"},
        {"trainer": {}},
    ],
    ids=["dora", "dropout above", "accumulation", "checkpointing", "bfloat16", "adam"],
)
def test_ways_of_training_go_with_reuse(options: dict[str, Any], tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    asked = settings("text", **options)
    plain, reused, expected, found = both_ways(lambda: made("llama", tiny_tokenizer), tiny_tokenizer, asked)
    # For checkpointing some releases of transformers put a hook on the embeddings, and reuse steps aside.
    assert reused.frozen_layers_reused == FROZEN_LAYERS or asked.gradient_checkpointing
    moved = (expected - weights(made("llama", tiny_tokenizer))).abs().max()
    coarse = asked.precision == "bf16-mixed"
    for one, other in zip(plain.log, reused.log, strict=True):
        assert other == pytest.approx(one, rel=5e-2 if coarse else 1e-3, abs=1e-5)
    torch.testing.assert_close(found, expected, rtol=0, atol=(5e-2 if coarse else 1e-3) * float(moved))


def test_a_classification_head_is_trained_on_what_is_kept(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    asked = settings("classify", head=True)
    plain, reused, expected, found = both_ways(lambda: made("gpt2", tiny_tokenizer), tiny_tokenizer, asked)
    assert reused.frozen_layers_reused == FROZEN_LAYERS
    assert_alike(plain, reused)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


class Through(TrainerCallback):
    """Rows that went through a frozen and a trained layer before, in and after training."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.frozen, self.trained = rows_through(model, FROZEN_LAYERS - 1), rows_through(model, FROZEN_LAYERS)
        self.at_begin = self.at_end = (0, 0)

    def now(self) -> tuple[int, int]:
        return sum(self.frozen), sum(self.trained)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at_begin = self.now()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.at_end = self.now()


def test_each_row_goes_through_the_frozen_layers_once(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = made("llama", tiny_tokenizer)
    frozen = up_to(model)
    through = Through(model)
    fine_tune(model, tiny_tokenizer, settings("text", evaluate_every=None), frozen=frozen, callbacks=[through])
    tried = 2  # one row, in training mode and not, to see whether anything is random
    assert through.at_end[0] - through.at_begin[0] == 8 + tried
    assert through.at_end[1] - through.at_begin[1] == 6 * 4
    assert through.now()[0] == through.at_end[0], "held-out rows were known from the look before training"
    assert through.now()[1] == through.at_end[1] + 6


def test_rows_that_do_not_come_again_are_not_kept(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = made("llama", tiny_tokenizer)
    frozen = up_to(model)
    through = Through(model)
    asked = settings("text", evaluate_every=None, steps=2)
    result = fine_tune(model, tiny_tokenizer, asked, frozen=frozen, callbacks=[through])
    tried = 2
    assert through.at_end[0] - through.at_begin[0] == 8 + tried
    assert through.now()[0] == through.at_end[0] and result.frozen_layers_reused == FROZEN_LAYERS
    with reusing(made("llama", tiny_tokenizer).train(), repeated=False) as (model, prefix):
        passed(model, [[5, 6, 7]])
        assert prefix.kept_bytes == 0
        passed(model.eval(), [[5, 6, 7]])
        assert prefix.kept_bytes > 0


@pytest.mark.parametrize(
    "mask", ["none", "layers:0-1", "layers:1-2+embeddings", "embeddings", "like:*.embed_tokens.weight,*.0.mlp.*"]
)
def test_masks_that_do_not_freeze_from_the_bottom_step_aside(
    mask: str, tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    found = []
    for reuse_bytes in (0, REUSE_BYTES):
        model = made("llama", tiny_tokenizer)
        frozen = frozen_parameters(mask, model, find_layout(model), [])
        through = rows_through(model, 0)
        result = fine_tune(model, tiny_tokenizer, settings("text"), frozen=frozen, reuse_bytes=reuse_bytes)
        found.append((weights(model), result.frozen_layers_reused))
        assert sum(through) >= 6 * 4 + 4 * 6
    assert torch.equal(found[0][0], found[1][0])
    assert found[1][1] == 0


@pytest.mark.parametrize("family", ["gpt2", "bloom"])
def test_dropout_in_the_frozen_layers_is_drawn_each_time(family: str, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    asked = settings("text")
    _, reused, expected, found = both_ways(lambda: made(family, tiny_tokenizer, 0.1), tiny_tokenizer, asked)
    assert reused.frozen_layers_reused == FROZEN_LAYERS, "held-out rows are read without dropout"
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)


def test_exams_and_generation_are_left_alone(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    facts = [Fact("a", "Paris", "capital", "{} is in", "France")]
    curves = []

    def run(callbacks: Sequence[TrainerCallback]) -> Tensor:
        model = made("llama", tiny_tokenizer)
        fine_tune(model, tiny_tokenizer, settings("text"), frozen=up_to(model), callbacks=callbacks)
        return weights(model)

    exam = RetentionCallback(questions_for(facts, "intrinsic"), tiny_tokenizer, every=2)
    assert torch.equal(run([exam]), run([]))
    curves.append(exam.curve())
    assert list(exam.taken) == [2, 4, 6]
    asked = settings("reward", generations=2, answer_tokens=4, steps=2)
    plain, reused, expected, found = both_ways(lambda: made("llama", tiny_tokenizer), tiny_tokenizer, asked)
    assert reused.frozen_layers_reused == 0
    assert plain.after == reused.after and torch.equal(expected, found)


class Reading(TrainerCallback):
    """Reads the same text at every step."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.passes = rows_through(kwargs["model"], 0)
        self.own = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        before = len(self.passes)
        with torch.no_grad():
            kwargs["model"](input_ids=torch.tensor([[5, 6, 7]]), use_cache=False)
        self.own += len(self.passes) - before


def test_passes_of_callbacks_are_left_alone(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model, reading = made("llama", tiny_tokenizer), Reading()
    result = fine_tune(model, tiny_tokenizer, settings("text"), frozen=up_to(model), callbacks=[reading])
    assert result.frozen_layers_reused == FROZEN_LAYERS
    assert reading.own == 6


# Single passes.
