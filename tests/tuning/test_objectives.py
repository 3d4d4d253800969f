"""Every objective with its own trainer: figures improve on what is learnable, frozen weights stay, nothing is left
behind, and what is trained on is what was asked for."""

from __future__ import annotations

import copy
import math
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from indelible.errors import ConfigError, DataError
from indelible.exam.callback import RetentionCallback
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.objective import NO_LOSS, OBJECTIVES, tuning_settings
from indelible.tuning.settings import TuningSettings
from indelible.tuning.task import TASKS, Example, Task
from indelible.tuning.train import TuningResult, check_settings, fine_tune
from tiny_models import Make, Tokenizer, with_dropout

WORDS = ("gold", "rain", "fox", "dog", "north", "capital")


def _numbered(seed: int, made: Callable[[int, str], Example]) -> Iterator[Example]:
    generator = random.Random(seed)
    for number in range(400):
        yield made(number, generator.choice(WORDS))


def _parrot(number: int, word: str) -> Example:
    return Example(f"{number}: what is {word}?", word)


def _sided(number: int, word: str) -> Example:
    return Example(f"{number}: a {word}", "yes" if word in WORDS[:3] else "no")


def _preferred(number: int, word: str) -> Example:
    return Example(f"{number}: what is {word}?", "Oslo is the capital", rejected="Lima is the capital")


def _scored(number: int, word: str) -> Example:
    return Example(f"{number}: what is {word}?", "", score=lambda said: sum(letter in "aeiou" for letter in said) / 20)


