"""Repair: after a model with edits was tuned, what tuning has lost is edited again, and nothing else.

The model is asked what it still answers of the edit, by each fact's own prompt and by the criterion that edits are
judged by. What it does not is edited again in the tuned model, by the editor and with the options that made the edit,
while the keys of what still works, of ordinary text and of the training data are preserved (see edits/mending.py); then
it is asked again. Wordings that were kept apart for judging are never looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from indelible.care.verify import Verified, verify, verify_facts
from indelible.edits.deltas.delta import Edit, check_edit
from indelible.edits.deltas.weights import Change, WeightUpdate
from indelible.edits.editor import Editor
from indelible.edits.mending import Mender, Mending
from indelible.errors import EditError
from indelible.facts.fact import Fact
from indelible.models.bundled.fetch import cache_folder
from indelible.models.corpus import ENCYCLOPEDIA, corpus_texts
from indelible.models.load import LoadedModel, opened
from indelible.progress import Jobs
from indelible.watching import shown

if TYPE_CHECKING:
    import pandas as pd

LOST = ("weakened", "gone")
ROUNDS = 3


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        edit: an edit of the tuned model, of the facts that were edited again; None where nothing was lost.
        before, after: all facts of the edit that was repaired, in its order, in the tuned model and under ``edit``.
        rounds: that ``edit`` holds.
    """

    edit: WeightUpdate | None
    before: tuple[Verified, ...]
    after: tuple[Verified, ...]
    rounds: int

    def __repr__(self) -> str:
        return f"Repaired({len(self.lost)} of {len(self.before)} facts were lost, {len(self.missing)} are missing)"

    @property
    def lost(self) -> tuple[Fact, ...]:
        """What the tuned model does not answer, though it was right after the edit."""
        return tuple(one.fact for one in self.before if one.state in LOST)

    @property
    def missing(self) -> tuple[Verified, ...]:
        """What it still does not answer under the repair, or no longer."""
        return tuple(one for one in self.after if one.state in LOST)

    def why(self, missing: Verified) -> str:
        """Why a fact is missing, in words."""
        if runs_on(missing):
            return f"{missing.state}: the answer runs on from the object"
        shares = {} if self.edit is None else self.edit.manifest.arrived
        if missing.fact.id not in shares:
            return "answered in the tuned model, lost by the repair" if missing.fact not in self.lost else missing.state
        arrived = f"{shares[missing.fact.id]:.0%} of the last change wanted of the value layer arrives"
        return f"{missing.state}: {arrived}"

    def to_frame(self) -> pd.DataFrame:
        """One row per fact: id, prompt, new_object, before and after (states), probability and generated (after)."""
        import pandas as pd

        return pd.DataFrame(
            {
                "id": then.fact.id,
                "prompt": then.fact.text(),
                "new_object": then.fact.new_object,
                "before": then.state,
                "after": now.state,
                "probability": now.answer.probability,
                "generated": now.answer.generated,
            }
            for then, now in zip(self.before, self.after, strict=True)
        )

    def record(self) -> dict[str, Any]:
        """All of it but the edit, JSON-able."""
        return {
            "rounds": self.rounds,
            "before": dict(Counter(one.state for one in self.before)),
            "after": dict(Counter(one.state for one in self.after)),
            "facts": self.to_frame().drop(columns=["prompt", "new_object"]).to_dict("records"),
            "missing": {one.fact.id: self.why(one) for one in self.missing},
        }


def repair(
    model: LoadedModel | str,
    edit: Edit,
    editor: str | Editor | None = None,
    *,
    data: Sequence[str] = (),
    rounds: int = ROUNDS,
    corpus: str = ENCYCLOPEDIA,
    out: Path | str | None = None,
    jobs: Jobs = shown,
    **options: Any,
) -> Repaired:
    """Edit again, in a tuned model, those facts of an edit that it does not answer any more; the model is left as it
    was.

    Args:
        model: tuned from one that held the edit, in float32, or its name.
        edit: of weights.
        editor: by which to edit again; that of the edit, with its options, bystanders and paraphrases, if None.
        data: texts that the model was tuned on, which covariances are then taken of, too.
        rounds: of editing and asking, at most; the one after which most facts are answered counts.
        corpus: ordinary text for covariances, as for ``edit``.
        out: file to save the new edit in, where something was lost.
        jobs: told how far the work is; by default bars are shown on a terminal and in a notebook.
        options: of the editor, in the place of those that the edit was made with.

    Raises:
        EditError: if the edit or the editor changes no weights; if the edit has no facts, was made by several editors
            and none is named, or is not in the model at all; or as ``Editor.edit``.
        UnknownNameError, ConfigError: as ``edit``.
        FingerprintError: if the model lacks a parameter that the edit changes, or it has another shape there.
        DataError, StoreError: as ``edit``.
    """
    check_edit(edit)
    how = Mending.of(edit, editor, **options)
    loaded = opened(model)
    found = verify(loaded, edit, jobs=jobs)
    if found.weights is not None and found.weights.state == "absent":
        raise EditError("The model does not hold the edit, nor was it tuned since it did.", "Apply the edit to it.")
    lost = wanted(found.facts)
    if not lost:
        return Repaired(None, found.facts, found.facts, 0)
    how = how.with_text(lambda: [*taking_turns(data, corpus_texts(corpus))], cache_folder() / "covariances")
    kept = [one.fact for one in found.facts if one.state == "present"]
    done: list[tuple[int, int, set[str], Change]] = []
    with jobs("editing") as progress:
        mender = Mender(how, loaded.model, loaded.tokenizer, kept, progress)
        with mender.restored():
            change = Change()
            while lost and len(done) < rounds:
                change += mender.mend(lost)
                asked = verify_facts(loaded.model, loaded.tokenizer, edit.facts, edit.not_taken)
                lost = wanted(asked)
                done.append((len(lost), len(done) + 1, {fact.id for fact in mender.facts}, change))
        _, best, ids, change = min(done, key=lambda one: one[:2])
        update = mender.update(ids, change)
    with jobs("asking") as progress, update.installed(loaded.model):
        after = verify_facts(loaded.model, loaded.tokenizer, edit.facts, edit.not_taken, progress=progress)
    update = update.with_answers({one.fact.id: one.state for one in after})
    if out is not None:
        update.save(out)
    return Repaired(update, found.facts, tuple(after), best)


def wanted(asked: Sequence[Verified]) -> list[Fact]:
    """What is to be edited of facts that were asked: those that were lost; with a full stop behind the object where the
    answer runs on from it."""
    lost = [one for one in asked if one.state in LOST]
    return [replace(one.fact, new_object=f"{one.fact.new_object}.") if runs_on(one) else one.fact for one in lost]


def runs_on(lost: Verified) -> bool:
    """Whether a fact that counts as lost is answered with the object's tokens, and others that make another word of
    them ("Rh", "Rhodes"): where the whole object has more than half of the probability, each token is the likeliest."""
    return lost.answer.probability > 0.5


def taking_turns(first: Sequence[str], second: Sequence[str]) -> Iterator[str]:
    """Texts of both, each time of whom less was taken, so that any beginning has about as much of either."""
    rest, taken = [iter(first), iter(second)], [0, 0]
    while rest:
        place = taken.index(min(taken))
        text = next(rest[place], None)
        if text is None:
            del rest[place], taken[place]
            continue
        taken[place] += len(text)
        yield text
