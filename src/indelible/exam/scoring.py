"""Reading a causal language model after a batch of prompts: what it would write, and how likely a given answer is.

Most families read all texts at once, as a tree (``Reader.grow``, see tree.py). For the others, all prompts of a batch
have the same number of tokens, so a batch holds no padding, and position ids, ALiBi slopes and
attention masks are what the model computes by itself, for one prompt as for many. The prompts are read once; answers
are then scored on copies of the model's cache, and the greedy continuation goes on from the cache itself. Not every
family can be read so: there are slower ways (``WAYS``), and proof.py finds the first that is right.

Shape suffixes: b prompts in the batch, r scored answers, n tokens read before, t tokens of an answer, v vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from indelible.errors import ModelError
from indelible.models.trace import evaluation_mode, select_before_head


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
class Way:
    """One way of reading a model."""

    name: str
    usual: bool = False  # right for so many families that it is not worth a word
    together: bool = False  # texts of all lengths, in one tree (tree.py)
    cached: bool = True
    placed: bool = False  # tokens on a cache are given their positions
    stepwise: bool = False  # and read one at a time
    alone: bool = False  # rows are read one at a time


WAYS = (
    Way("in one tree", usual=True, together=True),
    Way("with a cache", usual=True),
    Way("with a cache and explicit positions", placed=True),
    Way("with a cache, token by token", stepwise=True),
    Way("with a cache and explicit positions, token by token", placed=True, stepwise=True),
    Way("without a cache", cached=False),
    Way("without a cache, text by text", cached=False, alone=True),
)
"""From the fastest to the slowest."""


@dataclass
class Held:
    """Rows that have been read, each of n tokens, and the model's cache of them where it is read with one."""

    tokens_bn: Tensor
    cache: Any = None

    def choose(self, rows_r: Tensor) -> None:
        """Keep these rows, in this order, as many times as they are named."""
        self.tokens_bn = self.tokens_bn[rows_r]
        if self.cache is not None:
            self.cache.reorder_cache(rows_r)


@dataclass(frozen=True)
class Prefill:
    """A batch of prompts that has been read, and the next-token logits (float32) of each."""

    held: Held
    logits_bv: Tensor


