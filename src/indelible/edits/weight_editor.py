"""Editors that change weights, and the three protocols they are all run by.

- *batch*: all facts in one change (``edit`` with ``edits_per_step`` None).
- *sequential*: so many facts at a time, each step on the model that the ones before left (``edits_per_step``).
- *isolated*: every fact alone on the unedited model (``edit_each``), one update each.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, StrictInt
from torch import Tensor
from transformers import PreTrainedModel

from indelible.edits.deltas.manifest import WeightManifest
from indelible.edits.deltas.weights import Change, WeightUpdate, add_difference, restored
from indelible.edits.editor import AUTO, Editor, Workbench
from indelible.edits.tracing.locate import located_layers, neighbours
from indelible.facts.fact import Fact
from indelible.models.batches import in_pieces
from indelible.models.layout import Layout
from indelible.progress import Progress, silent

Layer = Annotated[
    StrictInt | Literal["auto"] | None,
    Field(description="Layer to change; None chooses by depth, auto by causal tracing."),
]
Layers = Annotated[
    tuple[StrictInt, ...] | Literal["auto"] | None,
    Field(description="Layers to change; None chooses by depth, auto by causal tracing."),
]


class Changer(ABC):
    """An editor at work on one model: made on the unedited model, then asked for one change after another."""

    @abstractmethod
    def change(self, facts: Sequence[Fact], earlier: Mapping[str, Tensor]) -> Change:
        """Differences that make the model, as it stands now, say the new objects of all these facts together.

        The model has to be left as it was, bit for bit. ``earlier``: by parameter, ``(d, m)`` keys of edits before.
        """

    def apart(self, facts: Sequence[Fact]) -> Iterator[Change]:
        """For each fact, the change that edits it alone."""
        for fact in facts:
            yield self.change([fact], {})


class WeightEditor(Editor):
    """Base of editors that change weights. Subclasses implement ``changer``."""

    changes_weights: ClassVar[bool] = True
    edits_per_step: int | None = Field(
        default=None,
        gt=0,
        description="Facts edited at a time, each step on the model that the ones before left; None edits all at once.",
    )

    @abstractmethod
    def changer(self, bench: Workbench, paraphrases: int) -> Changer:
        """The editor at work on this (unedited) model, its layers given or chosen: see ``located``."""

    @property
    def left_to_tracing(self) -> str | None:
        """The option whose layers causal tracing is to choose; None where they are given."""
        return next((name for name in ("layer", "layers") if getattr(self, name, None) == AUTO), None)

    def parameters_in(self, model: PreTrainedModel, layout: Layout) -> tuple[str, ...]:
        if self.left_to_tracing is not None:
            neighbours(layout, self._span(layout))
            return ()
        return tuple(f"{path}.weight" for path in self.modules_in(model, layout))

    def modules_in(self, model: PreTrainedModel, layout: Layout) -> tuple[str, ...]:
        """Paths of the linear maps that would be changed."""
        return tuple(layout.memory(layer).path for layer in self.layers_in(layout))

    def _span(self, layout: Layout) -> int:
        """How many layers tracing is to choose: as many as by default."""
        assert self.left_to_tracing is not None
        return len(self.model_copy(update={self.left_to_tracing: None}).layers_in(layout))

    def located(self, bench: Workbench, facts: Sequence[Fact]) -> Self:
        """The same with its layers chosen, as many as by default, where they were left to tracing of these facts."""
        asked = self.left_to_tracing
        if asked is None:
            return self
        layers = located_layers(bench, facts, self._span(bench.layout))
        return self.model_copy(update={asked: layers if asked == "layers" else layers[-1]})

    def make(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> WeightUpdate:
        editor = self.located(bench, facts)
        if editor is not self:
            return editor.make(bench, facts, paraphrases)
        steps = in_pieces(facts, self.edits_per_step or len(facts))
        with closing(self.in_steps(bench, steps, paraphrases)) as changes:
            change = sum(changes, Change())
        return self.update(bench, facts, paraphrases, change).sealed(bench.model, identity=bench.identity)

    def in_steps(
        self, bench: Workbench, steps: Sequence[Sequence[Fact]], paraphrases: int
    ) -> Generator[Change, None, None]:
        """The changes of one group of facts after another, each made on the model that the ones before left.

        While a change is being looked at, the model holds it and all before it; when the changes are at an end, or are
        closed, it is again as it was, bit for bit.
        """
        editor = self.located(bench, [fact for step in steps for fact in step])
        counted = _Counted(bench.progress or silent, len(steps))
        changer = editor.changer(bench.model_copy(update={"progress": counted.report}), paraphrases)
        earlier = Change({}, bench.earlier.keys if isinstance(bench.earlier, WeightUpdate) else {})
        kept: set[str] = set()
        with ExitStack() as stack:
            for counted.step, step in enumerate(steps):
                with torch.enable_grad():
                    change = changer.change(step, earlier.keys)
                earlier += Change(keys=change.keys)
                stack.enter_context(restored(bench.model, tuple(change.deltas.keys() - kept)))
                kept |= change.deltas.keys()
                with torch.no_grad():
                    for name, delta in change.deltas.items():
                        add_difference(bench.model.get_parameter(name), delta)
                yield change

    def make_each(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Iterator[WeightUpdate]:
        """Isolated edits are not sealed, for most are looked at once; ``sealed`` does it for those to be kept."""
        editor = self.located(bench, facts)
        changes = editor.changer(bench, paraphrases).apart(facts)
        for fact, change in zip(facts, changes, strict=True):
            yield editor.update(bench, [fact], paraphrases, change)

    def update(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int, change: Change) -> WeightUpdate:
        """What makes that change of the unedited model, without a seal."""
        arrived = dict(change.arrived)
        manifest = self.manifest(bench, facts, paraphrases, WeightManifest, list(change.deltas), arrived=arrived)
        return WeightUpdate(change.deltas, manifest, change.keys)


class _Counted:
    """Progress over several steps of equal weight, each of which reports its own."""

    def __init__(self, outer: Progress, steps: int) -> None:
        self.outer, self.steps, self.step = outer, steps, 0

    def report(self, done: int, total: int, note: str) -> None:
        if self.steps > 1:
            done, total = 100 * self.step + 100 * done // max(total, 1), 100 * self.steps
            note = f"step {self.step + 1} of {self.steps}: {note}"
        self.outer(done, total, note)
