"""Frozen leading layers run once per row, the results are those of running them each time, and what cannot be reused
is left alone."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainerCallback

from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.probing.callback import RetentionCallback
from indelible.probing.questions import questions_for
from indelible.tuning.freeze import frozen_parameters
from indelible.tuning.frozen_prefix import REUSE_BYTES, FrozenPrefix, frozen_prefix
from indelible.tuning.settings import TuningSettings
from indelible.tuning.tasks import TASKS, Example, Task
from indelible.tuning.train import TuningResult, fine_tune
from tiny_families import build_family, enliven

Models = Callable[..., PreTrainedModel]

FROZEN_LAYERS = 2
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


def made(family: str, tokenizer: PreTrainedTokenizerFast, dropout: float = 0.0) -> PreTrainedModel:
    model = enliven(build_family(family, len(tokenizer)))
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = dropout
    return model


def up_to(model: PreTrainedModel, layers: int = FROZEN_LAYERS) -> frozenset[str]:
    layout = find_layout(model)
    return frozen_parameters("up-to-edited", model, layout, [layout.mlp_out_weight[layers - 1]])


def weights(model: PreTrainedModel) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in model.parameters()])


def rows_through(model: PreTrainedModel, layer: int) -> list[int]:
    """Rows of each pass that goes through a layer's MLP from now on."""
    module, passes = model.get_submodule(find_layout(model).mlp_out[layer]), list[int]()
    forward = module.forward

    def counted(states: Tensor) -> Any:
        passes.append(len(states))
        return forward(states)

    module.forward = counted
    return passes


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


