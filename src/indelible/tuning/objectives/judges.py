"""Downstream figures of a model as it stands: what each objective's held-out rows say.

All are taken in evaluation mode and in the run's precision, and leave random state as it was.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from indelible.models.trace import evaluation_mode
from indelible.tuning.batches import Collator, autocast, completion_log_probs, mean_token_loss
from indelible.tuning.objectives.classify import Labelled
from indelible.tuning.objectives.objective import Features, Judge, Run
from indelible.tuning.objectives.preference import Pair
from indelible.tuning.objectives.reason import Answered
from indelible.tuning.objectives.reward import Problem, Reward
from indelible.tuning.randomness import kept_random_state, seeded
from indelible.tuning.tasks.answers import same_answer


def token_loss_judge(run: Run) -> Judge:
    """``loss``, the mean over loss-bearing tokens, and ``perplexity``, its exponential."""

    def judge(names: Collection[str]) -> dict[str, float]:
        loss = _token_loss(run, run.heldout)
        figures = {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
        return {name: figures[name] for name in names}

    return judge


def answer_judge(run: Run) -> Judge:
    """``loss`` over the answers' tokens, and ``exact_match`` of greedy answers (by their final answer; case aside)."""
    rows: Sequence[Answered] = run.heldout
    longest = max(len(row.input_ids) - len(row.prompt_ids) for row in rows)

    def judge(names: Collection[str]) -> dict[str, float]:
        found = {}
        if "loss" in names:
            found["loss"] = _token_loss(run, rows)
        if "exact_match" in names:
            answers = greedy_answers(run, [row.prompt_ids for row in rows], longest)
            scores = [same_answer(said, row.answer) for said, row in zip(answers, rows, strict=True)]
            found["exact_match"] = sum(scores) / len(scores)
        return found

    return judge


def label_judge(run: Run) -> Judge:
    """``accuracy``, ``macro_f1`` and ``loss`` of the most probable label."""
    rows: Sequence[Labelled] = run.heldout
    truth_r = torch.tensor([row.label for row in rows])

    def judge(names: Collection[str]) -> dict[str, float]:
        scores_rl = _head_scores(run, rows) if run.settings.head else _word_scores(run, rows)
        said_r = scores_rl.argmax(1)
        return {
            "accuracy": float((said_r == truth_r).float().mean()),
            "macro_f1": macro_f1(truth_r, said_r, len(run.labels)),
            "loss": float(functional.cross_entropy(scores_rl, truth_r)),
        }

    return judge


def preference_judge(run: Run) -> Judge:
    """``preference_accuracy``, ``margin`` and ``loss`` of held-out pairs against the model as it is now, when the judge
    is made (Rafailov et al. 2023, equation 7)."""
    rows: Sequence[Pair] = run.heldout
    before_r2 = pair_log_probs(run.model, rows, run)

    def judge(names: Collection[str]) -> dict[str, float]:
        gained_r2 = pair_log_probs(run.model, rows, run) - before_r2
        margin_r = run.settings.beta * (gained_r2[:, 0] - gained_r2[:, 1])
        return {
            "preference_accuracy": float((margin_r > 0).float().mean() + (margin_r == 0).float().mean() / 2),
            "margin": float(margin_r.mean()),
            "loss": float(-functional.logsigmoid(margin_r).mean()),
        }

    return judge


def reward_judge(run: Run) -> Judge:
    """``mean_reward``, what the policy gradient raises: of ``generations`` answers to each problem, sampled as the
    trainer samples them (but without dropout, and by the same random numbers each time); and ``greedy_reward``, of the
    one answer that the model finds most probable, which may fall meanwhile."""
    rows: Sequence[Problem] = run.heldout
    prompts = [row.prompt_ids for row in rows]
    tokens, times = run.settings.answer_tokens, run.settings.generations
    sampling = Reward().sampling(run.settings)

    def earned(answers: Sequence[str]) -> float:
        with kept_random_state():  # a scorer may be anyone's
            scores = [float(rows[number % len(rows)].score(said)) for number, said in enumerate(answers)]
        return sum(scores) / len(scores)

    def judge(names: Collection[str]) -> dict[str, float]:
        found = {}
        if "mean_reward" in names:
            found["mean_reward"] = earned(sampled_answers(run, prompts * times, tokens, sampling))
        if "greedy_reward" in names:
            found["greedy_reward"] = earned(greedy_answers(run, prompts, tokens))
        return found

    return judge


def macro_f1(truth_r: Tensor, said_r: Tensor, labels: int) -> float:
    """Mean F1 over the labels that occur in either; one that is never right counts 0."""
    scores = []
    for label in range(labels):
        true, said = truth_r == label, said_r == label
        occurring = int(true.sum() + said.sum())
        if occurring:
            scores.append(2 * int((true & said).sum()) / occurring)
    return sum(scores) / len(scores)


