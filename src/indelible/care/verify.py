"""Is an edit still there: how much of it is in the weights, and which of its facts does the model still answer?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Literal

from indelible.care.junit import Case
from indelible.edits.deltas.delta import Edit, check_edit
from indelible.edits.deltas.seal import Remains
from indelible.edits.deltas.weights import WeightUpdate
from indelible.exam.exam import Answer, take_exam
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from indelible.models.layout import find_layout
from indelible.models.load import LoadedModel, opened
from indelible.numbers.words import finite
from indelible.progress import Jobs, Progress
from indelible.watching import shown

if TYPE_CHECKING:
    import pandas as pd
    from transformers import PreTrainedModel

FactState = Literal["present", "weakened", "gone", "not taken"]


@dataclass(frozen=True)
class Verified:
    """What a model says of an edited fact, with all numbers of the exam.

    The state is "present" where free generation begins with the new object; "weakened" where it does not, but the model
    still finds the new object more probable than the true one; "not taken" where neither the model nor the edit, right
    after it was made, answers the fact: nothing has been lost; "gone" otherwise.
    """

    fact: Fact
    state: FactState
    answer: Answer
    held_out: tuple[Answer, ...] = ()
    """To the wordings that no edit had seen, where they were asked; the state is of the fact's own prompt alone."""

    def __repr__(self) -> str:
        return f"Verified({self.fact.id!r}: {self.told})"

    @property
    def told(self) -> str:
        """The state, and what the model says."""
        return f"{self.state}: {self.fact.new_object!r} is expected, the model says {self.answer.generated.strip()!r}"


@dataclass(frozen=True)
class Verification:
    """What is left of an edit of some kind in a model: of its facts, in its order, and of a delta in the weights, also
    as a sentence (``in_words``). ``weights`` is None for an edit that changes none, which was put in place to ask."""

    kind: str
    facts: tuple[Verified, ...]
    weights: Remains | None
    in_words: str

    def __repr__(self) -> str:
        counts = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        weights = "" if self.weights is None else f"; weights: {self.weights.state}"
        return f"Verification({counts}{weights})"

    @property
    def counts(self) -> Counter[str]:
        """How many facts are in each state."""
        return Counter(one.state for one in self.facts)

    @property
    def held_out(self) -> list[Answer]:
        """Answers to all held-out wordings."""
        return [answer for one in self.facts for answer in one.held_out]

    def passes(self, require: float | None = None) -> bool:
        """Whether the edit counts as still there, for whoever lets a pipeline depend on it.

        Args:
            require: the share of facts, of those that were taken, that must be present; None: none may be gone.
        """
        if require is None:
            return not self.counts["gone"]
        taken = len(self.facts) - self.counts["not taken"]
        return taken > 0 and self.counts["present"] / taken >= require

    def cases(self, require: float | None = None) -> list[Case]:
        """A test case per fact; what is gone (and what is weakened, where a share is required; and what was not taken,
        where nothing was) fails where the edit does not pass, as for ``passes``."""
        lost = {"gone"} if require is None else {"gone", "weakened"}
        if self.counts["not taken"] == len(self.facts):
            lost.add("not taken")
        passes = self.passes(require)
        return [
            Case(one.fact.text(), "" if one.state == "present" else one.told, one.state in lost and not passes)
            for one in self.facts
        ]

    def to_frame(self) -> pd.DataFrame:
        """One row per fact: id, prompt, new_object, state, probability (of the new object), margin, generated."""
        import pandas as pd

        return pd.DataFrame(
            {
                "id": one.fact.id,
                "prompt": one.fact.text(),
                "new_object": one.fact.new_object,
                "state": one.state,
                "probability": one.answer.probability,
                "margin": one.answer.margin,
                "generated": one.answer.generated,
            }
            for one in self.facts
        )

    def record(self) -> dict[str, Any]:
        """All of it, JSON-able: a number that is none is None, as a margin where a fact has no true object."""
        weights = None
        if self.weights is not None:
            shares = {name: finite(share) for name, share in self.weights.shares.items()}
            more = {"shares": shares, "share": finite(self.weights.share), "state": self.weights.state}
            weights = {**asdict(self.weights), **more}
        facts = [
            {"id": one.fact.id, "new_object": one.fact.new_object, "state": one.state}
            | {**_said(one.answer), "held_out": [{**_said(other), "success": other.success} for other in one.held_out]}
            for one in self.facts
        ]
        return {"weights": weights, "facts": facts, "counts": dict(self.counts)}


