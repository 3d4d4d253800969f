"""Facts edited again where a model has lost them: by the editor that made the edit, in the model as it stands now.

What still works is left alone by what editors have for that already: of an editor that keeps keys of earlier edits
(AlphaEdit) it is earlier, to the other closed forms it is a bystander. Editors by gradient preserve nothing, so that it
is among their facts. What is edited again stays among them when more is lost later: where it is right no change is
wanted, which holds it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.edits.beside.hook import adapters_in
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import Change, WeightUpdate, add_difference, restored
from indelible.edits.editor import EDITORS, Editor, Surroundings, at_work, check_editable, not_alone, workbench
from indelible.edits.solving.closed_form import ClosedFormEditor
from indelible.edits.solving.keys import subject_keys
from indelible.edits.solving.texts import bare_row
from indelible.edits.weight_editor import Changer, WeightEditor
from indelible.errors import EditError
from indelible.facts.fact import Fact
from indelible.facts.world import world_facts
from indelible.files import scratch_folder
from indelible.models.batches import in_pieces
from indelible.models.layout import Layout
from indelible.progress import Progress
from indelible.validation import validated


@dataclass(frozen=True)
class Mending:
    """How facts of an edit are edited again.

    Attributes:
        facts: of the edit.
        paraphrases: with how many each was edited, and is again.
        bystanders: facts whose subjects are left alone, beside those of the edit that still work.
        corpus: ordinary text for covariances.
        cache: folder to keep covariances in.
    """

    editor: WeightEditor
    facts: tuple[Fact, ...]
    paraphrases: int = 0
    bystanders: tuple[Fact, ...] = ()
    corpus: Sequence[str] = ()
    seed: int = 0
    cache: Path | None = None

    @classmethod
    def of(cls, edit: Edit, editor: str | Editor | None = None, **options: Any) -> Self:
        """As the edit was made, or by another editor; without text, and of its bystanders with those that are built in,
        for an edit has their names alone.

        Raises:
            EditError: if the edit, or the editor, changes no weights; if the edit has no facts, or was made by several
                editors.
            UnknownNameError, ConfigError: an editor or an option that does not exist, or a value that it cannot have.
        """
        if not isinstance(edit, WeightUpdate):
            raise EditError(
                f"A {edit.kind} changes no weights: it is put in place for each use, and not edited again.",
                "Give a delta of weights.",
            )
        if not edit.facts:
            raise EditError("The delta has no facts.", "Give one that `indelible edit` wrote.")
        made = edit.manifest.made
        if editor is None:
            if len({one.editor for one in made}) > 1:
                raise EditError(f"The delta was made by {edit.manifest.editor}.", "Name the editor that is to mend it.")
            name, given = made[-1].editor, made[-1].options
        else:
            name, given = (editor.name, editor.given()) if isinstance(editor, Editor) else (editor, {})
        found = validated(EDITORS.get(name), {**given, **options}, "")
        if not isinstance(found, WeightEditor):
            raise EditError(f"{name!r} changes no weights, so that nothing is mended by it.", "Name another editor.")
        named = set(edit.manifest.bystanders)
        bystanders = tuple(fact for fact in world_facts() if fact.id in named) if named else ()
        paraphrases = max(one.paraphrases for one in made)
        return cls(found, tuple(edit.facts), paraphrases, bystanders, seed=made[-1].seed)

    def with_text(self, corpus: Callable[[], Sequence[str]], cache: Path | None = None) -> Self:
        """The same with the text that covariances are taken of, where the editor takes any."""
        return replace(self, corpus=corpus(), cache=cache) if self.editor.uses_text else self

    def parameters(self, model: PreTrainedModel, layout: Layout) -> tuple[str, ...]:
        """Names of what would be changed; of layers left to tracing, none."""
        return self.editor.parameters_in(model, layout)


@dataclass
class Mender:
    """Edits facts again in one model, as often as some are lost; made when the first are.

    What is lost later is no longer among what is preserved, and keys are those of the model as it stands. Covariances
    of text are those of the first time: in 24 steps of training (SmolLM2, worked problems at 2e-4) they changed by 11
    to 38% of their norm, and to take them again takes as long as nine steps.

    Attributes:
        kept: facts of the edit that still work.
    """

    how: Mending
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    kept: Sequence[Fact]
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """EditError if the facts of this model cannot be edited."""
        check_editable(self.model, self.tokenizer, self.how.facts, self.how.paraphrases)
        for one in adapters_in(self.model):
            raise not_alone(one)
        how, editor = self.how, self.how.editor
        self.facts = () if editor.uses_text else tuple(self.kept)
        self._bystanders, cache = how.bystanders, how.cache
        self._beside = isinstance(editor, ClosedFormEditor) and not editor.keeps_keys
        if isinstance(editor, ClosedFormEditor) and self._beside and not editor.bystander_weight:
            usual = type(editor).model_fields["bystander_weight"].default
            # as published; those of the edit alone are then left alone
            editor, self._bystanders = editor.model_copy(update={"bystander_weight": usual}), ()
        if cache is None and editor.uses_text:
            held = ExitStack()
            cache = held.enter_context(scratch_folder())
            weakref.finalize(self, held.close)
        around = Surroundings(corpus=how.corpus, seed=how.seed, cache=cache)
        with at_work(self.model, self.tokenizer):
            self.bench = workbench(self.model, self.tokenizer, {**around, "progress": self.progress})
            self.editor = editor.located(self.bench, how.facts)

    def _changer(self) -> Changer:
        """The editor at work, to which what still works is a bystander or, by its keys, earlier."""
        kept = self.kept if self._beside else ()
        return self.editor.changer(
            self.bench.model_copy(update={"bystanders": (*self._bystanders, *kept)}), self.how.paraphrases
        )

    def _earlier(self) -> Mapping[str, Tensor]:
        """Keys of what still works, for editors that leave such alone."""
        keeps = isinstance(self.editor, ClosedFormEditor) and self.editor.keeps_keys
        return self.keys_of_kept() if keeps and self.kept else {}

    def keys_of_kept(self) -> Mapping[str, Tensor]:
        """By parameter, ``(d, m)`` keys of what still works, as the model stands."""
        layout = self.bench.layout
        rows = [bare_row(self.tokenizer, fact) for fact in self.kept]
        keys = subject_keys(self.model, layout, self.editor.layers_in(layout), rows)
        return {layout.memory(layer).weight: keys_nd.T for layer, keys_nd in keys.items()}

    def restored(self) -> AbstractContextManager[None]:
        """What is changed inside the block is as before after it, bit for bit."""
        return restored(self.model, self.editor.parameters_in(self.model, self.bench.layout))

    def mend(self, lost: Collection[Fact]) -> Change:
        """Edit these facts of the edit (which may have other objects than it has) again, with those in ``facts``, and
        leave the change in the model."""
        again = {fact.id: fact for fact in (*self.facts, *lost)}
        self.facts = tuple(again[fact.id] for fact in self.how.facts if fact.id in again)
        self.kept = [fact for fact in self.kept if fact.id not in again]
        total = Change()
        with at_work(self.model, self.tokenizer):
            changer, earlier = self._changer(), self._earlier()
            for some in in_pieces(self.facts, self.editor.edits_per_step or len(self.facts)):
                change = changer.change(some, earlier)
                with torch.no_grad():
                    for name, delta in change.deltas.items():
                        add_difference(self.model.get_parameter(name), delta)
                total += change
        return total

    def update(self, ids: Collection[str], change: Change) -> WeightUpdate:
        """The change that edits facts of these ids again as an edit of the model, which has to be as it was before."""
        facts = [fact for fact in self.how.facts if fact.id in ids]
        made = self.editor.update(self.bench, facts, self.how.paraphrases, change)
        return made.sealed(self.model, identity=self.bench.identity)
