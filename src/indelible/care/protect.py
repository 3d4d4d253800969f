"""A protection of an edit in use: one callback for any trainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from indelible.edits.deltas.delta import Edit, check_edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.edits.mending import Mending
from indelible.errors import ConfigError, EditError
from indelible.facts.fact import Fact
from indelible.models.corpus import ENCYCLOPEDIA, corpus_texts
from indelible.models.load import LoadedModel
from indelible.tuning.freezing.mask import NONE, about_edit, frozen_parameters
from indelible.tuning.protection import Guarded, protections_from
from indelible.tuning.training.guarding import Guarding


def protect(
    loaded: LoadedModel,
    edit: Edit,
    protections: str | Mapping[str, Mapping[str, Any]] = "replay",
    *,
    mask: str = NONE,
    paraphrases: int = 0,
    others: Sequence[Fact] = (),
    corpus: str = ENCYCLOPEDIA,
    seed: int = 0,
) -> Guarding:
    """The callback that keeps an edit while any of transformers' or trl's trainers trains the model that holds it.

    What a protection does to the weights when training is over (``interpolate``) is for ``fine_tune`` alone.
    Where training goes on from a checkpoint, call its ``prepare()`` before ``train``, while the edited model stands.

    Args:
        loaded: the model with the edit in it, not trained yet.
        protections: as in a study, e.g. ``"key-anchor+replay"`` or ``{"replay": {"share": 0.3}}``.
        mask: what is not trained, as in a study, e.g. ``"up-to-edited"``. It is frozen at once (``requires_grad``), so
            call this before the trainer is made. Adapters are the trainer's own: leave those layers out of them.
        paraphrases: with how many each fact was edited.
        others: facts that the model knows, for protections that want such.
        corpus: ordinary text for the covariances of ``repair``, as for ``edit``.
        seed: of what is drawn.

    Raises:
        ConfigError: an unknown protection or option, or one that works when training is over; a mask that cannot be
            applied, or that leaves a protection nothing to work on.
        UnknownNameError: an unknown mask.
        EditError: if the model does not hold the edit, or that many paraphrases cannot be made; ``repair`` of an edit
            that changes no weights.
        FingerprintError: if the edit changes a parameter that the model lacks.
        LayoutError: if the model's layout cannot be found.
    """
    check_edit(edit)
    made = protections_from(protections)
    if late := next((one for one in made if one.finishes), None):
        raise ConfigError(f"{late.name!r} works when training is over.", "Give it to fine_tune, or choose another.")
    if isinstance(edit, WeightUpdate) and edit.presence(loaded.model).state == "absent":
        raise EditError("The model does not hold the edit that is to be protected.", "Call edit.apply(model) first.")
    mends = any(one.mends for one in made)
    guarded = Guarded.of(
        loaded.model,
        loaded.tokenizer,
        edit.facts,
        edit.parameters,
        context=edit.context,
        paraphrases=paraphrases,
        others=others,
        seed=seed,
        mending=Mending.of(edit).with_text(lambda: corpus_texts(corpus)) if mends else None,
    )
    if about_edit(mask) and not edit.parameters:
        raise ConfigError(f"The edit lies in no layer, by which the mask {mask!r} goes.", "Leave the mask out.")
    frozen = frozen_parameters(mask, loaded.model, guarded.layout, edit.parameters)
    layers = sorted({at for name in edit.parameters if (at := guarded.layout.layer_of(name)) is not None})
    for one in made if frozen else ():
        if (lacking := one.lacking(loaded.model, guarded.layout, layers, frozen)) is not None:
            fix = "Freeze less, or choose another protection."
            raise ConfigError(f"{one.name!r} cannot work under the mask {mask!r}: {lacking}.", fix)
    for name, parameter in loaded.model.named_parameters():
        if name in frozen:
            parameter.requires_grad_(False)
    return Guarding(made, guarded)
