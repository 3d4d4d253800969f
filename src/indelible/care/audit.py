"""Audit: what is left of edited facts in a checkpoint, and what became of the rest, whoever made it and with what tool.

Up to three checkpoints answer one exam: the model before the edit (base), with the edit, and as it is now (tuned).
Edits and facts that the model knew of old are counted alike, so that an edit that is gone can be told from a model that
is damaged. Without the edited model (or the base and a delta, which make it), or with the tuned model alone, less can
be said, and no more than that is said.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import pandas as pd

from indelible.care.junit import Case
from indelible.care.weights.difference import Difference, diff
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.seal import Remains
from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import ConfigError, EditError, FactsError
from indelible.exam.criterion import succeeds
from indelible.exam.exam import answers_frame, take_exam
from indelible.exam.known import facts_known_to
from indelible.exam.questions import Question, questions_for
from indelible.facts.fact import Fact
from indelible.models.load import LoadedModel, opened
from indelible.numbers.answers import Answers
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES
from indelible.numbers.words import finite
from indelible.progress import Jobs
from indelible.watching import shown

Phase = Literal["base", "edited", "tuned"]
FactState = Literal["kept", "old answer", "another answer", "not taken"]
REQUIRED = 0.9
"""Share of the edits that has to be there."""
WHOLE = 0.9
"""Share of what the model knew of old that an undamaged one keeps, whatever is required of the edits."""
N_INTRINSIC = 60
_SHOWN = (
    *("retention_edited", "retention_paraphrase", "retention_intrinsic", "retention_intrinsic_base"),
    *("retention_neighbour", "gap", "gap_base", "excess_loss"),
)


@dataclass(frozen=True)
class Audited:
    """What became of one edited fact: "kept"; lost to its "old answer" (the true object) or to "another answer"; or
    "not taken", where the edited model did not answer it either. ``said`` is what each checkpoint said, by phase."""

    fact: Fact
    state: FactState
    said: Mapping[str, str]

    def __repr__(self) -> str:
        return f"Audited({self.fact.id!r}: {_told(self)})"


@dataclass(frozen=True)
class Audit:
    """What was found.

    Attributes:
        rows: every answer, as in a study's facts.parquet (its ``phase`` is the checkpoint).
        facts: the edited facts, in their order.
        remains: how much of the delta is in the tuned weights, where one was given.
        moved: where the weights moved between the checkpoint before (edited, or else base) and the tuned one.
        required: the share of the edits that has to be kept.
    """

    rows: pd.DataFrame
    facts: tuple[Audited, ...]
    remains: Remains | None
    moved: Difference | None
    required: float = REQUIRED

    def __repr__(self) -> str:
        return f"Audit({self.verdict})"

    @cached_property
    def estimates(self) -> dict[str, Estimate]:
        """Measures by name (see `numbers.measures`), with 95% intervals over facts; those that can be formed."""
        arm = Answers(self.rows.assign(editor="unknown" if self._has("edited") else "none"))
        found = {name: arm.replicates.of("audit", MEASURES.get(name)) for name in _SHOWN}
        return {name: one for name, one in found.items() if one.value is not None}

    @property
    def answered(self) -> tuple[int, int]:
        """Edited facts that the tuned model answers, and those that could be expected: all that were taken."""
        taken = [one for one in self.facts if one.state != "not taken"]
        return sum(one.state == "kept" for one in taken), len(taken)

    @property
    def passes(self) -> bool:
        """Whether enough edits are there."""
        kept, of = self.answered
        return of > 0 and kept / of >= self.required

    @property
    def verdict(self) -> str:
        """A sentence that tells an edit that is gone from a model that is damaged."""
        kept, of = self.answered
        if not of:
            return "Nothing can have been lost: the edited model answers none of the facts."
        edits = f"{kept} of {of} edits {'hold' if self.passes else 'are left'}"
        since = "_base" if self._has("base") else ""  # what the edit itself damaged counts, too
        known = self.estimates.get(f"retention_intrinsic{since}")
        if known is None or known.value is None:
            if self._has("base") or self._has("edited"):
                return f"{edits}; what else the model lost cannot be told: it knew none of the facts asked before."
            return f"{edits}; what else the model lost cannot be told without a checkpoint from before."
        if known.value >= WHOLE:
            return f"{edits}, and what the model knew of old is kept{'' if self.passes else ': the edit is gone'}."
        if self.passes:
            return f"{edits}, but the model is damaged: of what it knew of old {known.value:.0%} is kept."
        gap = self.estimates.get(f"gap{since}")
        if gap is not None and gap.low is not None and gap.low > 0:
            return f"{edits}, fewer than of what the model knew of old ({known.value:.0%}), which is damaged as well."
        return (
            f"{edits}, but they are not lost alone: the model is damaged, {known.value:.0%} of old knowledge is kept."
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per edited fact: id, prompt, new_object, state, and what each checkpoint said."""
        return pd.DataFrame(_line(one) for one in self.facts)

    def cases(self) -> list[Case]:
        """A test case per fact; what is lost fails where too few are kept, and what was not taken where nothing was."""
        passes, (_, of) = self.passes, self.answered
        return [
            Case(
                one.fact.text(),
                "" if one.state == "kept" else _told(one),
                not passes and (one.state != "not taken" or not of),
            )
            for one in self.facts
        ]

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able."""
        figures = {name: {"value": one.value, "low": one.low, "high": one.high} for name, one in self.estimates.items()}
        return {
            "verdict": self.verdict,
            "passes": self.passes,
            "estimates": figures,
            "delta_share": None if self.remains is None else finite(self.remains.share),
            "moved": None if self.moved is None else self.moved.by_layer(),
            "facts": [_line(one) for one in self.facts],
        }

    def _has(self, phase: Phase) -> bool:
        return bool((self.rows["phase"] == phase).any())


def audit(
    tuned: LoadedModel | str,
    facts: Sequence[Fact] = (),
    *,
    edited: LoadedModel | str | None = None,
    base: LoadedModel | str | None = None,
    delta: Edit | None = None,
    intrinsic: Sequence[Fact] | None = None,
    required: float = REQUIRED,
    seed: int = 0,
    jobs: Jobs = shown,
) -> Audit:
    """Ask checkpoints about edited facts and about what the model knew of old.

    Args:
        tuned: the model as it is now, or its name; a folder with an adapter alone is merged into its model.
        facts: that were edited, each with its new object; those of the delta by default.
        edited: the model right after the edit; by default the base with the delta in it, if both are given.
        base: the model before the edit.
        delta: the edit, where this project made it.
        intrinsic: facts that the model knew before, of which those are asked that are about other subjects and that
            the earliest checkpoint answers; by default the first 60 such built-in ones. None are asked where the tuned
            model alone is given.
        required: see ``Audit``.
        seed: of the built-in facts' order.
        jobs: told how far the work is; by default bars are shown on a terminal and in a notebook.

    Two of the models are held at once.

    Raises:
        FactsError: without facts, if one has no new object, two have one id, or the model knows none of the intrinsic
            ones given.
        EditError: if the delta changes no weights.
        ConfigError: if ``tuned`` is the very model in which the delta is put to have the edited one.
        FingerprintError: if the delta fits the base or the tuned model not.
        ModelError: if checkpoints have no parameter in common.
    """
    facts = facts or (delta.facts if delta is not None else ())
    _check(facts, intrinsic or (), delta, required)
    loaded = [one.model for one in (base, tuned) if isinstance(one, LoadedModel)]
    if edited is None and delta is not None and len(loaded) == 2 and loaded[0] is loaded[1]:
        raise ConfigError("The tuned model is the base, in which the delta is put to ask.", "Load one of them twice.")
    parts: list[pd.DataFrame] = []
    asked = questions_for(facts, "edited")
    known: list[Fact] | None = None
    held: list[LoadedModel] = []
    with ExitStack() as stack:
        for phase in _before(base, edited, delta, held, stack):
            if known is None:
                with jobs("looking for what it knows") as progress:
                    about = {fact.subject for fact in facts}
                    enough = N_INTRINSIC if intrinsic is None else len(intrinsic)
                    known = facts_known_to(
                        held[0], intrinsic, enough=enough, seed=seed, but_about=about, progress=progress
                    )
                asked += questions_for(known, "intrinsic")
            parts.append(_asked(held[0], phase, asked, jobs))
        now = opened(tuned)
        parts.append(_asked(now, "tuned", asked, jobs))
        remains = delta.presence(now.model) if isinstance(delta, WeightUpdate) else None
        moved = diff(held[0], now, jobs=jobs) if held else None
    rows = pd.concat(parts, ignore_index=True).assign(arm="audit", seed=0, copy=0, step=0)
    return Audit(rows, tuple(_facts(facts, rows)), remains, moved, required)


def _check(facts: Sequence[Fact], intrinsic: Sequence[Fact], delta: Edit | None, required: float) -> None:
    if not facts:
        raise FactsError("There are no facts to ask.", "Give a file of facts, or the delta that holds them.")
    for fact in facts:
        if fact.new_object is None:
            raise FactsError(f"The fact {fact.id!r} has no new object.", "Give new_object for every edited fact.")
    for part in (facts, intrinsic):
        for name, count in Counter(fact.id for fact in part).items():
            if count > 1:
                raise FactsError(f"Two facts have the id {name!r}.", "Give each an id of its own.")
    if delta is not None and not isinstance(delta, WeightUpdate):
        raise EditError(f"A {delta.kind} changes no weights: there is nothing of it in a checkpoint.", "Use verify.")
    if not 0 <= required <= 1:
        raise ConfigError(f"required is {required}.", "Give a share from 0 to 1.")


def _before(
    base: LoadedModel | str | None,
    edited: LoadedModel | str | None,
    delta: Edit | None,
    held: list[LoadedModel],
    stack: ExitStack,
) -> Iterator[Phase]:
    """The phases before tuning, each when its checkpoint is the one that is held; a delta that makes the edited model
    of the base stays in it until the stack is closed."""
    if base is not None:
        held.append(opened(base))
        yield "base"
    if edited is not None:
        held.clear()  # before the next is loaded
        held.append(opened(edited))
        yield "edited"
    elif held and delta is not None:
        stack.enter_context(delta.applied(held[0].model))
        yield "edited"


def _asked(model: LoadedModel, phase: Phase, questions: Sequence[Question], jobs: Jobs) -> pd.DataFrame:
    with jobs(f"asking the {phase} model") as progress:
        answers = take_exam(model.model, model.tokenizer, questions, progress=progress)
    return answers_frame(answers).assign(phase=phase)


def _facts(facts: Sequence[Fact], rows: pd.DataFrame) -> Iterator[Audited]:
    own = rows[(rows["fact_set"] == "edited") & (rows["kind"] == "prompt")]
    answers: dict[str, dict[str, tuple[str, bool]]] = {fact.id: {} for fact in facts}
    for fact_id, phase, generated, success in zip(
        own["fact_id"], own["phase"], own["generated"], own["success"], strict=True
    ):
        answers[fact_id][phase] = generated, bool(success)
    for fact in facts:
        of_fact = answers[fact.id]
        yield Audited(fact, _state(fact, of_fact), {phase: said for phase, (said, _) in of_fact.items()})


def _state(fact: Fact, answers: Mapping[str, tuple[str, bool]]) -> FactState:
    generated, right = answers["tuned"]
    if right:
        return "kept"
    if "edited" in answers and not answers["edited"][1]:
        return "not taken"
    return "old answer" if fact.true_object and succeeds(generated, fact.true_object) else "another answer"


def _told(one: Audited) -> str:
    return f"{one.state}: {one.fact.new_object!r} is expected, the model says {one.said['tuned'].strip()!r}"


def _line(one: Audited) -> dict[str, Any]:
    about = {"id": one.fact.id, "prompt": one.fact.text(), "new_object": one.fact.new_object, "state": one.state}
    return about | dict(one.said)
