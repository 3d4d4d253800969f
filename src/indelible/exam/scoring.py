"""Reading a causal language model after a batch of prompts: what it would write, and how likely a given answer is.

All prompts of a batch have the same number of tokens, so a batch holds no padding, and position ids, ALiBi slopes and
attention masks are what the model computes by itself, for one prompt as for many. The prompts are read once; answers
are then scored on copies of the attention cache, and the greedy continuation goes on from the cache itself.

Shape suffixes: b prompts in the batch, r scored answers, t tokens of an answer, v vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from indelible.models.trace import evaluation_mode


@dataclass(frozen=True)
class Score:
    """How a model holds one answer at the end of one prompt.

    Attributes:
        first_token: whether the answer's first token is the most probable next token.
        log_prob: natural logarithm of the probability of all the answer's tokens, one after another (teacher-forced).
        rank: place of the answer's first token among all next tokens, from 1 (ties share the better place).
    """

    first_token: bool
    log_prob: float
    rank: int


@dataclass(frozen=True)
class Prefill:
    """A batch of prompts that has been read: the attention cache and the next-token logits (float32) of each."""

    cache: Any
    logits_bv: Tensor


class Reader:
    """A model's forward pass for inference, without what a training set-up may have wrapped around it.

    accelerate's mixed precision replaces ``forward`` on the model itself; the exam calls the original, so that a model
    in training is judged in the precision of its stored weights, exactly as it is judged before and after.
    """

    def __init__(self, model: Any) -> None:
        self.device = next(model.parameters()).device
        self._forward: Callable[..., Any] = vars(model).get("_original_forward", model)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._keeps = "logits_to_keep" in inspect.signature(type(inner).forward).parameters

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """Read prompts that all have the same number of tokens."""
        assert len({len(prompt) for prompt in prompts}) == 1, "a batch holds prompts of one length"
        output = self._read(torch.tensor(prompts, device=self.device), None, last_only=True)
        return Prefill(output.past_key_values, output.logits[:, -1].float())

    def extend(self, tokens_rt: Tensor, cache: Any, *, last_only: bool) -> Tensor:
        """Feed tokens on top of a cache, which grows in place; their logits (r, t or 1, v) in float32."""
        return cast(Tensor, self._read(tokens_rt, cache, last_only=last_only).logits.float())

    def _read(self, tokens: Tensor, cache: Any, *, last_only: bool) -> Any:
        options: dict[str, Any] = {"logits_to_keep": 1} if last_only and self._keeps else {}
        return self._forward(input_ids=tokens, past_key_values=cache, use_cache=True, return_dict=True, **options)


@contextmanager
def reading(model: Any) -> Iterator[Reader]:
    """Evaluation mode, no gradients, no autocast; every module's training flag is restored afterwards.

    Nothing is drawn from a random generator. ``no_grad`` and not ``inference_mode``: some models renew buffers while
    they run, and a buffer made in inference mode could not take part in training afterwards.
    """
    reader = Reader(model)
    with evaluation_mode(model), torch.no_grad(), torch.autocast(reader.device.type, enabled=False):
        yield reader


def score_answers(
    reader: Reader, prefill: Prefill, rows: Sequence[int], answers: Sequence[Sequence[int]]
) -> list[Score]:
    """Score answers, ``answers[i]`` after prompt ``rows[i]``; a prompt may have any number of them.

    Answers with equally many tokens are fed together, so there is no padding here either.
    """
    rows_r = torch.tensor(rows, device=reader.device)
    first_r = torch.tensor([answer[0] for answer in answers], device=reader.device)
    first_logit_r = prefill.logits_bv[rows_r, first_r]
    log_probs = (first_logit_r - prefill.logits_bv.logsumexp(-1)[rows_r]).double().tolist()
    top_r = prefill.logits_bv.argmax(-1)[rows_r]
    ranks = [int((prefill.logits_bv[row] > logit).sum()) + 1 for row, logit in zip(rows, first_logit_r, strict=True)]

    for length in sorted({len(answer) for answer in answers} - {1}):
        members = [index for index, answer in enumerate(answers) if len(answer) == length]
        rest = _score_rest(reader, prefill, rows_r[members], [answers[index] for index in members])
        for index, value in zip(members, rest, strict=True):
            log_probs[index] += value
    firsts = (top_r == first_r).tolist()
    return [Score(*values) for values in zip(firsts, log_probs, ranks, strict=True)]


def _score_rest(reader: Reader, prefill: Prefill, rows_r: Tensor, answers: Sequence[Sequence[int]]) -> list[float]:
    """Log-probability of each answer's tokens from the second on, given the first; answers of one length."""
    tokens_rt = torch.tensor(answers, device=reader.device)
    cache = copy.deepcopy(prefill.cache)
    cache.reorder_cache(rows_r)
    logits_rtv = reader.extend(tokens_rt[:, :-1], cache, last_only=False)
    chosen_rt = logits_rtv.gather(-1, tokens_rt[:, 1:, None])[..., 0] - logits_rtv.logsumexp(-1)
    return cast(list[float], chosen_rt.double().sum(-1).tolist())


def continue_greedily(
    reader: Reader, prefill: Prefill, budgets: Sequence[int], finished: Callable[[int, list[int]], bool]
) -> list[list[int]]:
    """The most probable next token, again and again, for each prompt until it is finished; uses the cache up.

    Args:
        budgets: number of tokens to write after each prompt, at most.
        finished: called with a prompt's row and the tokens written after it so far; true ends that row, which then
            leaves the batch.
    """
    written: list[list[int]] = [[] for _ in budgets]
    rows = list(range(len(budgets)))
    cache, next_b = prefill.cache, prefill.logits_bv.argmax(-1)
    while True:
        for row, token in zip(rows, next_b.tolist(), strict=True):
            written[row].append(token)
        open_rows = [row for row in rows if len(written[row]) < budgets[row] and not finished(row, written[row])]
        kept = [rows.index(row) for row in open_rows]
        if not kept:
            return written
        if len(kept) < len(rows):
            kept_b = torch.tensor(kept, device=reader.device)
            cache.reorder_cache(kept_b)
            rows, next_b = [rows[place] for place in kept], next_b[kept_b]
        next_b = reader.extend(next_b[:, None], cache, last_only=True)[:, -1].argmax(-1)