def pair_log_probs(model: PreTrainedModel, rows: Sequence[Pair], run: Run) -> Tensor:
    """Log-probabilities ``(rows, 2)`` of chosen and rejected answers, in the run's precision, float32 sums."""
    both = [(row.prompt_ids, answer) for row in rows for answer in (row.chosen_ids, row.rejected_ids)]
    return _log_probs(model, both, run).view(-1, 2)


def greedy_answers(run: Run, prompts: Sequence[Sequence[int]], tokens: int) -> list[str]:
    """What the model finds most probable after each prompt, token by token (see ``_written``)."""
    own = dict.fromkeys(("temperature", "top_p", "top_k", "min_p"))
    return _written(run, prompts, tokens, {"do_sample": False, "repetition_penalty": 1.0} | own)


def sampled_answers(run: Run, prompts: Sequence[Sequence[int]], tokens: int, sampling: Mapping[str, Any]) -> list[str]:
    """What the model answers to each prompt where answers are drawn (see ``_written``).

    The random numbers are the same in each call, and those of the run go on as if none had been drawn.

    Args:
        run: whose model answers.
        prompts: their token ids.
        tokens: of an answer, at most.
        sampling: arguments of ``generate``.
    """
    with seeded(0):
        return _written(run, prompts, tokens, {**sampling, "do_sample": True})


def _written(run: Run, prompts: Sequence[Sequence[int]], tokens: int, how: Mapping[str, Any]) -> list[str]:
    """What the model writes after each prompt, up to the end of text, prompts of like length together.

    An answer ends where the model has no more positions.
    """
    model, tokenizer = run.model, run.tokenizer
    ordered = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    generate: Any = model.generate
    ends = _ends(model, tokenizer.eos_token_id)
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None) or 2**30
    with evaluation_mode(model), torch.no_grad(), autocast(model.device, run.settings.precision):
        for start in range(0, len(ordered), 4 * run.settings.batch_size):
            chosen = ordered[start : start + 4 * run.settings.batch_size]
            width = max(len(prompts[index]) for index in chosen)
            room = min(tokens, positions - width)
            if room < 1:
                continue
            ids = torch.full((len(chosen), width), run.pad)
            mask = torch.zeros_like(ids)
            for place, index in enumerate(chosen):
                ids[place, width - len(prompts[index]) :] = torch.tensor(prompts[index])
                mask[place, width - len(prompts[index]) :] = 1
            fixed = {
                "attention_mask": mask.to(model.device),
                "max_new_tokens": room,
                "num_beams": 1,
                "use_cache": True,
                "pad_token_id": run.pad,
                "eos_token_id": ends or None,
            }
            written = generate(ids.to(model.device), **{**how, **fixed})
            for place, index in enumerate(chosen):
                answer = written[place, width:].tolist()
                stop = next((at for at, token in enumerate(answer) if token in ends), len(answer))
                answers[index] = str(tokenizer.decode(answer[:stop], skip_special_tokens=True))
    return answers


def _ends(model: PreTrainedModel, end: int | None) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and those of the model's own generation settings."""
    own = model.generation_config.eos_token_id if model.generation_config is not None else None
    ends = [end, *(own if isinstance(own, list) else [own])]
    return sorted({token for token in ends if token is not None})


def _token_loss(run: Run, rows: Sequence[Features]) -> float:
    settings = run.settings
    return mean_token_loss(
        run.model, rows, pad=run.pad, batch_size=2 * settings.batch_size, precision=settings.precision
    )


def _word_scores(run: Run, rows: Sequence[Labelled]) -> Tensor:
    """Log-probability ``(rows, labels)`` of each label word after each text."""
    answers = [(row.prompt_ids, word) for row in rows for word in row.words]
    return _log_probs(run.model, answers, run).view(len(rows), -1)


def _head_scores(run: Run, rows: Sequence[Labelled]) -> Tensor:
    head: nn.Module = run.trainee
    collate = Collator(run.pad)
    scores = []
    with evaluation_mode(head), torch.no_grad(), autocast(run.model.device, run.settings.precision):
        for batch in _batched(rows, 2 * run.settings.batch_size):
            inputs = collate([{"input_ids": row.prompt_ids, "labels": row.prompt_ids} for row in batch])
            ids, mask = inputs["input_ids"].to(run.model.device), inputs["attention_mask"].to(run.model.device)
            scores.append(head(ids, mask).logits.float().cpu())
    return torch.cat(scores)


def _log_probs(model: PreTrainedModel, answers: Sequence[tuple[Sequence[int], Sequence[int]]], run: Run) -> Tensor:
    """Log-probability of each answer after its prompt, those of like length together; on the CPU."""
    ordered = sorted(range(len(answers)), key=lambda index: len(answers[index][0]) + len(answers[index][1]))
    found = torch.empty(len(answers))
    with evaluation_mode(model), torch.no_grad(), autocast(model.device, run.settings.precision):
        for chosen in _batched(ordered, 2 * run.settings.batch_size):
            found[chosen] = completion_log_probs(model, [answers[index] for index in chosen], run.pad).cpu()
    return found


def _batched(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[start : start + size] for start in range(0, len(items), size)]
