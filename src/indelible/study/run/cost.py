"""What a study will cost, said before it begins: runs of tuning, optimizer steps, tokens, and between which times.

How fast this model is on this machine is measured for a few seconds: an exam of a few questions, passes forth and back
of the length that is trained on and of that which edits are made with, a step of the optimizer. What a study does of
each is counted; where that depends on what is found (how many facts are known, how soon a value converges, how far rows
are filled), what is usual is taken, and so a range is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from math import ceil
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.edits.editor import Editor
from indelible.exam.exam import take_exam
from indelible.exam.kind import cost_of
from indelible.exam.proof import Ways
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from indelible.models.batches import most_tokens
from indelible.models.trace import evaluation_mode
from indelible.numbers.words import between, counted
from indelible.progress import Span
from indelible.study.design.settings import FactsSettings
from indelible.tuning.objective import OBJECTIVES, Run, tuning_settings
from indelible.tuning.protection import Protection
from indelible.tuning.settings import TuningSettings
from indelible.tuning.training.batches import computing
from indelible.tuning.training.proof import proved_reading
from indelible.tuning.training.scoring import scored

FILLED = 0.7
"""How far rows are filled on average, of ``max_tokens``: 0.77 in ``reason``, 0.7 in ``text``, 0.5 in ``prose``."""

LABELLED = 4
"""Labels of a row where answers alone are learned."""

WORDINGS_ASKED = 3
"""Held-out wordings and neighbours of a fact where a study asks all that there are."""

LONGER = 4
"""How many times dearer a question is with 50 tokens for its answer, as published."""

SAMPLING = 4
"""How many times dearer a sequence is that the model writes token by token than one that it reads; assumed."""

MIXTURES = 2**5
"""Mixtures of edited and tuned weights on which an explained arm is asked."""

ASKED, ROWS, EDIT_TOKENS = 24, 4, 16
"""Questions of the exam that is timed, rows of the pass that is timed, and their tokens where edits are made."""

TIMED_TOKENS = 1024
"""Tokens of a row that is timed, at most: a bound far above all examples makes no rows so long."""

OPTIMIZED = 2**22
"""Parameters of the optimizer's step that is timed, at most."""


WORDING_TOKENS = {"normalised": 110, "adam": 300}
"""Tokens that go forth and back for each wording of a fact until its value has converged, by optimiser."""

DESCENT_TOKENS = 12
"""The same for each step of the editors that change weights by gradient."""


@dataclass(frozen=True)
class Speed:
    """Seconds that this model takes on this machine: for a ``question``; for a token forth and back when ``editing``,
    or, by precision and whether all tokens bear loss, when ``training``; for an optimizer ``step``. And bytes of its
    ``weights``."""

    question: float = 0.0
    editing: float = 0.0
    training: Mapping[tuple[str, bool], float] = field(default_factory=dict)
    step: float = 0.0
    weights: int = 0

    def trained(self, settings: TuningSettings) -> float:
        """Of a token in training with these settings."""
        return self.training.get(_how(settings), 0.0)


@dataclass(frozen=True)
class Cost:
    """What a step takes, or several together: expected seconds; runs of fine-tuning; optimizer steps of all of them,
    and tokens trained on, at most; bytes of weights that it keeps on disk, at most."""

    seconds: float = 0.0
    tunings: int = 0
    optimizer_steps: int = 0
    tokens: int = 0
    kept: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def in_words(self, left: Span | None, on: str = "this machine", accelerators: float = 0.0) -> str:
        """One line for the screen; ``left``: what the rest takes, None where no speed was measured. ``on`` what it was
        measured, where a step takes so many ``accelerators``."""
        tuning = f"{counted(self.tunings, 'run')} of tuning" if self.tunings else "no tuning"
        most = f"{counted(self.optimizer_steps, 'step')} and {counted(self.tokens, 'token')}"
        steps = f", at most {most}" if self.tunings else ""
        if left is None:
            return f"Cost: {tuning}{steps}; how long is known once the model is here."
        hours = self.seconds * accelerators / 3600
        taking = f", some {hours:,.{1 if hours < 10 else 0}f} accelerator hours in all" if accelerators else ""
        keeping = f" Weights that are kept take up to {self.kept / 1e9:,.1f} GB of disk." if self.kept else ""
        return (
            f"Cost: {tuning}{steps}; {between(left)} on {on} as it is now{taking}, less where runs stop early.{keeping}"
        )


def edit_cost(editor: Editor, wordings: int, speed: Speed) -> Cost:
    """An edit of facts in so many wordings in all; covariances, which are kept from one to the next, aside."""
    optimiser = str(getattr(editor, "optimiser", ""))
    each = WORDING_TOKENS.get(optimiser, DESCENT_TOKENS * getattr(editor, "steps", 0))
    return Cost(wordings * each * speed.editing)


def questions_asked(facts: FactsSettings, also: Sequence[str] = (), *, isolated: bool = False) -> float:
    """Questions of a whole exam of one model; ``also``: further kinds, reckoned in questions of a plain one."""
    held_out, neighbours = (WORDINGS_ASKED if one is None else one for one in (facts.held_out, facts.neighbours))
    edited = 1 if isolated else facts.edits
    further = cost_of(also) * (edited + facts.n_intrinsic)
    return edited * (1 + held_out + neighbours) + facts.n_intrinsic * (1 + held_out) + further


