"""What an editor is: flat options and one method that turns a model and facts into an ``Edit``."""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, TypedDict, TypeVar, Unpack

import torch
from pydantic import BaseModel, ConfigDict
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.edits.beside.hook import Adapter, adapters_in, set_aside
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.manifest import Made, Manifest
from indelible.edits.deltas.origin import origin
from indelible.errors import ConfigError, EditError
from indelible.facts.fact import Fact
from indelible.models.fingerprint import Identity
from indelible.models.layout import Layout, find_layout
from indelible.models.tokens import check_vocabulary, encode_text
from indelible.progress import Progress
from indelible.registry import Registry

EDITORS = Registry["type[Editor]"]("editor", "indelible.edits.editors", group="indelible.editors", taken=["none"])

M = TypeVar("M", bound=Manifest)

AUTO = "auto"
"""In place of layers: let causal tracing choose them (see locate.py)."""
_LONG_TEXT = "sequence-length-is-longer-than-the-specified-maximum"


class Workbench(BaseModel):
    """What an editor works with beside the facts: see ``Surroundings`` for what is not said here.

    Attributes:
        model: float32, in any mode; left as it was, bit for bit.
        earlier: all that was edited into the model already, whose facts should be left alone.
        seed: of all randomness.
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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    name: ClassVar[str]
    """The name that the editor is registered under."""
    depths: ClassVar[tuple[float, ...]] = ()
    """Where in the model, between 0 and 1, it works by default; empty for text."""
    uses_text: ClassVar[bool] = True
    """Whether the edit depends on the corpus and the bystanders."""
    changes_weights: ClassVar[bool] = False
    """Whether the edit changes weights, and is therefore made on weights alone: no adapter may be in the model."""

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
            facts: each with a new object.
            paraphrases: how many further wordings of each fact to edit with.
            earlier: what is in the model already, whose facts AlphaEdit leaves alone and which GRACE and IKE continue;
                others ignore it. An update holds its own facts only, so that after several edits of weights this has to
                be the sum of all of them::

                    a = editor.edit(model, tokenizer, some)
                    a.apply(model)
                    b = editor.edit(model, tokenizer, more, earlier=a)
                    b.apply(model)
                    c = editor.edit(model, tokenizer, others, earlier=a + b)

                A codebook or a context holds what it continued: there the latest is enough.
            around: see ``Surroundings``.

        Raises:
            EditError: if the facts or the model cannot be edited with these options, or an adapter is in the model that
                this edit does not continue.
            LayoutError: if the model's layout cannot be found.
        """
        check_editable(model, tokenizer, facts, paraphrases)
        if earlier is not None and earlier.kind != "weights" and earlier.manifest.editor != self.name:
            raise EditError(
                f"A {earlier.kind} is no edit that {self.name} can go on from.",
                f"Go on with {earlier.manifest.editor}, or leave the earlier edit out.",
            )
        present = adapters_in(model)
        for one in present:
            continued = isinstance(earlier, Adapter) and (earlier.equals(one) or earlier.continues(one))
            if self.changes_weights or not continued:
                raise not_alone(one)
        bench = workbench(model, tokenizer, around).model_copy(update={"earlier": earlier})
        with at_work(model, tokenizer):
            made = self.make(bench, facts, paraphrases)
        for one in present:
            if not (isinstance(made, Adapter) and made.continues(one)):
                raise not_alone(one)
        return made

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
        Arguments and errors are those of ``edit``, the errors when the first edit is asked for; the model has to stay
        unedited between one edit and the next.
        """
        check_editable(model, tokenizer, facts, paraphrases)
        for one in adapters_in(model):
            raise not_alone(one)
        edits = self.make_each(workbench(model, tokenizer, around), facts, paraphrases)
        for _ in facts:
            with at_work(model, tokenizer):  # left before the caller goes on with what it was given
                edit = next(edits)
            yield edit

    def layers_in(self, layout: Layout) -> tuple[int, ...]:
        """The layers that would be changed in a model of this layout, lowest first; none where the edit is in the text.

        Those that the option ``layers`` or ``layer`` gives; of "auto", before tracing has chosen, any; or else those at
        ``depths``, of which some coincide in a shallow model and count once.

        Raises:
            ConfigError: if the options ask for layers that it does not have, or not in ascending order.
        """
        count = layout.n_layers
        given = getattr(self, "layers", getattr(self, "layer", None))
        if given == AUTO:
            return tuple(range(count))
        if given is None:
            return tuple(sorted({min(int(share * count), count - 1) for share in self.depths}))
        layers = (given,) if isinstance(given, int) else tuple(given)
        if not layers or list(layers) != sorted(set(layers)) or layers[0] < 0 or layers[-1] >= count:
            raise ConfigError(
                f"layers {list(layers)} do not fit a model of {count} layers.",
                f"Give different layers from 0 to {count - 1}, lowest first.",
            )
        return layers

    def given(self) -> dict[str, Any]:
        """The options that it was given; the others follow."""
        return self.model_dump(exclude_unset=True)

    def parameters_in(self, model: PreTrainedModel, layout: Layout) -> tuple[str, ...]:
        """Names of the parameters that would be changed or stood beside, as the edit's ``parameters``; none where that
        is known only once the edit is made.

        Raises:
            ConfigError: as ``layers_in``.
            LayoutError: if one of the layers has no memory, and the editor wants one.
        """
        return ()

    @abstractmethod
    def make(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Edit:
        """The edit; the model has to be left as it was."""

    def make_each(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Iterator[Edit]:
        """For each fact, the edit of it alone; the model has to be left as it was."""
        for fact in facts:
            yield self.make(bench, [fact], paraphrases)

    def manifest(
        self,
        bench: Workbench,
        facts: Sequence[Fact],
        paraphrases: int,
        of: type[M],
        parameters: Sequence[str],
        **more: Any,
    ) -> M:
        """What is said of every edit, given what ``make`` was given, the manifest's class and what else it says."""
        made = Made(
            editor=self.name,
            options=self.model_dump(mode="json"),
            paraphrases=paraphrases,
            seed=bench.seed,
            versions={name: version(name) for name in ("indelible", "torch", "transformers")},
        )
        return of(
            fingerprint=bench.fingerprint,
            model=origin(bench.model),
            made=(made,),
            parameters=tuple(parameters),
            facts=tuple(facts),
            bystanders=tuple(fact.id for fact in bench.bystanders),
            **more,
        )


