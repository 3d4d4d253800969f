"""What a study will cost, said before it begins: runs of tuning, optimizer steps, tokens, and roughly how long.

The time is arithmetic over this machine's measured speed: a token costs 2 operations per parameter on the way forward
and 4 on the way back (Kaplan et al., arXiv 2001.08361, section 2.1), and about half of the speed of a plain matrix
product is reached. It is an upper end: rows are mostly shorter than ``max_tokens``, and a run may stop early.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

import torch

from indelible.analysis.tables import duration
from indelible.study.config import FactsSettings
from indelible.study.plan import Step
from indelible.tuning.settings import TuningSettings

REACHED = 0.5
"""Share of a matrix product's speed that whole passes over a model reach."""

QUESTION_TOKENS = 24
"""Tokens that go through the model for one question: a prompt and a short answer."""

FACT_TOKENS = 100
"""Tokens that go forth and back for each wording of a fact that is edited: some 25 steps over the end of a sentence."""

WORDINGS_ASKED = 3
"""Held-out wordings and neighbours of a fact where a study asks all that there are."""

MEASURED_FOR = 0.3
"""Seconds for which a matrix product is timed."""


@dataclass(frozen=True)
class Cost:
    """What is still to be done.

    Attributes:
        tunings: runs of fine-tuning.
        optimizer_steps: of all of them together, at most.
        tokens: trained on, at most.
        operations: floating-point operations per parameter, of tuning and of the rest.
    """

    tunings: int
    optimizer_steps: int
    tokens: int
    operations: float

    def seconds(self, parameters: int, speed: float) -> float:
        """Roughly how long it takes.

        Args:
            parameters: of the model.
            speed: floating-point operations per second of a matrix product on the machine.
        """
        return self.operations * parameters / (REACHED * speed)

    def in_words(self, seconds: float | None) -> str:
        """One line for the screen."""
        tuning = "no tuning" if not self.tunings else f"{self.tunings} run{'s' if self.tunings > 1 else ''} of tuning"
        steps = f", at most {self.optimizer_steps:,} steps and {self.tokens:,} tokens" if self.tunings else ""
        if seconds is None:
            return f"Cost: {tuning}{steps}; how long is known once the model is here."
        return f"Cost: {tuning}{steps}; roughly {duration(seconds)} on this machine, less where runs stop early."


def cost_of(waiting: Iterable[Step], facts: FactsSettings) -> Cost:
    """What the steps will cost that are not done yet.

    Args:
        waiting: those steps.
        facts: how many are edited and asked.
    """
    tunings = optimizer_steps = tokens = 0
    operations = 0.0
    each = 1 + sum(WORDINGS_ASKED if limit is None else limit for limit in (facts.held_out, facts.neighbours))
    questions = facts.n_edits * each + facts.n_intrinsic * each
    exam = 2.0 * QUESTION_TOKENS * questions
    for step in waiting:
        if step.kind == "tune":
            settings = TuningSettings(**step.options["tuning"])
            steps = settings.steps_at_most
            of_step = settings.rows_per_step * settings.max_tokens
            looks = 2 + (steps // settings.evaluation_interval if settings.evaluation_interval else 0)
            points = steps // step.options["every"] if step.options["every"] else 0
            tunings, optimizer_steps, tokens = tunings + 1, optimizer_steps + steps, tokens + steps * of_step
            operations += 6.0 * steps * of_step + 2.0 * looks * settings.heldout_examples * settings.max_tokens
            operations += exam + points * exam / each
        elif step.kind == "edit":
            operations += 6.0 * FACT_TOKENS * facts.n_edits * (1 + step.options["paraphrases"])
        elif step.kind == "explain":
            operations += 2**5 * exam / each
        elif step.kind in ("base-probe", "edited-probe", "select"):
            operations += exam
    return Cost(tunings, optimizer_steps, tokens, operations)


def machine_speed(device: torch.device, dtype: torch.dtype, width: int = 1024) -> float:
    """Floating-point operations per second of a product of two matrices, measured for a moment.

    Args:
        device: where the model will be.
        dtype: that its products are formed in.
        width: of the matrices.
    """
    one = other = torch.ones(width, width, device=device, dtype=dtype)  # random numbers are the caller's
    float((one @ other).sum())  # the first product also sets things up
    began, products = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < MEASURED_FOR or products < 2:
        float((one @ other)[0, 0])  # read back, so that an accelerator has finished
        products += 1
    return 2.0 * width**3 * products / passed
