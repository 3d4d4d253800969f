"""What an editor is: flat options and one method that turns a model and facts into an ``Edit``."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypedDict, Unpack

import torch
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.edits.edit import FORMAT, Edit
from indelible.errors import ConfigError, EditError
from indelible.facts.fact import Fact
from indelible.models.fingerprint import Identity
from indelible.models.layout import Layout, find_layout
from indelible.registry import Registry

EDITORS: Registry[type[Editor]] = Registry("editor", "indelible.edits", "indelible.editors")

Progress = Callable[[int, int, str], None]

AUTO = "auto"
"""In place of layers: let causal tracing choose them (see locate.py)."""


class Workbench(BaseModel):
    """What an editor works with beside the facts.

    Attributes:
        model: float32, in any mode; left as it was, bit for bit.
        tokenizer: the model's.
        layout: the model's.
        identity: the model's.
        corpus: ordinary text for covariances.
        bystanders: facts whose subjects should be left alone.
        earlier: an edit that is in the model already, whose facts should be left alone.
        cache: folder for covariances, or None.
        seed: of all randomness.
        progress: called with (done, total, note) as work goes on.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, frozen=True)

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    layout: Layout
    identity: Identity
    corpus: Sequence[str] = ()
    bystanders: Sequence[Fact] = ()
    earlier: Edit | None = None
    cache: Path | None = None
    seed: int = 0
    progress: Progress | None = None

    @property
    def fingerprint(self) -> str:
        """The model's."""
        return self.identity.fingerprint


class Surroundings(TypedDict, total=False):
    """What may be given to an editor beside model, tokenizer and facts; everything has a default.

    Attributes:
        corpus: ordinary text for covariances (editors that need none ignore it).
        bystanders: facts that are neither edited nor asked, whose subjects closed-form editors leave alone.
        seed: of the contexts that the model writes.
        cache: folder to keep covariances in, or None.
        layout: the model's, if the caller has it.
        identity: the model's, if the caller has it; hashing is then spared.
        progress: called with (done, total, note).
    """

    corpus: Sequence[str]
    bystanders: Sequence[Fact]
    seed: int
    cache: Path | None
    layout: Layout | None
    identity: Identity | None
    progress: Progress | None


class Editor(BaseModel, ABC):
    """Base of all editors: a frozen set of options, checked when it is made.

    Subclasses register themselves with ``@EDITORS.register(name)``. Those that change weights derive from
    ``WeightEditor`` (weight_editor.py), those that solve for them from ``ClosedFormEditor`` (closed_form.py).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: ClassVar[str]
    """The name that the editor is registered under."""
    uses_text: ClassVar[bool] = True
    """Whether the edit depends on the corpus and the bystanders."""

    def edit(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        facts: Sequence[Fact],
        *,
        paraphrases: int = 0,
        earlier: Edit | None = None,
        **around: Unpack[Surroundings],
    ) -> Edit:
        """Make the model say each fact's new object, as an edit that is not applied yet.

        Args:
            model: a causal language model in float32; it is left as it was, bit for bit.
            tokenizer: the model's.
            facts: each with a new object.
            paraphrases: how many further wordings of each fact to edit with.
            earlier: an edit that is in the model already, whose facts AlphaEdit leaves alone and which GRACE and IKE
                continue; others ignore it.
            around: see ``Surroundings``.

        Raises:
            EditError: if the facts or the model cannot be edited with these options.
            LayoutError: if the model's layout cannot be found.
        """
        _check(model, facts, paraphrases)
        bench = _bench(model, tokenizer, around).model_copy(update={"earlier": earlier})
        with _differentiable():
            return self.make(bench, facts, paraphrases)

    def edit_each(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        facts: Sequence[Fact],
        *,
        paraphrases: int = 0,
        **around: Unpack[Surroundings],
    ) -> Iterator[Edit]:
        """The isolated protocol: one edit per fact, in order, each of the unedited model.

        What all of them read from the model is read once, and closed-form editors optimise all values in one batch.

        Args:
            model: as for ``edit``; it has to stay unedited between one edit and the next.
            tokenizer: the model's.
            facts: as for ``edit``.
            paraphrases: as for ``edit``.
            around: see ``Surroundings``.

        Raises:
            EditError, LayoutError: as ``edit``, when the first edit is asked for.
        """
        _check(model, facts, paraphrases)
        edits = self.make_each(_bench(model, tokenizer, around), facts, paraphrases)
        for _ in facts:
            with _differentiable():  # left before the caller goes on with what it was given
                edit = next(edits)
            yield edit

    @abstractmethod
    def layers_in(self, layout: Layout) -> tuple[int, ...]:
        """The layers that would be changed in a model of this layout, lowest first; none where the edit is in the text.

        Raises:
            ConfigError: if the options ask for layers that it does not have.
        """

    @abstractmethod
    def make(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Edit:
        """The edit; the model has to be left as it was."""

    def make_each(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Iterator[Edit]:
        """For each fact, the edit of it alone; the model has to be left as it was."""
        for fact in facts:
            yield self.make(bench, [fact], paraphrases)

    def manifest(
        self, bench: Workbench, facts: Sequence[Fact], paraphrases: int, kind: str, parameters: Sequence[str]
    ) -> dict[str, Any]:
        """What is said of every edit, as it will be read from JSON again (lists, no tuples).

        Args:
            bench: as given to ``make``.
            facts: as given to ``make``.
            paraphrases: as given to ``make``.
            kind: of the edit that this belongs to.
            parameters: those of the edit that this belongs to.
        """
        manifest: dict[str, Any] = {
            "format": FORMAT,
            "kind": kind,
            "fingerprint": bench.fingerprint,
            "editor": self.name,
            "options": self.model_dump(mode="json"),
            "paraphrases": paraphrases,
            "seed": bench.seed,
            "parameters": list(parameters),
            "facts": [asdict(fact) for fact in facts],
            "bystanders": [fact.id for fact in bench.bystanders],
            "versions": {name: version(name) for name in ("indelible", "torch", "transformers")},
        }
        manifest = json.loads(json.dumps(manifest))
        return manifest


@contextmanager
def _differentiable() -> Iterator[None]:
    """Gradients can be taken inside the block, whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