@contextmanager
def at_work(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Whatever is done to a model inside the block can take gradients, and leaves its configuration and what the
    tokenizer says as they were."""
    with _differentiable(), _configured(model), _quiet(tokenizer):
        yield


@contextmanager
def _differentiable() -> Iterator[None]:
    """Gradients can be taken inside the block, whatever the caller has switched off."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


@contextmanager
def _configured(model: PreTrainedModel) -> Iterator[None]:
    """The configuration is as before after the block: a family may write into its own as it reads a longer text."""
    configs = {id(config): config for config in (model.config, model.config.get_text_config())}.values()
    before = [dict(vars(config)) for config in configs]
    try:
        yield
    finally:
        for config, kept in zip(configs, before, strict=True):
            vars(config).clear()
            vars(config).update(kept)


@contextmanager
def _quiet(tokenizer: PreTrainedTokenizerBase) -> Iterator[None]:
    """Texts longer than the model's are tokenised without a warning: they are cut here, or refused in our own words."""
    said: dict[str, bool] | None = getattr(tokenizer, "deprecation_warnings", None)
    before = None if said is None else dict(said)
    if said is not None:
        said[_LONG_TEXT] = True  # "has been said already": how transformers asks itself
    try:
        yield
    finally:
        if said is not None and before is not None:
            said.clear()
            said.update(before)


def not_alone(adapter: Adapter) -> EditError:
    """Weights with an adapter beside them do not compute what their fingerprint stands for."""
    return EditError(
        f"A {adapter.kind} is in the model, and this edit does not continue it.",
        "Take it out (remove_adapters(model)) and edit the bare model, or continue it: the editor that made it, with"
        " earlier=<the adapter>.",
    )


def workbench(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, around: Surroundings) -> Workbench:
    """What an editor works with, where the model is given alone or with an adapter in it, which is set aside."""
    if unknown := around.keys() - Surroundings.__optional_keys__:
        raise TypeError(
            f"an edit takes no {sorted(unknown)[0]!r}; it takes {', '.join(sorted(Surroundings.__optional_keys__))}"
        )
    with set_aside(model):
        found: dict[str, Any] = {
            "layout": around.get("layout") or find_layout(model),
            "identity": around.get("identity") or Identity.of(model),
        }
    return Workbench.model_construct(**{**around, "model": model, "tokenizer": tokenizer, **found})


def check_editable(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, facts: Sequence[Fact], paraphrases: int
) -> None:
    """EditError unless these facts of this model can be edited: plain float32 weights, words that it knows."""
    if not facts:
        raise EditError("There are no facts to edit.", "Give at least one.")
    if paraphrases < 0:
        raise EditError(f"paraphrases is {paraphrases}.", "Give 0 or more.")
    if not isinstance(model, PreTrainedModel):
        raise EditError(
            f"The model stands inside a {type(model).__name__}, which no edit can be made for.",
            "Give the model itself (compiled: model._orig_mod), with adapters of peft merged (merge_and_unload()).",
        )
    peft = sys.modules.get("peft.tuners.tuners_utils")  # not there: no adapter of its either
    if peft is not None and any(isinstance(module, peft.BaseTunerLayer) for module in model.modules()):
        raise EditError("Adapters of peft are in the model.", "Merge them (merge_and_unload()) or take them out.")
    if model.dtype != torch.float32:
        raise EditError(f"The model is loaded in {model.dtype}.", "Load it in float32 for editing.")
    name, times = Counter(fact.id for fact in facts).most_common(1)[0]
    if times > 1:
        raise EditError(f"The fact {name!r} is given twice.", "Give every fact once.")
    for fact in facts:
        check_vocabulary(model, encode_text(tokenizer, f"{fact.text()} {fact.new_object}"))
