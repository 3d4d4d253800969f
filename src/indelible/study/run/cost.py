"""What a study will cost, said before it begins: runs of tuning, optimizer steps, tokens, and roughly how long.

The time is arithmetic over this machine's measured speed: a token costs 2 operations per parameter on the way forward
and 4 on the way back (Kaplan et al., arXiv 2001.08361, section 2.1), and about half of the speed of a plain matrix
product is reached. It is an upper end: rows are mostly shorter than ``max_tokens``, and a run may stop early.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, fields

import torch

from indelible.numbers.words import counted, duration
from indelible.study.design.settings import FactsSettings
from indelible.study.run.exams import PUBLISHED_TOKENS
from indelible.tuning.objective import OBJECTIVES
from indelible.tuning.settings import TuningSettings

REACHED = 0.5
"""Share of a matrix product's speed that whole passes over a model reach."""

QUESTION_TOKENS = 24
"""Tokens that go through the model for one question: a prompt and a short answer."""

FACT_TOKENS = 100
"""Tokens that go forth and back for each wording of a fact that is edited: some 25 steps over the end of a sentence."""

WORDINGS_ASKED = 3
"""Held-out wordings and neighbours of a fact where a study asks all that there are."""

SAMPLING = 4
"""How many times dearer a sequence is that the model writes token by token than one that it reads; assumed."""

MIXTURES = 2**5
"""Mixtures of edited and tuned weights on which an explained arm is asked."""

MEASURED_FOR = 0.3
"""Seconds for which a matrix product is timed."""


@dataclass(frozen=True)
class Cost:
    """What a step takes, or several together: floating-point operations per parameter; runs of fine-tuning; optimizer
    steps of all of them, and tokens trained on, at most."""

    operations: float = 0.0
    tunings: int = 0
    optimizer_steps: int = 0
    tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def seconds(self, parameters: int, speed: float) -> float:
        """Roughly how long it takes; ``speed`` is ``machine_speed``'s."""
        return self.operations * parameters / (REACHED * speed)

    def in_words(self, seconds: float | None) -> str:
        """One line for the screen."""
        tuning = f"{counted(self.tunings, 'run')} of tuning" if self.tunings else "no tuning"
        most = f"{counted(self.optimizer_steps, 'step')} and {counted(self.tokens, 'token')}"
        steps = f", at most {most}" if self.tunings else ""
        if seconds is None:
            return f"Cost: {tuning}{steps}; how long is known once the model is here."
        return f"Cost: {tuning}{steps}; roughly {duration(seconds)} on this machine, less where runs stop early."


def questions_per_fact(facts: FactsSettings) -> int:
    """Wordings of each fact in the whole exam, its own prompt and its neighbours counted."""
    return 1 + sum(WORDINGS_ASKED if limit is None else limit for limit in (facts.held_out, facts.neighbours))


def prompts_cost(facts: FactsSettings, *, isolated: bool = False, published: bool = False) -> float:
    """Operations per parameter of asking one model each fact's own prompt; as published, 50 tokens are answered."""
    tokens = QUESTION_TOKENS + (PUBLISHED_TOKENS if published else 0)
    return 2.0 * tokens * ((1 if isolated else facts.n_edits) + facts.n_intrinsic)


def tuning_cost(settings: TuningSettings) -> Cost:
    """One run of tuning with its held-out figures."""
    work = OBJECTIVES.get(settings.objective).work(settings)
    rows = settings.steps_at_most * settings.rows_per_step  # each time counted
    looks = 2 + (settings.steps_at_most // settings.evaluation_interval if settings.evaluation_interval else 0)
    read = work.referred * ((settings.train_examples or rows) + settings.heldout_examples)
    read += work.judged * looks * settings.heldout_examples
    written = work.sampled * rows + work.answered * looks * settings.heldout_examples
    sequences = 6.0 * work.trained * rows + 2.0 * (read + SAMPLING * written)
    tokens = rows * work.trained * settings.max_tokens
    return Cost(settings.max_tokens * sequences, 1, settings.steps_at_most, tokens)


def machine_speed(device: torch.device, dtype: torch.dtype, width: int = 1024) -> float:
    """Floating-point operations per second of a product of two square matrices, measured for a moment."""
    one = other = torch.ones(width, width, device=device, dtype=dtype)  # random numbers are the caller's
    float((one @ other).sum())  # the first product also sets things up
    began, products = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < MEASURED_FOR or products < 2:
        float((one @ other)[0, 0])  # read back, so that an accelerator has finished
        products += 1
    return 2.0 * width**3 * products / passed
