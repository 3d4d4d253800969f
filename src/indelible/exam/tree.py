"""All prompts and answers of a batch as one tree: what they begin with alike is read once, and all of them together.

A token's slot is where it stands in the model's cache; an attention mask lets it see the slots on its own path from the
root alone, and its position is its depth. The first pass reads every prompt, and every answer but its last token;
each further pass reads on, by one token, the texts that are still being written. A text that goes the way of an answer
has been read already. So a batch takes as many passes as the longest text has tokens to write, however many texts
there are, and nothing is padded but what makes rows equally long.

Attention compares every slot of a row with every other, so a large tree is cut into rows, each a tree by itself.

Shape suffixes: r rows, n slots in all, t slots of a pass, k texts whose next token is wanted, a tokens asked about,
v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from indelible.exam.proof import Claim
from indelible.exam.scoring import Reader, Score
from indelible.exam.sitting import Outcome, Sitting, Tokens, Transcript
from indelible.models.tokens import common_start

# With a few hundred slots in a row, attention costs a tenth of the rest; but a row holds several texts in any case.
ROW_SLOTS = 256
TEXTS_PER_ROW = 4
ROOT = -1

Place = tuple[int, int]
"""A row and a slot in it, which stand for the text from the root to there."""
Wanted = dict[Place, set[int]]
"""Texts whose next token is wanted, and of which tokens it is asked how likely they are."""


def sizes(sittings: Sequence[Sitting]) -> list[int]:
    """How many slots the prompt and the answers of each sitting need, next to the sitting before it."""
    found, before = [], Tokens()
    for sitting in sittings:
        branches = {answer[:end] for answer in sitting.answers for end in range(1, len(answer))}
        found.append(len(sitting.prompt) - common_start(sitting.prompt, before) + len(branches))
        before = sitting.prompt
    return found


@dataclass(frozen=True)
class Next:
    """What follows a text: the most probable token and its log-probability, and how likely those asked about are."""

    best: int
    log_prob: float
    asked: dict[int, Score]


class Tree:
    """Texts read by a model, and its cache of them."""

    def __init__(self, reader: Reader, rows: int) -> None:
        self.reader, self.cache = reader, DynamicCache()
        self.slots: dict[tuple[Place, int], Place] = {}  # where a token stands after a text
        self.new: list[list[tuple[int, int]]] = [[] for _ in range(rows)]  # parent's slot and token, to be read
        self.sees_rnn = np.zeros((rows, 0, 0), dtype=bool)

    @property
    def width(self) -> int:
        """Slots read, in each row."""
        return self.sees_rnn.shape[-1]

    def grow(self, place: Place, tokens: Sequence[int], *, anew: bool = False) -> list[Place]:
        """Where tokens stand after a text, one after another; those that are not there yet, or all of them ``anew``,
        wait for the next pass."""
        places = []
        for token in tokens:
            if anew or (place, token) not in self.slots:
                row, parent = place
                self.slots[place, token] = (row, self.width + len(self.new[row]))
                self.new[row].append((parent, token))
            place = self.slots[place, token]
            places.append(place)
        return places

    def read(self, wanted: Wanted) -> dict[Place, Next]:
        """Read what waits, and all that is wanted waits; what follows each of those texts."""
        before, width = self.width, self.width + max(map(len, self.new))
        sees_rnn = np.zeros((len(self.new), width, width), dtype=bool)
        sees_rnn[:, :before, :before] = self.sees_rnn
        sees_rnn[:, range(width), range(width)] = True  # what only makes rows equally long sees itself
        tokens_rt = np.zeros((len(self.new), width - before), dtype=np.int64)
        for row, new in enumerate(self.new):
            for slot, (parent, token) in enumerate(new, before):
                tokens_rt[row, slot - before] = token
                if parent != ROOT:
                    sees_rnn[row, slot] |= sees_rnn[row, parent]
            new.clear()
        self.sees_rnn = sees_rnn
        places = sorted(wanted)
        at_k = [(row, slot - before) for row, slot in places]
        logits_kv = self.reader.grow(
            torch.from_numpy(tokens_rt), torch.from_numpy(sees_rnn[:, before:]), self.cache, at_k
        )
        return dict(zip(places, _next([sorted(wanted[place]) for place in places], logits_kv), strict=True))


def _next(asked: Sequence[Sequence[int]], logits_kv: Tensor) -> Iterator[Next]:
    """What the logits say, fetched from their device at one go."""
    pairs = [(k, token) for k, tokens in enumerate(asked) for token in tokens]
    of_a, tokens_a = torch.tensor(pairs, dtype=torch.long).view(-1, 2).T.to(logits_kv.device)
    best_k, total_k, asked_a = logits_kv.max(-1), logits_kv.logsumexp(-1), logits_kv[of_a, tokens_a]
    above_a = (logits_kv[of_a] > asked_a[:, None]).sum(-1)
    parts = [
        best_k.indices,
        best_k.values - total_k,
        asked_a - total_k[of_a],
        above_a,
        best_k.indices[of_a] == tokens_a,
    ]
    numbers = torch.cat([part.double() for part in parts]).tolist()
    best, log_probs, of_asked, above, first = (
        numbers[end - len(part) : end] for part, end in zip(parts, accumulate(map(len, parts)), strict=True)
    )
    scores = zip(first, of_asked, above, strict=True)
    for token, log_prob, tokens in zip(best, log_probs, asked, strict=True):
        found = {one: Score(bool(top), value, int(more) + 1) for one, (top, value, more) in zip(tokens, scores)}  # noqa: B905
        yield Next(int(token), log_prob, found)


class TreeReading:
    """A batch of sittings that is read in one tree.

    Args:
        batch: in the order of their prompts, so that those that begin alike share a row.
    """

    def __init__(self, reader: Reader, transcript: Transcript, batch: Sequence[Sitting]) -> None:
        self.transcript, self.batch = transcript, batch
        ends = list(accumulate(sizes(batch)))
        row_slots = max(ROW_SLOTS, TEXTS_PER_ROW * max(len(sitting.prompt) for sitting in batch))
        rows = -(-ends[-1] // row_slots)
        self.tree = Tree(reader, rows)
        self.paths: list[list[Place]] = []  # to the end of each prompt
        for sitting, end in zip(batch, ends, strict=True):
            root = ((end - 1) * rows // ends[-1], ROOT)
            self.paths.append([root, *self.tree.grow(root, sitting.prompt)])
        self.known: dict[Place, Next] = {}
        self.written: list[list[int]] = [[] for _ in batch]
        self.log_probs = [0.0 for _ in batch]

    def outcomes(self) -> list[Outcome]:
        """Those of the sittings; they are read on until all is written."""
        wanted: Wanted = {path[-1]: set() for path in self.paths}
        branches = [
            {answer: self._branch(wanted, path[-1], answer) for answer in sitting.answers}
            for sitting, path in zip(self.batch, self.paths, strict=True)
        ]
        self.known = self.tree.read(wanted)
        scores = [{answer: self._score(places, answer) for answer, places in some.items()} for some in branches]
        ends = {index: path[-1] for index, path in enumerate(self.paths)}
        while ends := {index: further for index, end in ends.items() if (further := self._write(index, end))}:
            self.known |= self.tree.read({place: set() for place in ends.values()})
        return [Outcome(*one) for one in zip(self.written, self.log_probs, scores, strict=True)]

    def claims(self) -> list[Claim]:
        """What has to be proved of the outcomes: of the longest text and the last one, that they are what is written,
        and that they score alike, drawn out to their full length, when they are read once more: at once but for the
        last token, far from their prompts and beside each other."""
        longest = max(range(len(self.batch)), key=lambda index: self.batch[index].length)
        claims, again = [], []
        for index in {longest, len(self.batch) - 1}:
            sitting, written = self.batch[index], tuple(self.written[index])
            claims.append(Claim(sitting.prompt, written, self.log_probs[index], written=True))
            room = sitting.length - len(sitting.prompt)
            text = written if len(written) >= room else (written * room)[:room]
            again.append((sitting.prompt, text, [self.paths[index][-2]]))
        for last in (False, True):
            wanted: Wanted = {}
            for prompt, text, places in again:
                tokens = [prompt[-1], *text[:-1]]
                start = len(places) - 1
                end = len(tokens) if last else max(1, len(tokens) - 1)
                places += self.tree.grow(places[-1], tokens[start:end], anew=True)
                wanted |= {place: {token} for place, token in zip(places[start + 1 :], text[start:], strict=False)}
            if wanted:
                self.known |= self.tree.read(wanted)
        claims += [Claim(prompt, text, self._score(places[1:], text).log_prob) for prompt, text, places in again]
        return claims

    def _branch(self, wanted: Wanted, tip: Place, answer: Tokens) -> list[Place]:
        """The places after which the answer's tokens come, whose next tokens are now wanted."""
        places = [tip, *self.tree.grow(tip, answer[:-1])]
        for place, token in zip(places, answer, strict=True):
            wanted.setdefault(place, set()).add(token)
        return places

    def _score(self, places: Sequence[Place], answer: Sequence[int]) -> Score:
        first, *rest = [self.known[place].asked[token] for place, token in zip(places, answer, strict=True)]
        return replace(first, log_prob=sum((one.log_prob for one in rest), first.log_prob))

    def _write(self, index: int, place: Place) -> Place | None:
        """Write on after a text as far as what follows is known: where more has to be read, or None at the end."""
        while following := self.known.get(place):
            self.written[index].append(following.best)
            self.log_probs[index] += following.log_prob
            if self.transcript.finished(self.batch[index], self.written[index]):
                return None
            (further,) = self.tree.grow(place, [following.best])
            if further not in self.known and further[1] < self.tree.width:  # read as part of a longer prompt
                (further,) = self.tree.grow(place, [following.best], anew=True)
            place = further
        return place
