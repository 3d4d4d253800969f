"""Prompts sit the exam together: which ones share a batch, how large it may be, and what is done with each.

Each distinct prompt is read once: in one tree with all others (tree.py), or, where a model cannot be read so, beside
prompts with equally many tokens, so that there is nothing to pad.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain, groupby
from typing import Any

import torch

from indelible.exam.proof import PROVED_TOKENS, Claim, Ways, proved
from indelible.exam.scoring import Reader, Score, continue_greedily, reading, score_answers
from indelible.exam.sitting import Outcome, Sitting, Tokens, Transcript
from indelible.exam.tree import TreeReading, sizes
from indelible.models.batches import in_halves, in_pieces, most_tokens, turning_points

# Beyond so many tokens at a time a processor gains nothing more by batching prompts of one length.
CPU_TOKENS_PER_BATCH = 512
# What a tree may fill of a processor's memory.
CPU_BYTES = 2 << 30
# The share of a GPU's free memory that a first guess at the batch size fills; halved when it was too much.
GPU_SHARE = 0.4

Batches = list[Sequence[Sitting]]


def sit(
    model: Any, transcript: Transcript, sittings: Sequence[Sitting], ways: Ways, batch_size: int | None = None
) -> Iterator[tuple[Sitting, Outcome]]:
    """Run the sittings, in an order that fills batches, by a way of reading that is proved; each with its outcome."""
    if not sittings:
        return
    with reading(model):
        reader, (tried, outcomes, batches) = proved(model, partial(_tried, transcript, sittings, batch_size), ways)
        yield from zip(chain(*tried), outcomes, strict=True)
        for batch in batches:
            yield from zip(batch, _run(reader, transcript, batch), strict=True)


def _tried(
    transcript: Transcript, sittings: Sequence[Sitting], batch_size: int | None, reader: Reader
) -> tuple[tuple[Batches, list[Outcome], Batches], list[Claim]]:
    """Batches that were tried, their outcomes, and the other batches; and what has to be proved of the outcomes.

    Tried are that with the longest texts, and that with the longest among those of several prompts.
    """
    batches = list((_trees if reader.way.together else _alike)(reader, sittings, batch_size))
    batches.sort(key=lambda batch: -max(sitting.length for sitting in batch))
    several = next((place for place, batch in enumerate(batches) if len(batch) > 1), 0)
    tried = [batches.pop(place) for place in sorted({0, several}, reverse=True)]
    answer = max((answer for sitting in sittings for answer in sitting.answers), key=len, default=())
    outcomes: list[Outcome] = []
    claims: list[Claim] = []
    for batch in tried:
        outcomes += _run(reader, transcript, batch, claims)
        if not reader.way.together:
            claims += _claims_of_rows(reader, batch, outcomes[-1], answer)
    return (tried, outcomes, batches), claims


def _run(
    reader: Reader, transcript: Transcript, batch: Sequence[Sitting], claims: list[Claim] | None = None
) -> list[Outcome]:
    """The outcomes of a batch; what has to be proved of those of a tree is added to the claims, if they are given."""
    if reader.way.together:
        return in_halves(lambda part: TreeReading(reader, transcript, part).outcomes(claims), batch)
    return in_halves(partial(_in_rows, reader, transcript), batch)


def _trees(reader: Reader, sittings: Sequence[Sitting], batch_size: int | None) -> Iterator[Sequence[Sitting]]:
    """Batches of prompts in order, those that begin alike next to each other, as large as memory allows.

    The lengths beyond which a model counts positions otherwise part them: one pass counts in one way.
    """
    config = reader.model.config.get_text_config()
    logits, states = 3 * 4 * config.vocab_size, 4 * 4 * config.num_hidden_layers * config.hidden_size
    room = GPU_SHARE * torch.cuda.mem_get_info(reader.device)[0] if reader.device.type == "cuda" else CPU_BYTES
    turns = turning_points(reader.model)

    def counted(sitting: Sitting) -> int:
        return sum(len(sitting.prompt) > turn for turn in turns)

    for _, group in groupby(sorted(sittings, key=lambda one: (counted(one), one.prompt)), key=counted):
        ordered = list(group)
        start, filled = 0, 0
        for place, (sitting, size) in enumerate(zip(ordered, sizes(ordered), strict=True)):
            needed = states * (size + sitting.budget) + logits * (1 + sum(map(len, sitting.answers)))
            if place > start and (filled + needed > room or place - start == batch_size):
                yield ordered[start:place]
                start, filled = place, 0
            filled += needed
        yield ordered[start:]


def _alike(reader: Reader, sittings: Sequence[Sitting], batch_size: int | None) -> Iterator[Sequence[Sitting]]:
    """Batches of prompts of one length, those with equal budgets next to each other."""
    most = batch_size or _most_alike(reader, sittings)
    ordered = sorted(sittings, key=lambda sitting: (-len(sitting.prompt), sitting.budget, sitting.prompt))
    for length, group in groupby(ordered, key=lambda sitting: len(sitting.prompt)):
        yield from in_pieces(list(group), most or max(1, CPU_TOKENS_PER_BATCH // length))


def _most_alike(reader: Reader, sittings: Sequence[Sitting]) -> int | None:
    """Prompts of one length at a time on a GPU, from its free memory; None elsewhere, where tokens are counted."""
    if reader.device.type != "cuda":
        return None
    config = reader.model.config.get_text_config()
    answers = max((len(sitting.answers) for sitting in sittings), default=1) + 1
    tokens = max(len(sitting.prompt) + sitting.budget for sitting in sittings)
    width = max((len(answer) for sitting in sittings for answer in sitting.answers), default=1)
    logits = 3 * 4 * config.vocab_size * answers * width
    states = 4 * 4 * tokens * answers * config.num_hidden_layers * config.hidden_size
    free, _ = torch.cuda.mem_get_info(reader.device)
    return max(1, int(GPU_SHARE * free / (logits + states)))


def _in_rows(reader: Reader, transcript: Transcript, batch: Sequence[Sitting]) -> list[Outcome]:
    prefill = reader.prefill([sitting.prompt for sitting in batch])
    asked = [(row, answer) for row, sitting in enumerate(batch) for answer in sitting.answers]
    scores: list[dict[Tokens, Score]] = [{} for _ in batch]
    if asked:
        rows, answers = zip(*asked, strict=True)
        for row, answer, score in zip(rows, answers, score_answers(reader, prefill, rows, answers), strict=True):
            scores[row][answer] = score
    written = continue_greedily(reader, prefill, lambda row, tokens: transcript.finished(batch[row], tokens))
    return [Outcome(*text, score) for text, score in zip(written, scores, strict=True)]


def _claims_of_rows(reader: Reader, batch: Sequence[Sitting], last: Outcome, answer: Tokens) -> list[Claim]:
    """What has to be proved of a batch's last row, which has the most to write: that it is what is written, and what
    comes of its prompt on a cache whatever was asked: an answer as long as any, and several written tokens, after the
    rows of a batch have changed places."""
    prompt = batch[-1].prompt
    prefill = reader.prefill([batch[0].prompt, prompt])
    room = int(min(max(PROVED_TOKENS, len(answer)), most_tokens(reader.model) - len(prompt)))
    text = max(tuple(last.written), (*answer, *prompt)[:room], key=len)
    moved = score_answers(reader, prefill, (1, 0, 1), [text] * 3)
    budgets = [1, min(room, PROVED_TOKENS)]
    _, (going_on, log_prob) = continue_greedily(reader, prefill, lambda row, tokens: len(tokens) >= budgets[row])
    return [
        Claim(prompt, tuple(last.written), last.log_prob, written=True),
        *(Claim(prompt, text, moved[place].log_prob) for place in (0, 2)),
        Claim(prompt, tuple(going_on), log_prob, written=True),
    ]
