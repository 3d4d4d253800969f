"""One prompt of an exam: what is asked about it, what a model did after it, and when that is settled.

Shape suffixes are those of scoring.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from indelible.exam.criterion import labelled, settled
from indelible.exam.scoring import Score

Tokens = tuple[int, ...]

LABEL_TOKENS = 6
"""Of a label in front of an answer ("The answer is"), at most; a prompt's budget is for the answer alone."""


@dataclass
class Sitting:
    """One distinct prompt of an exam and all that is asked about it."""

    prompt: Tokens
    budget: int = 0  # tokens to write after it, beside a label
    answers: dict[Tokens, None] = field(default_factory=dict)  # whose probability is asked for, in order of appearance
    targets: list[str] | None = None  # writing ends when it is settled for each; None: write regardless

    @property
    def length(self) -> int:
        """Tokens that may be read in all."""
        return len(self.prompt) + self.room

    @property
    def room(self) -> int:
        """Tokens of these that come after the prompt."""
        return max([self.budget + LABEL_TOKENS, *map(len, self.answers)])


@dataclass(frozen=True)
class Outcome:
    """What a model did after one prompt: the tokens it wrote, greedily, and the score of each answer asked for."""

    written: list[int]
    log_prob: float  # of what was written
    scores: dict[Tokens, Score]


class Transcript:
    """Turns written tokens into the text that is judged: up to an end token or the end of a line of text.

    End tokens are those that the model's settings and the tokenizer name. ``whole``: lines go on, and a budget is of
    all tokens.
    """

    def __init__(self, model: Any, tokenizer: Any, *, whole: bool = False) -> None:
        self.tokenizer, self.whole, self.ends = tokenizer, whole, set[int]()
        for owner in (getattr(model, "generation_config", None), model.config, tokenizer):
            end = getattr(owner, "eos_token_id", None)
            self.ends.update(end if isinstance(end, list | tuple) else [] if end is None else [end])

    def text(self, written: Sequence[int], budget: int) -> str:
        """The text of the tokens that a budget holds before the first end token, up to the end of its line."""
        ends = range(budget, len(written))
        within = written[: next((end for end in ends if self._is_spent(budget, written[:end])), len(written))]
        text = self._decoded(list(takewhile(lambda token: token not in self.ends, within)))
        return text if self.whole else first_line(text)

    def finished(self, sitting: Sitting, written: Sequence[int]) -> bool:
        """Whether no more is to be written: nothing that follows could count, or the budget is spent."""
        if written[-1] in self.ends or self._is_spent(sitting.budget, written):
            return True
        if self.whole:
            return False
        text = self._decoded(written)
        if "\n" in text.lstrip():
            return True
        return sitting.targets is not None and all(settled(text, target) for target in sitting.targets)

    def _is_spent(self, budget: int, written: Sequence[int]) -> bool:
        """Whether a budget holds no more; a label takes nothing of it."""
        if len(written) < budget or self.whole or not labelled(self._decoded(written)):
            return len(written) >= budget
        counts = range(1, min(len(written), LABEL_TOKENS) + 1)
        label = next((count for count in counts if labelled(self._decoded(written[:count]))), 0)
        return len(written) >= budget + label

    def _decoded(self, written: Sequence[int]) -> str:
        text: str = self.tokenizer.decode(list(written), clean_up_tokenization_spaces=False)
        return text


def first_line(text: str) -> str:
    """The text up to the end of its first line that is not empty."""
    lead = len(text) - len(text.lstrip())
    return text[:lead] + text[lead:].split("\n", 1)[0]
