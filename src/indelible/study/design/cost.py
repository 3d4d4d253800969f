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
from indelible.study.design.plan import Plan, Step
from indelible.study.design.settings import FactsSettings
from indelible.study.run.exams import PUBLISHED_TOKENS
from indelible.tuning.objective import OBJECTIVES, Work, tuning_settings
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

MEASURED_FOR = 0.3
"""Seconds for which a matrix product is timed."""


@dataclass(frozen=True)
class Cost:
    """What a step takes, or several of them together.

    Attributes:
        operations: floating-point operations per parameter.
        tunings: runs of fine-tuning.
        optimizer_steps: of all of them together, at most.
        tokens: trained on, at most.
    """

    operations: float = 0.0
    tunings: int = 0
    optimizer_steps: int = 0
    tokens: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, field.name) + getattr(other, field.name) for field in fields(self)))

    def seconds(self, parameters: int, speed: float) -> float:
        """Roughly how long it takes.

        Args:
            parameters: of the model.
            speed: floating-point operations per second of a matrix product on the machine.
        """
        return self.operations * parameters / (REACHED * speed)

    def in_words(self, seconds: float | None) -> str:
        """One line for the screen."""
        tuning = f"{counted(self.tunings, 'run')} of tuning" if self.tunings else "no tuning"
        most = f"{counted(self.optimizer_steps, 'step')} and {counted(self.tokens, 'token')}"
        steps = f", at most {most}" if self.tunings else ""
        if seconds is None:
            return f"Cost: {tuning}{steps}; how long is known once the model is here."
        return f"Cost: {tuning}{steps}; roughly {duration(seconds)} on this machine, less where runs stop early."


def cost_of(step: Step, plan: Plan, facts: FactsSettings) -> Cost:
    """What a step will cost.

    Args:
        step: the step.
        plan: that it is in.
        facts: how many are edited and asked.
    """
    each = 1 + sum(WORDINGS_ASKED if limit is None else limit for limit in (facts.held_out, facts.neighbours))
    isolated = _isolated(step, plan)
    # Each fact's own prompt, of those that one model is asked.
    prompts = 2.0 * _question_tokens(step) * ((1 if isolated else facts.n_edits) + facts.n_intrinsic)
    if step.kind == "tune":
        settings = tuning_settings(step.options["tuning"])
        points = settings.steps_at_most // step.options["every"] if step.options["every"] else 0
        tokens = _rows(settings) * _work(settings).trained * settings.max_tokens
        operations = _tuning_operations(settings) + (each + points) * prompts
        return Cost(operations, 1, settings.steps_at_most, tokens)
    if step.kind == "edit":
        return Cost(6.0 * FACT_TOKENS * facts.n_edits * (1 + step.options["paraphrases"]))
    if step.kind == "explain":
        return Cost(2**5 * prompts)
    if step.kind == "bystanders":
        return Cost()
    return Cost((facts.n_edits if isolated else 1) * each * prompts)


def _isolated(step: Step, plan: Plan) -> bool:
    """Whether the step asks models in each of which one fact is edited."""
    if step.kind == "edited-probe":
        return bool(plan.step(step.inputs["edit"]).options.get("isolated", False))
    return "copy" in step.options


def _question_tokens(step: Step) -> int:
    return QUESTION_TOKENS + (PUBLISHED_TOKENS if step.options.get("as_published") else 0)


def _work(settings: TuningSettings) -> Work:
    return OBJECTIVES.get(settings.objective).work(settings)


def _rows(settings: TuningSettings) -> int:
    """Rows that are trained on, at most, each time counted."""
    return settings.steps_at_most * settings.rows_per_step


def _tuning_operations(settings: TuningSettings) -> float:
    """Operations per parameter of one run of tuning with its held-out figures."""
    work, rows = _work(settings), _rows(settings)
    looks = 2 + (settings.steps_at_most // settings.evaluation_interval if settings.evaluation_interval else 0)
    read = work.referred * ((settings.train_examples or rows) + settings.heldout_examples)
    read += work.judged * looks * settings.heldout_examples
    written = work.sampled * rows + work.answered * looks * settings.heldout_examples
    sequences = 6.0 * work.trained * rows + 2.0 * (read + SAMPLING * written)
    return settings.max_tokens * sequences


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