@contextmanager
def reusing(
    model: PreTrainedModel, budget: int = REUSE_BYTES, repeated: bool = True
) -> Iterator[tuple[PreTrainedModel, FrozenPrefix]]:
    frozen = up_to(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    with frozen_prefix(model, frozen, budget) as prefix:
        prefix.begin(repeated=repeated)
        assert prefix.layers == FROZEN_LAYERS
        yield model, prefix


def passed(
    model: PreTrainedModel, rows: Sequence[Sequence[int]], *, left: bool = False, width: int | None = None
) -> list[Tensor]:
    """Logits at the tokens of each row, in one padded batch."""
    longest = width or max(map(len, rows))
    ids, mask = torch.full((len(rows), longest), 3), torch.zeros(len(rows), longest, dtype=torch.long)
    spans = [slice(longest - len(row), longest) if left else slice(0, len(row)) for row in rows]
    for place, (row, span) in enumerate(zip(rows, spans, strict=True)):
        ids[place, span] = torch.tensor(row)
        mask[place, span] = 1
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits
    return [logits[place, span] for place, span in enumerate(spans)]


BATCHES: list[tuple[list[list[int]], dict[str, Any], int]] = [
    ([[5, 6, 7, 8], [9, 10]], {}, 0),
    ([[9, 10], [5, 6, 7, 8]], {}, 2),
    ([[9, 10]], {"width": 9}, 1),
    ([[11, 12, 13, 14, 15, 16], [5, 6, 7, 8], [17]], {"width": 7}, 1),
    ([[9, 10], [5, 6, 7, 8]], {"left": True}, 1),  # the longer one starts at 0 here, too
    ([[9, 10], [5, 6, 7, 8]], {"left": True}, 2),
    ([[9, 10], [18, 19, 20]], {"left": True}, 0),
    ([[17], [17], [5, 6]], {}, 2),
]


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "bloom", "opt", "falcon", "qwen2", "gemma3_text", "phi"])
def test_batches_of_known_and_unknown_rows_say_the_same(family: str, tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model, other = made(family, tiny_tokenizer), made(family, tiny_tokenizer)
    with reusing(model) as (model, prefix), torch.no_grad():
        for rows, options, known in BATCHES:
            before = prefix.reused
            for found, expected in zip(passed(model, rows, **options), passed(other, rows, **options), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
            assert prefix.reused - before == known
    assert all("forward" not in vars(module) for module in model.modules())
    assert prefix.kept_bytes == 0 and not model._forward_pre_hooks and not model._forward_hooks


def test_gradients_are_those_of_the_whole_pass(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model, other = made("gpt2", tiny_tokenizer).train(), made("gpt2", tiny_tokenizer).train()
    with reusing(model) as (model, prefix):
        for _ in range(2):
            for one in (model, other):
                one.zero_grad()
                torch.cat(passed(one, [[5, 6, 7, 8], [9, 10]])).logsumexp(-1).sum().backward()
        assert prefix.reused == 2
        pairs = dict(other.named_parameters())
        trained = [(tensor, pairs[name]) for name, tensor in model.named_parameters() if tensor.requires_grad]
        for tensor, whole in trained:
            torch.testing.assert_close(tensor.grad, whole.grad, rtol=1e-4, atol=1e-4)


def test_what_was_computed_in_one_precision_is_not_used_in_another(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [[5, 6, 7, 8], [9, 10]]
    model, other = made("llama", tiny_tokenizer), made("llama", tiny_tokenizer)
    with reusing(model) as (model, prefix), torch.no_grad():
        passed(model, rows)
        for known in (0, 2):
            before = prefix.reused
            with torch.autocast("cpu", dtype=torch.bfloat16):
                found, expected = passed(model, rows), passed(other, rows)
            assert prefix.reused - before == known
            torch.testing.assert_close(torch.cat(found), torch.cat(expected), rtol=2e-2, atol=2e-1)
        torch.testing.assert_close(torch.cat(passed(model, rows)), torch.cat(passed(other, rows)))


def test_no_more_is_kept_than_the_budget_allows(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [[5, 6, 7, 8], [9, 10, 11, 12], [13, 14, 15, 16]]
    of_row = 4 * 32 * 4 + 4 * 8  # states in float32, token ids
    model, other = made("llama", tiny_tokenizer), made("llama", tiny_tokenizer)
    with reusing(model, budget=2 * of_row + 1) as (model, prefix), torch.no_grad():
        for known in (0, 2, 2):
            before = prefix.reused
            torch.testing.assert_close(torch.cat(passed(model, rows)), torch.cat(passed(other, rows)))
            assert prefix.reused - before == known
            assert prefix.kept_bytes == 2 * of_row
        through = rows_through(model, 0)
        passed(model, rows)
        assert through == [1]
    model = made("llama", tiny_tokenizer)
    with frozen_prefix(model, up_to(model), 0) as prefix:
        prefix.begin(repeated=True)
        assert prefix.layers == 0


IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
NOT_PLAIN: dict[str, dict[str, Any]] = {
    "cache": {"use_cache": True},
    "cache by default": {"use_cache": None},
    "positions": {"use_cache": False, "position_ids": torch.arange(4).expand(2, 4)},
    "hidden states": {"use_cache": False, "output_hidden_states": True},
    "holes": {"use_cache": False, "attention_mask": torch.tensor([[1, 0, 1, 1], [1, 1, 1, 1]])},
    "nothing real": {"use_cache": False, "attention_mask": torch.tensor([[0, 0, 0, 0], [1, 1, 1, 1]])},
}


@pytest.mark.parametrize("options", NOT_PLAIN.values(), ids=NOT_PLAIN.keys())
def test_passes_that_are_not_plain_are_left_alone(
    options: dict[str, Any], tiny_tokenizer: PreTrainedTokenizerFast
) -> None:
    model, other = made("llama", tiny_tokenizer), made("llama", tiny_tokenizer)
    with reusing(model) as (model, prefix), torch.no_grad():
        passed(model, IDS.tolist())
        kept, through = prefix.kept_bytes, rows_through(model, 0)
        found, expected = model(input_ids=IDS, **options), other(input_ids=IDS, **options)
        assert torch.equal(found.logits, expected.logits)
        model(IDS, use_cache=False)
        model(inputs_embeds=model.get_input_embeddings()(IDS), use_cache=False)
        assert through == [2, 2, 2]
        for use_cache in (True, False):
            asked = {"max_new_tokens": 3, "do_sample": False, "use_cache": use_cache, "pad_token_id": 0}
            assert torch.equal(model.generate(input_ids=IDS, **asked), other.generate(input_ids=IDS, **asked))
        assert (prefix.reused, prefix.kept_bytes) == (0, kept)


def test_hooks_in_the_frozen_layers_see_every_pass(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [[5, 6, 7, 8], [9, 10]]
    model, other = made("llama", tiny_tokenizer), made("llama", tiny_tokenizer)
    path = find_layout(model).blocks[FROZEN_LAYERS - 1]

    def shifted(_module: nn.Module, _args: object, output: Tensor) -> Tensor:
        return output + 1

    with reusing(model) as (model, prefix), torch.no_grad():
        passed(model, rows)
        handles = [one.get_submodule(path).register_forward_hook(shifted) for one in (model, other)]
        assert torch.equal(torch.cat(passed(model, rows)), torch.cat(passed(other, rows)))
        assert prefix.reused == 0
        for handle in handles:
            handle.remove()
        torch.testing.assert_close(torch.cat(passed(model, rows)), torch.cat(passed(other, rows)))
        assert prefix.reused == 2


def test_layers_that_are_trained_after_all_are_run_again(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = made("llama", tiny_tokenizer).train()
    with reusing(model) as (model, prefix):
        passed(model, [[5, 6, 7]])
        passed(model, [[5, 6, 7]])
        assert prefix.reused == 1
        model.get_input_embeddings().requires_grad_(True)
        torch.cat(passed(model, [[5, 6, 7]])).sum().backward()
        assert model.get_input_embeddings().weight.grad is not None
        assert prefix.kept_bytes == 0
        with torch.no_grad():
            passed(model, [[5, 6, 7]])
        assert prefix.reused == 1


def test_an_error_in_a_pass_leaves_the_layers_as_they_were(tiny_tokenizer: PreTrainedTokenizerFast) -> None:
    model = made("llama", tiny_tokenizer)
    with reusing(model) as (model, _), torch.no_grad():
        passed(model, [[5, 6, 7]])

        def broken(_module: nn.Module, _args: object) -> None:
            raise RuntimeError("broken")

        handle = model.lm_head.register_forward_pre_hook(broken)
        with pytest.raises(RuntimeError, match="broken"):
            passed(model, [[5, 6, 7]])
        handle.remove()
        assert all("forward" not in vars(module) for module in model.modules())
