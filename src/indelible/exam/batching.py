"""Prompts sit the exam together: which ones share a batch, how large it may be, and what is done with each.

Prompts with equally many tokens are batched, so that there is nothing to pad. Each distinct prompt is read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, groupby, takewhile
from typing import Any

import torch

from indelible.exam.criterion import hopeless
from indelible.exam.proof import Claim, proved
from indelible.exam.scoring import Reader, Score, continue_greedily, reading, score_answers
from indelible.models.batches import in_halves, in_pieces, most_tokens

Tokens = tuple[int, ...]

# Beyond so many tokens at a time a processor gains nothing more by batching.
CPU_TOKENS_PER_BATCH = 512
# What a proof reads on a cache, one by one and at once, where there is room: a text of one token never comes there.
PROVED_TOKENS = 4
# The share of a GPU's free memory that a first guess at the batch size fills; halved when it was too much.
GPU_SHARE = 0.4


@dataclass
class Sitting:
    """One distinct prompt of an exam and all that is asked about it."""

    prompt: Tokens
    budget: int = 0  # tokens to write after it
    answers: dict[Tokens, None] = field(default_factory=dict)  # whose probability is asked for, in order of appearance
    targets: list[str] | None = None  # of which one must still be possible for writing to go on; None: write regardless


@dataclass(frozen=True)
class Outcome:
    """What a model did after one prompt: the tokens it wrote, greedily, and the score of each answer asked for."""

    written: list[int]
    log_prob: float  # of what was written
    scores: dict[Tokens, Score]


class Transcript:
    """Turns written tokens into the text that is judged: up to an end token or the end of a line of text.

    End tokens are those that the model's settings and the tokenizer name.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self.tokenizer, self.ends = tokenizer, set[int]()
        for owner in (getattr(model, "generation_config", None), model.config, tokenizer):
            end = getattr(owner, "eos_token_id", None)
            self.ends.update(end if isinstance(end, list | tuple) else [] if end is None else [end])

    def text(self, written: Sequence[int]) -> str:
        """The text of the tokens before the first end token, cut after the first line that is not empty."""
        before = list(takewhile(lambda token: token not in self.ends, written))
        text: str = self.tokenizer.decode(before, clean_up_tokenization_spaces=False)
        lead = len(text) - len(text.lstrip())
        return text[:lead] + text[lead:].split("\n", 1)[0]

    def is_over(self, written: Sequence[int]) -> bool:
        """Whether nothing that follows the last of these tokens could still count."""
        text: str = self.tokenizer.decode(list(written), clean_up_tokenization_spaces=False)
        return written[-1] in self.ends or "\n" in text.lstrip()


def sit(
    model: Any, transcript: Transcript, sittings: Sequence[Sitting], batch_size: int | None = None
) -> Iterator[tuple[Sitting, Outcome]]:
    """Run the sittings, in an order that fills batches, by a way of reading that is proved; each with its outcome."""
    if not sittings:
        return
    with reading(model):
        batches = list(_batches(sittings, batch_size or _batch_size(model, sittings)))
        # The longest prompts, and the longest of which there are several.
        tried = [batches.pop(place) for place in sorted({0, _first_of_several(batches)}, reverse=True)]
        reader, outcomes = proved(model, partial(_tried, transcript, tried, _longest_answer(sittings)))
        yield from zip(chain(*tried), outcomes, strict=True)
        for batch in batches:
            yield from zip(batch, _run(transcript, batch, reader), strict=True)


def _run(transcript: Transcript, batch: Sequence[Sitting], reader: Reader) -> list[Outcome]:
    return in_halves(partial(_sit_batch, reader, transcript), batch)


def _tried(
    transcript: Transcript, tried: Sequence[Sequence[Sitting]], answer: Tokens, reader: Reader
) -> tuple[list[Outcome], list[Claim]]:
    """The outcomes of some batches; and what has to be proved of each one's last row, which has the most to write.

    That is what it wrote, and what comes of its prompt on a cache whatever was asked: an answer as long as any, and
    several written tokens, after the rows of a batch have changed places.
    """
    outcomes: list[Outcome] = []
    claims: list[Claim] = []
    for batch in tried:
        outcomes += _run(transcript, batch, reader)
        prompt, last = batch[-1].prompt, outcomes[-1]
        claims.append(Claim(prompt, last.written, last.log_prob, written=True))
        prefill = reader.prefill([batch[0].prompt, prompt])
        room = int(min(max(PROVED_TOKENS, len(answer)), most_tokens(reader.model) - len(prompt)))
        text = max(last.written, [*answer, *prompt][:room], key=len)
        moved = score_answers(reader, prefill, (1, 0, 1), [text] * 3)
        claims += [Claim(prompt, text, moved[place].log_prob) for place in (0, 2)]
        _, going_on = continue_greedily(reader, prefill, [1, min(room, PROVED_TOKENS)], lambda *_: False)
        claims.append(Claim(prompt, *going_on, written=True))
    return outcomes, claims


def _first_of_several(batches: Sequence[Sequence[Sitting]]) -> int:
    return next((place for place, batch in enumerate(batches) if len(batch) > 1), 0)


def _longest_answer(sittings: Sequence[Sitting]) -> Tokens:
    return max((answer for sitting in sittings for answer in sitting.answers), key=len, default=())


def _batches(sittings: Sequence[Sitting], batch_size: int | None) -> Iterator[Sequence[Sitting]]:
    """Batches of prompts of one length, those with equal budgets next to each other, the longest first."""
    ordered = sorted(sittings, key=lambda sitting: (-len(sitting.prompt), sitting.budget, sitting.prompt))
    for length, group in groupby(ordered, key=lambda sitting: len(sitting.prompt)):
        yield from in_pieces(list(group), batch_size or max(1, CPU_TOKENS_PER_BATCH // length))


def _batch_size(model: Any, sittings: Sequence[Sitting]) -> int | None:
    """Prompts at a time on a GPU, from its free memory; None elsewhere, where tokens are counted instead."""
    device = next(model.parameters()).device
    if device.type != "cuda":
        return None
    config = model.config.get_text_config()
    answers = max((len(sitting.answers) for sitting in sittings), default=1) + 1
    tokens = max(len(sitting.prompt) + sitting.budget for sitting in sittings)
    width = max((len(answer) for sitting in sittings for answer in sitting.answers), default=1)
    logits = 3 * 4 * config.vocab_size * answers * width
    states = 4 * 4 * tokens * answers * config.num_hidden_layers * config.hidden_size
    free, _ = torch.cuda.mem_get_info(device)
    return max(1, int(GPU_SHARE * free / (logits + states)))


def _sit_batch(reader: Reader, transcript: Transcript, batch: Sequence[Sitting]) -> list[Outcome]:
    prefill = reader.prefill([sitting.prompt for sitting in batch])
    asked = [(row, answer) for row, sitting in enumerate(batch) for answer in sitting.answers]
    scores: list[dict[Tokens, Score]] = [{} for _ in batch]
    if asked:
        rows, answers = zip(*asked, strict=True)
        for row, answer, score in zip(rows, answers, score_answers(reader, prefill, rows, answers), strict=True):
            scores[row][answer] = score

    def finished(row: int, written: list[int]) -> bool:
        if transcript.is_over(written):
            return True
        targets = batch[row].targets
        return targets is not None and all(hopeless(transcript.text(written), target) for target in targets)

    written = continue_greedily(reader, prefill, [sitting.budget for sitting in batch], finished)
    return [Outcome(*text, score) for text, score in zip(written, scores, strict=True)]