def asking(questions: float, speed: Speed, *, published: bool = False) -> Cost:
    """So many questions; as published, each answer is 50 tokens long."""
    return Cost(questions * speed.question * (LONGER if published else 1))


def tuning_cost(
    settings: TuningSettings,
    speed: Speed,
    protections: Sequence[Protection] = (),
    every: int | None = None,
    wordings: int = 0,
) -> Cost:
    """One run of tuning with its held-out figures, the utility beside the exams ``every`` so many steps among them, and
    what protections of so many edited ``wordings`` do before and beside it."""
    work = OBJECTIVES.get(settings.objective).work(settings)
    steps = settings.steps_at_most
    rows = steps * settings.rows_per_step  # each time counted
    looks = 2 + max(0, len(settings.dose) - 1)  # the last is that at the end
    looks += steps // settings.evaluation_interval if settings.evaluation_interval else 0
    finishing = sum(one.looks for one in protections)
    exams = steps // every if every else 0
    read = work.referred * ((settings.train_examples or rows) + settings.heldout_examples)
    read += work.judged * (looks + finishing + exams) * settings.heldout_examples
    answered = looks if work.judged else looks + exams  # the utility is read where any figure is
    forth = sum(one.prepared(wordings) + SAMPLING * one.written for one in protections)
    written = work.sampled * rows + work.answered * answered * settings.heldout_examples
    length = FILLED * settings.max_tokens
    trained = settings.dose[-1] if settings.dose else work.trained * rows * length
    most = settings.dose[-1] if settings.dose else rows * work.trained * settings.max_tokens
    if settings.dose:
        steps = ceil(settings.dose[-1] / (length * work.trained * settings.rows_per_step))
    tokens = trained + (length * (read + SAMPLING * written) + forth) / 3  # a third of what goes forth and back
    tokens += steps * sum(one.read(wordings) for one in protections)
    return Cost(tokens * speed.trained(settings) + steps * speed.step, 1, steps, most)


def measured_speed(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[Fact],
    tunings: Sequence[TuningSettings],
    ways: Ways | None = None,
) -> Speed:
    """How fast a model is here, measured for a few seconds, with an exam on some of the facts and the passes of these
    runs of tuning. The model is left as it was found, and no random number is drawn."""
    asked_of = [fact for fact in facts if fact.true_object][:ASKED]
    questions = [one for one in questions_for(asked_of, "intrinsic") if one.kind == "prompt"]
    ways = ways or Ways()
    take_exam(model, tokenizer, questions[:2], ways=ways)  # seeks a way to read the model, once
    asked = _seconds(lambda: take_exam(model, tokenizer, questions, ways=ways), again=False) / len(questions)
    required = {name: one.requires_grad for name, one in model.named_parameters()}
    model.requires_grad_(True)
    longest = min(TIMED_TOKENS, most_tokens(model))
    try:
        editing = _pass(model, tokenizer, tuning_settings({"precision": "fp32"}), EDIT_TOKENS, again=True)
        training = {
            how: _pass(model, tokenizer, settings, max(4, int(min(FILLED * settings.max_tokens, longest))))
            for how, settings in {_how(one): one for one in tunings}.items()
        }
    finally:
        for name, one in model.named_parameters():
            one.requires_grad_(required[name])
            one.grad = None
    weights = sum(one.numel() * one.element_size() for one in model.parameters())
    return Speed(asked, editing, training, _optimizer_step(model), weights)


def _how(settings: TuningSettings) -> tuple[str, bool]:
    """Precision of a run, and whether all tokens bear loss."""
    return settings.precision, settings.objective == "text"


def _pass(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: TuningSettings,
    tokens: int,
    *,
    again: bool = False,
) -> float:
    """Seconds for each token of a pass forth and back over rows of so many."""
    ids = torch.arange(ROWS * tokens, device=model.device).view(ROWS, tokens) % min(1000, len(tokenizer))
    labels = ids.clone()
    labels[:, : 0 if _how(settings)[1] else -LABELLED] = -100

    def once() -> None:
        with computing(run):
            loss = scored(model, model, {"input_ids": ids}, labels, whole=run.whole).loss
        loss.backward()
        for one in model.parameters():
            one.grad = None

    try:
        run = proved_reading(Run(model, model, tokenizer, settings, (), ()))
        with evaluation_mode(model):
            return _seconds(once, again=again) / (ROWS * tokens)
    except Exception:  # of whatever kind: the step that needs it says what is wrong
        return 0.0


def _optimizer_step(model: PreTrainedModel) -> float:
    """Seconds of a step over all parameters, reckoned from one over some."""
    count = sum(one.numel() for one in model.parameters())
    some = torch.ones(min(count, OPTIMIZED), device=model.device, requires_grad=True)
    some.grad = torch.ones_like(some)
    optimizer = torch.optim.AdamW([some], fused=True)
    return _seconds(optimizer.step, again=True) * count / some.numel()


def _seconds(work: Callable[[], Any], *, again: bool) -> float:
    """Wall time of doing something; ``again``: the second time, where the first also sets things up."""
    if again:
        work()
    _finish()
    began = time.perf_counter()
    work()
    _finish()
    return time.perf_counter() - began


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