def _bench(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, around: Surroundings) -> Workbench:
    if unknown := around.keys() - Surroundings.__optional_keys__:
        raise TypeError(
            f"an edit takes no {sorted(unknown)[0]!r}; it takes {', '.join(sorted(Surroundings.__optional_keys__))}"
        )
    found: dict[str, Any] = {
        "layout": around.get("layout") or find_layout(model),
        "identity": around.get("identity") or Identity.of(model),
    }
    return Workbench.model_construct(**{**around, "model": model, "tokenizer": tokenizer, **found})


def chosen_layers(layout: Layout, given: Sequence[int] | int | str | None, shares: Sequence[float]) -> tuple[int, ...]:
    """The layers to edit: those given, or else those at some shares of the model's depth.

    Args:
        layout: the model's.
        given: what the user asked for: layers, one layer, "auto" (before tracing has chosen, any layer), or None.
        shares: depths between 0 and 1, ascending; layers that coincide in a shallow model count once.

    Raises:
        ConfigError: if a given layer does not exist or they are not ascending.
    """
    if given == AUTO:
        return tuple(range(layout.n_layers))
    given = (given,) if isinstance(given, int) else given
    if given is None or isinstance(given, str):
        return tuple(sorted({min(int(share * layout.n_layers), layout.n_layers - 1) for share in shares}))
    if not given or list(given) != sorted(set(given)) or given[0] < 0 or given[-1] >= layout.n_layers:
        raise ConfigError(
            f"layers {list(given)} do not fit a model of {layout.n_layers} layers.",
            f"Give different layers from 0 to {layout.n_layers - 1}, lowest first.",
        )
    return tuple(given)


def _check(model: PreTrainedModel, facts: Sequence[Fact], paraphrases: int) -> None:
    if not facts:
        raise EditError("There are no facts to edit.", "Give at least one.")
    if paraphrases < 0:
        raise EditError(f"paraphrases is {paraphrases}.", "Give 0 or more.")
    if model.dtype != torch.float32:
        raise EditError(f"The model is loaded in {model.dtype}.", "Load it in float32 for editing.")
    name, times = Counter(fact.id for fact in facts).most_common(1)[0]
    if times > 1:
        raise EditError(f"The fact {name!r} is given twice.", "Give every fact once.")
