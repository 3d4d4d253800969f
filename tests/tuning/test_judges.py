"""Figures that are drawn: what sampled answers earn is what the model's distribution says, and no other draw moves."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from indelible.tuning.objective import OBJECTIVES, Run
from indelible.tuning.objectives.classify import macro_f1
from indelible.tuning.objectives.reward import Problem, RewardSettings
from indelible.tuning.randomness import seeded
from tiny_models import Make, Tokenizer

PROMPTS = ("What is gold?", "The fox and the dog of the north are", "rain")


@pytest.fixture()
def run(tiny_model: Make, tiny_tokenizer: Tokenizer) -> Run:
    """Problems that are solved by the one token which the model finds most probable."""
    model = tiny_model("llama")
    with torch.no_grad():
        model.lm_head.weight.mul_(30)  # far from uniform, so that another temperature would show
    model.generation_config.update(do_sample=True, temperature=0.2, top_k=3, top_p=0.5, repetition_penalty=30.0)
    settings = RewardSettings(answer_tokens=1, generations=800, batch_size=200, accumulation=4, precision="fp32")
    prompts = [tuple(tiny_tokenizer(said)["input_ids"]) for said in PROMPTS]
    best = [said_after(tiny_tokenizer, int(next_token_logits(model, prompt).argmax())) for prompt in prompts]
    rows = [
        Problem(said, prompt, lambda answer, best=best: float(answer == best))
        for said, prompt, best in zip(PROMPTS, prompts, best, strict=True)
    ]
    return Run(model, model, tiny_tokenizer, settings, (), rows)


judge_of = OBJECTIVES.get("reward").judge


def said_after(tokenizer: Tokenizer, token: int) -> str:
    """An answer of one token, in words; an end of text says nothing."""
    return "" if token == tokenizer.eos_token_id else str(tokenizer.decode([token], skip_special_tokens=True))


def next_token_logits(model: PreTrainedModel, prompt: tuple[int, ...]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([prompt])).logits[0, -1]


def expected_reward(run: Run, temperature: float) -> float:
    """Over the whole vocabulary, each token by its probability."""
    said = [said_after(run.tokenizer, token) for token in range(run.model.config.vocab_size)]
    earned = []
    for row in run.heldout:
        probability_v = torch.softmax(next_token_logits(run.model, row.prompt_ids) / temperature, -1)
        earned.append(sum(float(p) * row.score(answer) for p, answer in zip(probability_v, said, strict=True)))
    return sum(earned) / len(earned)


def test_sampled_answers_earn_the_expected_reward_at_temperature_1_over_the_whole_vocabulary(run: Run) -> None:
    expected = expected_reward(run, 1.0)
    error = 0.5 / (len(PROMPTS) * run.settings.generations) ** 0.5  # standard error, of a reward from 0 to 1 at most
    assert expected_reward(run, 0.8) > expected + 8 * error and 0.1 < expected < 0.9, "temperatures can be told apart"
    found = judge_of(run)({"mean_reward"})
    assert found == {"mean_reward": pytest.approx(expected, abs=4 * error)}


def test_greedy_answers_earn_what_the_most_probable_token_does(run: Run) -> None:
    assert judge_of(run)({"greedy_reward"}) == {"greedy_reward": 1.0}


def test_what_is_passed_through_to_the_trainer_is_how_the_judge_samples(run: Run) -> None:
    for passed in ({"temperature": 0.3}, {"generation_kwargs": {"temperature": 0.3}}):
        settings = run.settings.model_copy(update={"trainer": passed})
        found = judge_of(replace(run, settings=settings))({"mean_reward"})
        assert found == {"mean_reward": pytest.approx(expected_reward(run, 0.3), abs=0.05)}
    assert expected_reward(run, 0.3) > expected_reward(run, 1.0) + 0.2, "temperatures can be told apart"


def test_each_look_draws_the_same_answers_and_leaves_the_runs_own_numbers_alone(run: Run) -> None:
    def careless(_said: str) -> float:
        return random.random() + float(np.random.rand()) + float(torch.rand(()))

    judge = judge_of(run)
    assert judge({"mean_reward"}) == judge({"mean_reward"})
    careless_run = replace(run, heldout=[replace(row, score=careless) for row in run.heldout])
    for one in (judge, judge_of(careless_run)):
        with seeded(5):
            undisturbed = careless("")
        with seeded(5):
            one({"mean_reward", "greedy_reward"})
            assert careless("") == undisturbed


def test_macro_f1_is_the_mean_over_labels() -> None:
    f1 = [2 * 2 / (3 + 4), 2 * 1 / (2 + 2), 0.0]  # of the labels that occur; 3 does not
    assert macro_f1([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 0, 0]) == pytest.approx(sum(f1) / 3)
    assert macro_f1([0, 4], [0, 4]) == 1.0