def verify(model: LoadedModel | str, edit: Edit, *, jobs: Jobs = shown) -> Verification:
    """Say how much of an edit is in a model, and which of its facts the model still answers.

    Args:
        model: any of the edit's kind, or its name: edited, trained since, or untouched; left as it was.
        edit: the edit; one that changes no weights is put in place to ask.
        jobs: told how far the asking is; by default a bar is shown on a terminal and in a notebook.

    Raises:
        FingerprintError: if the model lacks a parameter that the edit changes, or it has another shape there.
        FactsError: if a prompt or an object has no tokens.
    """
    check_edit(edit)
    loaded = opened(model)
    weights = edit.presence(loaded.model) if isinstance(edit, WeightUpdate) else None
    in_place = edit.installed(loaded.model) if weights is None else nullcontext()
    with in_place, jobs("asking") as progress:
        facts = verify_facts(
            loaded.model,
            loaded.tokenizer,
            edit.facts,
            edit.not_taken,
            context=edit.context,
            held_out=True,
            progress=progress,
        )
    if weights is None:
        in_words = f"none are changed by a {edit.kind}; it was put in place to ask"
    else:
        in_words = _in_words(weights, loaded.model)
    return Verification(edit.kind, tuple(facts), weights, in_words)


def verify_facts(
    model: Any,
    tokenizer: Any,
    facts: Sequence[Fact],
    not_taken: Collection[str] = (),
    *,
    context: str = "",
    held_out: bool = False,
    progress: Progress | None = None,
) -> list[Verified]:
    """Ask each fact's own prompt, behind the edit's context, by the criterion that edits are judged by; ``held_out``
    asks its held-out wordings, too. ``not_taken`` are ids of facts that were not answered right after the edit; the
    rest is as for ``take_exam``."""
    kinds = ("prompt", "paraphrase") if held_out else ("prompt",)
    asked = [
        [question for question in questions_for([fact], "edited", context=context) if question.kind in kinds]
        for fact in facts
    ]
    answers = iter(take_exam(model, tokenizer, list(chain.from_iterable(asked)), progress=progress))
    found = []
    for fact, questions in zip(facts, asked, strict=True):
        own, *others = islice(answers, len(questions))
        found.append(Verified(fact, _state(own, fact.id in not_taken), own, tuple(others)))
    return found


def _said(answer: Answer) -> dict[str, Any]:
    numbers = {"probability": finite(answer.probability), "margin": finite(answer.margin)}
    return {"prompt": answer.question.prompt, **numbers, "generated": answer.generated}


def _state(answer: Answer, not_taken: bool) -> FactState:
    if answer.success:
        return "present"
    if not_taken:
        return "not taken"
    return "weakened" if answer.margin > 0 else "gone"


def _in_words(weights: Remains, model: PreTrainedModel) -> str:
    if weights.state == "exact":
        return "the delta is in them, bit for bit, and nothing else was done to these parameters"
    if weights.state == "absent":
        return "the delta is not in them: these parameters are bit for bit as before the edit"
    if weights.state != "partly":
        return (
            "neither as the edit left them nor as before: another delta, training or another precision changed them;"
            f" projection on the delta {weights.share:.1%} (100% all of it, 0% nothing)"
        )
    # layers, or parameters where one layer has both
    layer_of = find_layout(model).layer_of
    inside, outside = (
        [name for name, found in weights.states.items() if found == state] for state in ("exact", "absent")
    )
    layers = [{layer_of(name) for name in names} for names in (inside, outside)]
    if None in layers[0] | layers[1] or layers[0] & layers[1]:
        return f"partly: in {', '.join(inside)}, not in {', '.join(outside)}"
    told = [", ".join(str(layer) for layer in sorted(those, key=lambda layer: layer or 0)) for those in layers]
    return f"partly: in layers {told[0]}, not in layers {told[1]}"
