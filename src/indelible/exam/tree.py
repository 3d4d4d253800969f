"""All prompts and answers of a batch as one tree: what they begin with alike is read once, and all of them together.

A token's slot is where it stands in the model's cache; an attention mask lets it see the slots on its own path from the
root alone, and its position is its depth. The first pass reads every prompt, and every answer but its last token;
each further pass reads on, by one token, the texts that are still being written. A text that goes the way of an answer
has been read already. So a batch takes as many passes as the longest text has tokens to write, however many texts
there are, and nothing is padded but what makes rows equally long.

Attention compares every slot of a row with every other, so a large tree is cut into rows, each a tree by itself. They
have as many texts and about as many slots each, as a pass takes all rows to be as long as the longest; those in which
nothing is left to write are given up.

Shape suffixes: r rows, n slots in all, t slots of a pass, k texts whose next token is wanted, a tokens asked about,
v vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from indelible.exam.proof import Claim
from indelible.exam.scoring import Reader, Score
from indelible.exam.sitting import Outcome, Sitting, Tokens, Transcript
from indelible.models.batches import in_pieces
from indelible.models.tokens import common_start

# With two hundred slots in a row, attention costs a tenth of the rest; but a row holds several texts in any case.
ROW_SLOTS = 200
TEXTS_PER_ROW = 4
# Of neighbouring texts, of which a row is made up: more make rows more alike, and read what texts begin with anew.
PIECES_PER_ROW = 4
# Logits are gone through some texts at a time, so that they are not held several times over.
TEXTS_AT_A_TIME = 32
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


def dealt(slots: Sequence[int], rows: int) -> list[int]:
    """The row of each text: pieces of neighbours, as many to each row, are dealt out, the longest to the emptiest."""
    count, pieces = len(slots), PIECES_PER_ROW * rows
    cuts = [slice(count * at // pieces, count * (at + 1) // pieces) for at in range(pieces)]
    cuts.sort(key=lambda cut: -sum(slots[cut]))
    found, filled = [0] * count, [0] * rows
    for some in in_pieces(cuts, rows):
        for row, cut in zip(sorted(range(rows), key=filled.__getitem__), some, strict=True):
            filled[row] += sum(slots[cut])
            found[cut] = [row] * (cut.stop - cut.start)
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
        self.reader = reader
        self.cache: Any = DynamicCache()
        self.slots: dict[tuple[Place, int], Place] = {}  # where a token stands after a text
        self.new: list[list[tuple[int, int]]] = [[] for _ in range(rows)]  # parent's slot and token, to be read
        self.held = list(range(rows))  # rows that are in the cache, in its order
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
        sees_rnn = np.zeros((len(self.held), width, width), dtype=bool)
        sees_rnn[:, :before, :before] = self.sees_rnn
        sees_rnn[:, range(width), range(width)] = True  # what only makes rows equally long sees itself
        tokens_rt = np.zeros((len(self.held), width - before), dtype=np.int64)
        for row, new in enumerate(self.new[row] for row in self.held):
            for slot, (parent, token) in enumerate(new, before):
                tokens_rt[row, slot - before] = token
                if parent != ROOT:
                    sees_rnn[row, slot] |= sees_rnn[row, parent]
            new.clear()
        self.sees_rnn = sees_rnn
        places = sorted(wanted)
        at_k = [(self.held.index(row), slot - before) for row, slot in places]
        logits_kv = self.reader.grow(
            torch.from_numpy(tokens_rt), torch.from_numpy(sees_rnn[:, before:]), self.cache, at_k
        )
        return dict(zip(places, _next([sorted(wanted[place]) for place in places], logits_kv), strict=True))

    def keep(self, rows: Set[int]) -> None:
        """Let go of the other rows."""
        kept = [at for at, row in enumerate(self.held) if row in rows]
        if len(kept) < len(self.held):
            self.held, self.sees_rnn = [self.held[at] for at in kept], self.sees_rnn[kept]
            self.cache.reorder_cache(torch.tensor(kept))


def _next(asked: Sequence[Sequence[int]], logits_kv: Tensor) -> Iterator[Next]:
    """What the logits say, fetched from their device at one go."""
    pairs = [(k % TEXTS_AT_A_TIME, token) for k, tokens in enumerate(asked) for token in tokens]
    pairs_a2 = torch.tensor(pairs, dtype=torch.long).view(-1, 2).to(logits_kv.device)
    counts = [sum(map(len, some)) for some in in_pieces(asked, TEXTS_AT_A_TIME)]
    of_texts, of_tokens = [], []
    for some_kv, some_a2 in zip(logits_kv.split(TEXTS_AT_A_TIME), pairs_a2.split(counts), strict=True):
        (of_a, token_a), best_k, total_k = some_a2.T, some_kv.max(-1), some_kv.logsumexp(-1)
        logit_a = some_kv[of_a, token_a]
        above_a = some_kv.index_select(0, of_a).gt_(logit_a[:, None]).sum(-1)  # as numbers: no sum of truths is as fast
        of_texts.append(torch.stack([best_k.indices.double(), (best_k.values - total_k).double()]))
        of_tokens.append(torch.stack([(logit_a - total_k[of_a]).double(), above_a.double()]))
    numbers = torch.cat([torch.cat(some, dim=1).flatten() for some in (of_texts, of_tokens)]).tolist()
    best, log_probs, rest = numbers[: len(asked)], numbers[len(asked) : 2 * len(asked)], numbers[2 * len(asked) :]
    scores = zip(rest[: len(pairs)], rest[len(pairs) :], strict=True)
    for token, log_prob, tokens in zip(best, log_probs, asked, strict=True):
        found = {one: Score(one == token, value, int(above) + 1) for one, (value, above) in zip(tokens, scores)}  # noqa: B905
        yield Next(int(token), log_prob, found)


class TreeReading:
    """A batch of sittings that is read in one tree.

    Args:
        batch: in the order of their prompts, so that those that begin alike share a row.
    """

    def __init__(self, reader: Reader, transcript: Transcript, batch: Sequence[Sitting]) -> None:
        self.transcript, self.batch = transcript, batch
        slots = sizes(batch)
        row_slots = max(ROW_SLOTS, TEXTS_PER_ROW * max(len(sitting.prompt) for sitting in batch))
        rows = min(len(batch), max(1, round(sum(slots) / row_slots)))
        self.tree = Tree(reader, rows)
        self.paths: list[list[Place]] = []  # to the end of each prompt
        # That with the most to read is proved; in the last row, as a model may read all rows as it does the first.
        self.proved = max(range(len(batch)), key=lambda index: batch[index].length)
        found = dealt(slots, rows)
        for sitting, row in zip(batch, found, strict=True):
            root = ((row - found[self.proved] - 1) % rows, ROOT)
            self.paths.append([root, *self.tree.grow(root, sitting.prompt)])
        self.known: dict[Place, Next] = {}
        self.written: list[list[int]] = [[] for _ in batch]
        self.log_probs = [0.0 for _ in batch]

    def outcomes(self, claims: list[Claim] | None = None) -> list[Outcome]:
        """Those of the sittings; they are read on until all is written.

        Args:
            claims: what has to be proved of them is added, of the prompt with the most to read: that what is written
                after it is what the model would write; and that this, drawn out to its full length, scores as in a
                plain pass when it is read once more, far from its prompt, at once but for the last token.
        """
        wanted: Wanted = {path[-1]: set() for path in self.paths}
        branches = [
            {answer: self._branch(wanted, path[-1], answer) for answer in sitting.answers}
            for sitting, path in zip(self.batch, self.paths, strict=True)
        ]
        self.known = self.tree.read(wanted)
        scores = [{answer: self._score(places, answer) for answer, places in some.items()} for some in branches]
        proved, text, places = self.batch[self.proved], list[int](), [self.paths[self.proved][-2]]
        pieces = iter(()) if claims is None else self._drawn_out(text, places)
        ends = {index: path[-1] for index, path in enumerate(self.paths)}
        while True:
            ends = {index: further for index, end in ends.items() if (further := self._write(index, end))}
            # Only where few texts are left, for every row is read to the length of the longest.
            few = self.proved not in ends and len(ends) < proved.room
            wanted = {place: set() for place in ends.values()} | (next(pieces, {}) if few else {})
            if not wanted:
                break
            self.tree.keep({row for row, _ in [*wanted, *places]})
            self.known |= self.tree.read(wanted)
        if claims is not None:
            written, log_prob = self.written[self.proved], self.log_probs[self.proved]
            claims.append(Claim(proved.prompt, tuple(written), log_prob, written=True))
            claims.append(Claim(proved.prompt, tuple(text), self._score(places[1:], text).log_prob))
        return [Outcome(*one) for one in zip(self.written, self.log_probs, scores, strict=True)]

    def _drawn_out(self, text: list[int], places: list[Place]) -> Iterator[Wanted]:
        """Let a text wait for a pass, after the prompt that is proved, all but its last token, and then that; with the
        tokens that are asked about after each.

        The text's tokens, and the places after which they come, are added to those that are given.
        """
        sitting = self.batch[self.proved]
        written = takewhile(lambda token: token not in self.transcript.ends, self.written[self.proved])
        text += [*written, *sitting.room * sitting.prompt][: sitting.room]
        tokens = [sitting.prompt[-1], *text[:-1]]
        for piece in filter(None, (range(len(text) - 1), range(len(text) - 1, len(text)))):
            places += self.tree.grow(places[-1], [tokens[at] for at in piece], anew=True)
            yield {place: {text[at]} for place, at in zip(places[-len(piece) :], piece, strict=True)}

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
