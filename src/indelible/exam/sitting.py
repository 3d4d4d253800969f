"""One prompt of an exam: what is asked about it, what a model did after it, and when that is settled.

Shape suffixes are those of scoring.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from indelible.exam.criterion import settled
from indelible.exam.scoring import Score

Tokens = tuple[int, ...]


@dataclass
class Sitting:
    """One distinct prompt of an exam and all that is asked about it."""

    prompt: Tokens
    budget: int = 0  # tokens to write after it
    answers: dict[Tokens, None] = field(default_factory=dict)  # whose probability is asked for, in order of appearance
    targets: list[str] | None = None  # writing ends when it is settled for each; None: write regardless

    @property
    def length(self) -> int:
        """Tokens that may be read in all."""
        return len(self.prompt) + max(self.budget, *map(len, self.answers), 1)


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

    def finished(self, sitting: Sitting, written: Sequence[int]) -> bool:
        """Whether no more is to be written: nothing that follows could count, or the budget is spent."""
        if len(written) >= sitting.budget or written[-1] in self.ends:
            return True
        text: str = self.tokenizer.decode(list(written), clean_up_tokenization_spaces=False)
        if "\n" in text.lstrip():
            return True
        return sitting.targets is not None and all(settled(text, target) for target in sitting.targets)