class Reader:
    """A model's forward pass for inference, without what a training set-up may have wrapped around it.

    accelerate's mixed precision replaces ``forward`` on the model itself; the exam calls the original, so that a model
    in training is judged in the precision of its stored weights, exactly as it is judged before and after.
    """

    def __init__(self, model: Any, way: Way = WAYS[0]) -> None:
        self.model, self.way = model, way
        self.device = next(model.parameters()).device
        self._forward: Callable[..., Any] = vars(model).get("_original_forward", model)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        self._keeps = "logits_to_keep" in inspect.signature(type(inner).forward).parameters

    def prefill(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """Read prompts that all have the same number of tokens."""
        assert len({len(prompt) for prompt in prompts}) == 1, "a batch holds prompts of one length"
        tokens = torch.tensor(prompts, device=self.device)
        held = Held(tokens[:, :0])
        return Prefill(held, self.extend(tokens, held, last_only=True)[:, -1])

    def extend(self, tokens_rt: Tensor, held: Held, *, last_only: bool) -> Tensor:
        """Feed tokens after what is held, which grows in place; their logits (r, t or 1, v) in float32."""
        before, width = held.tokens_bn.shape[1], tokens_rt.shape[1]
        held.tokens_bn = torch.cat([held.tokens_bn, tokens_rt], dim=1)
        if not self.way.cached:
            rows = held.tokens_bn.split(1 if self.way.alone else len(tokens_rt))
            return torch.cat([self._read(row, 1 if last_only else width, use_cache=False).logits for row in rows])
        logits = []
        for part in tokens_rt.split(1 if self.way.stepwise and before else width, dim=1):
            place = {}
            if self.way.placed:
                positions = torch.arange(before, before + part.shape[1], device=self.device)
                place["position_ids"] = positions.expand(len(part), -1)
            keep = 1 if last_only else width
            output = self._read(part, keep, past_key_values=held.cache, use_cache=True, **place)
            held.cache, before = output.past_key_values, before + part.shape[1]
            logits.append(output.logits)
        return torch.cat(logits, dim=1)

    def grow(self, tokens_rt: Tensor, sees_rtn: Tensor, cache: Any, at_k: Sequence[tuple[int, int]]) -> Tensor:
        """Read tokens of which each sees those of the n in the cache, itself among them, that it is told to, and stands
        behind them; logits (k, v) in float32 at rows and tokens in ascending order."""
        sees_rtn = sees_rtn.to(self.device)
        mask_rtn = torch.zeros(sees_rtn.shape, dtype=self.model.dtype, device=self.device)
        mask_rtn.masked_fill_(~sees_rtn, torch.finfo(self.model.dtype).min)
        rows_k, places_k = torch.tensor(at_k, device=self.device).T
        head = self.model.get_output_embeddings()
        with nullcontext() if head is None else select_before_head(head, rows_k, places_k):
            logits = self._forward(
                input_ids=tokens_rt.to(self.device),
                attention_mask=mask_rtn[:, None],
                position_ids=sees_rtn.sum(-1) - 1,
                past_key_values=cache,
                use_cache=True,
                return_dict=True,
            ).logits
        # There are heads that are no module, or are not called as one.
        return cast(Tensor, logits[0] if logits.shape[:2] == (1, len(at_k)) else logits[rows_k, places_k]).float()

    def plain(self, row: Sequence[int], last: int) -> Tensor:
        """The last logits (t, v) of one whole pass over one row: what every way has to agree with."""
        return cast(Tensor, self._read(torch.tensor([row], device=self.device), last, use_cache=False).logits[0])

    def _read(self, tokens: Tensor, last: int, **options: Any) -> Any:
        """A pass over tokens (b, n); of its logits, float32, the last ones."""
        if self._keeps:
            options["logits_to_keep"] = last
        output = self._forward(input_ids=tokens, return_dict=True, **options)
        output.logits = output.logits[:, -last:].float()
        return output


@contextmanager
def reading(model: Any) -> Iterator[None]:
    """Evaluation mode, no gradients, no autocast; every module's training flag is restored afterwards.

    Nothing is drawn from a random generator. ``no_grad`` and not ``inference_mode``: some models renew buffers while
    they run, and a buffer made in inference mode could not take part in training afterwards. Raises ModelError for a
    model without weights.
    """
    device = next(model.parameters()).device.type
    if device == "meta":
        raise ModelError(f"The {type(model).__name__} has no weights (it is on the meta device).", "Load it with them.")
    with evaluation_mode(model), torch.no_grad(), torch.autocast(device, enabled=False):
        yield


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
    held = copy.deepcopy(prefill.held)
    held.choose(rows_r)
    logits_rtv = reader.extend(tokens_rt[:, :-1], held, last_only=False)
    chosen_rt = logits_rtv.gather(-1, tokens_rt[:, 1:, None])[..., 0] - logits_rtv.logsumexp(-1)
    return cast(list[float], chosen_rt.double().sum(-1).tolist())


def continue_greedily(
    reader: Reader, prefill: Prefill, finished: Callable[[int, list[int]], bool]
) -> list[tuple[list[int], float]]:
    """The most probable next token, again and again, for each prompt until it is finished; uses the prefill up.

    Args:
        finished: called with a prompt's row and the tokens written after it so far; true ends that row, which then
            leaves the batch.

    Returns:
        what was written after each prompt, and its log-probability.
    """
    rows = list(range(len(prefill.logits_bv)))
    written: list[list[int]] = [[] for _ in rows]
    log_probs = [0.0 for _ in rows]
    held, logits_bv = prefill.held, prefill.logits_bv
    while True:
        next_b = logits_bv.argmax(-1)
        next_log_prob_b = logits_bv.gather(-1, next_b[:, None])[:, 0] - logits_bv.logsumexp(-1)
        for row, token, log_prob in zip(rows, next_b.tolist(), next_log_prob_b.tolist(), strict=True):
            written[row].append(token)
            log_probs[row] += log_prob
        open_rows = [row for row in rows if not finished(row, written[row])]
        if not open_rows:
            return list(zip(written, log_probs, strict=True))
        if len(open_rows) < len(rows):
            kept_b = torch.tensor([rows.index(row) for row in open_rows], device=reader.device)
            held.choose(kept_b)
            rows, next_b = open_rows, next_b[kept_b]
        logits_bv = reader.extend(next_b[:, None], held, last_only=True)[:, -1]