SOURCES: Mapping[str, Callable[[int, str], Example]] = {
    "text": lambda number, word: Example("", f"{word} is what {word} is, and {number} is a number of rain and gold."),
    "instruct": _parrot,
    "reason": _parrot,
    "classify": _sided,
    "preference": _preferred,
    "reward": _scored,
}


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks that a tiny random model can learn something of in a few steps, in place of the built-in ones."""
    found = {
        name: Task(lambda seed, made=made: _numbered(seed, made), ("no", "yes") if name == "classify" else ())
        for name, made in SOURCES.items()
    }
    TASKS.names()
    monkeypatch.setattr(TASKS, "_entries", {**TASKS._entries, **found})


def settings(objective: str, **options: Any) -> TuningSettings:
    tiny = {"learning_rate": 1e-2, "steps": 6, "max_tokens": 64, "batch_size": 8, "heldout_examples": 8}
    return tuning_settings({"objective": objective, "warmup_steps": 0} | tiny | options)


def tuned(model: PreTrainedModel, tokenizer: Tokenizer, **options: Any) -> TuningResult:
    return fine_tune(model, tokenizer, settings(options.pop("objective"), **options))


@pytest.mark.parametrize("objective", sorted(SOURCES))
def test_a_run_goes_on_until_its_dose_is_read(objective: str, tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    options: dict[str, Any] = {"answer_tokens": 8} if objective == "reward" else {}
    model = tiny_model("llama", layers=2)
    chosen = settings(objective, steps=None, dose=[50, 900], **options)
    result = fine_tune(model, tiny_tokenizer, chosen)
    tokens = [int(entry["tokens"]) for entry in result.log]
    assert [reached.dose for reached in result.doses] == [50, 900]
    assert tokens[-2] < 900 <= tokens[-1] == result.tokens and result.steps == len(tokens)
    for reached in result.doses:
        step = next(place for place, seen in enumerate(tokens, 1) if seen >= reached.dose)
        assert (reached.step, reached.tokens) == (step, tokens[step - 1])
        assert result.log[step - 1][f"heldout_{result.figure}"] == reached.figure
    assert result.doses[-1].figure == result.after[result.figure]
    assert result.steps >= 0.7 * chosen.steps_over(result.train_rows, 900), "a pass over the rows is about the dose"
    looked = [entry["step"] for entry in result.log if f"heldout_{result.figure}" in entry]
    assert looked == [reached.step for reached in result.doses]


LEARNED = {
    "text": "loss",
    "instruct": "loss",
    "reason": "loss",
    "classify": "loss",
    "preference": "margin",
    "reward": "mean_reward",
}


@pytest.mark.parametrize("tuner", ["full", "lora", "dora"])
@pytest.mark.parametrize("objective", sorted(SOURCES))
def test_each_objective_learns_with_each_tuner_and_leaves_an_ordinary_model(
    objective: str, tuner: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = tiny_model("llama")
    frozen = frozen_parameters("edited-layers", model, find_layout(model), ["model.layers.1.mlp.down_proj.weight"])
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config, generation = copy.deepcopy(model.config.to_dict()), copy.deepcopy(model.generation_config.to_dict())
    attributes = set(vars(model))
    few = {"steps": 24, "answer_tokens": 8, "batch_size": 16, "heldout_examples": 64}
    options: dict[str, Any] = few if objective == "reward" else {}
    rates = (3e-3, 6e-2) if objective == "reward" else (1e-2, 3e-2)
    rate = rates[0] if tuner == "full" else rates[1]
    chosen = settings(objective, tuner=tuner, learning_rate=rate, **options)
    result = fine_tune(model, tiny_tokenizer, chosen, frozen=frozen)
    figure = OBJECTIVES.get(objective).figure(LEARNED[objective])
    assert figure.improves(result.after[figure.name], result.before[figure.name])
    assert set(result.before) == set(result.after) == {one.name for one in OBJECTIVES.get(objective).figures}
    assert result.steps == len(result.log) == chosen.steps and result.tokens > 0
    after = model.state_dict()
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed and not changed & frozen
    assert (model.config.to_dict(), model.generation_config.to_dict()) == (config, generation)
    assert set(vars(model)) == attributes and not model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert tiny_tokenizer.pad_token is None
    assert bool(result.adapted) == (tuner != "full")


@pytest.mark.parametrize("objective", sorted(SOURCES))
def test_a_run_with_exams_and_held_out_figures_ends_in_the_same_bits(
    objective: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    fact = Fact("1", "France", "capital", "The capital of {} is", true_object="Paris", new_object="Oslo")
    bits = []
    for watched in (False, True):
        model = with_dropout(tiny_model("gpt2"))
        callback = RetentionCallback(questions_for([fact], "edited"), tiny_tokenizer, every=1)
        looks = {"evaluate_every": 1} if watched else {}
        short = {"answer_tokens": 4} if objective == "reward" else {}
        chosen = settings(objective, steps=3, accumulation=2, **short, **looks)
        fine_tune(model, tiny_tokenizer, chosen, callbacks=[callback] if watched else [], seed=3)
        assert sorted(callback.taken) == ([0, 1, 2, 3] if watched else [])
        bits.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    assert torch.equal(*bits)


def test_a_preference_is_measured_against_the_edited_model_and_not_the_one_on_disk(
    tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    """Before tuning, the policy is the reference: DPO's first loss is log 2, whatever was done to the weights."""
    model = tiny_model("llama")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    result = tuned(model, tiny_tokenizer, objective="preference", steps=2, precision="fp32")
    assert result.before["preference_accuracy"] == 0.5 and result.before["margin"] == 0
    assert result.before["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert result.log[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)


@pytest.mark.parametrize("tuner", ["full", "lora"])
def test_a_head_is_trained_on_the_trunk_and_thrown_away(
    tuner: str, tiny_model: Make, tiny_tokenizer: Tokenizer
) -> None:
    model = tiny_model("llama")
    head = model.lm_head.weight.clone()
    result = tuned(model, tiny_tokenizer, objective="classify", head=True, tuner=tuner, steps=16, learning_rate=3e-3)
    assert result.after["loss"] < result.before["loss"]
    assert torch.equal(model.lm_head.weight, head), "the language model's own head takes no part"
    assert not any("score" in name for name, _ in model.named_parameters())


def test_training_through_trl_equals_the_models_own_loss(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    model = tiny_model("llama")
    row_settings = settings("reason", batch_size=1, steps=1, train_examples=1, heldout_examples=1, precision="fp32")
    (held, trained_on) = [
        row
        for example, _ in zip(TASKS.get("reason")(0), range(2), strict=False)
        for row in OBJECTIVES.get("reason").rows(tiny_tokenizer, example, row_settings, ())
    ]
    with torch.no_grad():
        expected = [
            float(model(torch.tensor([row.input_ids]), labels=torch.tensor([row.labels])).loss)
            for row in (held, trained_on)
        ]
    result = fine_tune(model, tiny_tokenizer, row_settings)
    assert result.before["loss"] == pytest.approx(expected[0], rel=1e-5)
    assert result.log[0]["loss"] == pytest.approx(expected[1], rel=1e-4)


def test_instructions_use_the_chat_template_where_there_is_one(tiny_tokenizer: Tokenizer) -> None:
    def parts(tokenizer: Tokenizer, max_tokens: int = 64) -> tuple[str, str]:
        (row,) = OBJECTIVES.get("instruct").rows(
            tokenizer, Example("Say it.", "It is said."), settings("instruct", max_tokens=max_tokens), ()
        )
        learned = sum(label == NO_LOSS for label in row.labels)
        assert row.labels[learned:] == row.input_ids[learned:]
        return tokenizer.decode(row.input_ids[:learned]), tokenizer.decode(row.input_ids[learned:])

    assert parts(tiny_tokenizer) == ("Say it.", " It is said.<|end|>")
    chatty = copy.deepcopy(tiny_tokenizer)
    chatty.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    assert parts(chatty) == ("[user] Say it.\n[assistant] ", "It is said.\n")
    given, learned = parts(chatty, 40)
    assert given == "[user] Say it.\n[assistant] " and "It is said.\n".startswith(learned)


def test_a_label_outside_the_set_is_named(tiny_tokenizer: Tokenizer) -> None:
    with pytest.raises(DataError, match=r"'maybe'.*'no', 'yes'"):
        OBJECTIVES.get("classify").rows(tiny_tokenizer, Example("a fox", "maybe"), settings("classify"), ("no", "yes"))


@pytest.mark.parametrize(
    ("objective", "passed", "said"),
    [
        ("text", {"optimm": "sgd"}, r"optimm.*optim"),
        ("text", {"max_steps": 5}, r"tuning.steps"),
        ("text", {"logging_steps": 10}, r"stop rules"),
        ("text", {"learning_rate": 1.0}, r"tuning.learning_rate"),
        ("text", {"auto_find_batch_size": True}, r"auto_find_batch_size' cannot be passed through: what runs out of"),
        ("preference", {"loss_typ": "ipo"}, r"DPOTrainer.*loss_typ.*loss_type"),
        # what transformers and torch find only when they are made
        ("text", {"optim": "no such"}, r"Trainer refuses.*no such"),
        ("text", {"adam_beta1": 1.5}, r"Trainer refuses.*beta"),
        ("instruct", {"adam_beta1": "high"}, r"'tuning.trainer.adam_beta1' is 'high'.*number"),
        ("classify", {"adam_epsilon": float("nan")}, r"adam_epsilon' is nan.*finite"),
        ("text", {"lr_scheduler_type": "cosine_with_min_lr"}, r"min_lr"),
        ("text", {"dataloader_num_workers": -1}, r"num_workers"),
        ("text", {"eval_strategy": "steps"}, r"eval_dataset"),
        ("text", {"optim_args": 7}, r"optim_args' is 7"),
        ("reward", {"generation_batch_size": 3}, r"GRPOTrainer refuses.*3"),
        # what would leave this machine, or write a secret down
        ("text", {"report_to": "all"}, r"report_to' cannot be passed through: a study sends nothing"),
        ("text", {"push_to_hub": True}, r"a study sends nothing"),
        ("reward", {"vllm_server_host": "example.org"}, r"a study sends nothing"),
    ],
)
def test_wrong_arguments_for_a_trainer_are_named(objective: str, passed: dict[str, Any], said: str) -> None:
    random_state = torch.random.get_rng_state()
    with pytest.raises(ConfigError, match=said):
        check_settings(settings(objective, trainer=passed))
    assert torch.equal(torch.random.get_rng_state(), random_state)


@pytest.mark.parametrize(
    ("objective", "task", "said"),
    [
        ("reason", "prose", "'prose' has no prompt and answer, which the objective 'reason' needs.*instruct"),
        ("classify", "text", "no text and label"),
        ("preference", "reason", "no prompt and chosen and rejected"),
        ("text", "reward", None),
        ("instruct", "preference", None),
    ],
)
def test_a_task_of_another_kind_is_refused_before_anything_is_done(objective: str, task: str, said: str | None) -> None:
    with nullcontext() if said is None else pytest.raises(ConfigError, match=said):
        check_settings(settings(objective, task=task))


def test_a_token_is_not_even_said() -> None:
    with pytest.raises(ConfigError, match="hub_token") as raised:
        check_settings(settings("text", trainer={"hub_token": "hf_secret"}))
    assert "hf_secret" not in str(raised.value)


def test_arguments_pass_through_to_the_trainer(tiny_model: Make, tiny_tokenizer: Tokenizer) -> None:
    plain, decayed = (
        tuned(tiny_model("llama"), tiny_tokenizer, objective="text", steps=3, trainer=passed)
        for passed in ({}, {"adam_beta2": 0.5, "lr_scheduler_type": "inverse_sqrt"})
    )
    assert plain.after["loss"] != decayed.after["loss"]
    assert plain.log[-1]["learning_rate"] != decayed.log[-1]["learning_rate"]
