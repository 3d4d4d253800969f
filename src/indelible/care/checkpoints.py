"""Edited copies of models on disk: a delta put into a checkpoint, taken out of one, and deltas joined."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from pathlib import Path

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import ConfigError, EditError
from indelible.files import check_free
from indelible.models.fingerprint import fingerprint
from indelible.models.load import LoadedModel, opened
from indelible.models.save import save_model


@dataclass(frozen=True)
class Reverted:
    """What a model is once an edit was taken out of it: whether all of it is again as before the edit, bit for bit
    (``original``), or the edited parameters at least (``exact``; not where the delta was only subtracted); and the
    ``share`` of the delta that was there before, as a projection, where that was measured."""

    original: bool
    exact: bool
    share: float | None = None


def write_edited(model: LoadedModel | str, edit: Edit, out: Path) -> None:
    """Write a copy of a model with the edit in it, as an ordinary transformers folder in float32.

    Args:
        model: the one that the edit was made for, or its name; the edit stays in it.
        edit: of weights.
        out: must not exist, or be empty.

    Raises:
        EditError: if the edit changes no weights, so that no checkpoint can hold it.
        FingerprintError: if it was made for another model.
        StoreError: if the folder holds something, or cannot be written.
    """
    check_free(out)
    if not isinstance(edit, WeightUpdate):
        raise EditError(
            f"A {edit.kind} changes no weights, so that no checkpoint can hold it.",
            "Put its text before each prompt, in Python: Edit.load(path).context + prompt."
            if edit.context
            else "Apply it in Python: Edit.load(path).apply(model).",
        )
    loaded = opened(model)
    edit.apply(loaded.model)
    save_model(loaded, out)


def write_reverted(model: LoadedModel | str, edit: Edit, out: Path, *, approximately: bool = False) -> Reverted:
    """Write a copy of an edited model without the edit, in float32.

    Args:
        model: with the edit in it, or its name; the edit is taken out of it.
        edit: of weights.
        out: must not exist, or be empty.
        approximately: subtract the delta even from weights that were trained since.

    Raises:
        EditError: if the edit changes no weights.
        FingerprintError: if the edit is not in the model, or (without ``approximately``) not as it was made.
        StoreError: if the folder holds something, or cannot be written.
    """
    check_free(out)
    if not isinstance(edit, WeightUpdate):
        raise EditError(f"A {edit.kind} changes no weights.", "There is nothing to revert.")
    loaded = opened(model)
    share = edit.presence(loaded.model).share if approximately and edit.manifest.seal is not None else None
    edit.revert(loaded.model, approximately=approximately)
    save_model(loaded, out)
    original = fingerprint(loaded.model) == edit.manifest.fingerprint
    return Reverted(original, original or not approximately, share)


def compose(model: LoadedModel | str, edits: Sequence[Edit]) -> WeightUpdate:
    """One edit that is all of these: made side by side for one model, or each for what the ones before it leave.

    Args:
        model: the one that the first was made for, or its name; left as it was.
        edits: two or more, of weights.

    Raises:
        ConfigError: if there are fewer than two.
        EditError: if one changes no weights, or two that were made side by side edit the same fact.
        FingerprintError: if they were not made for this model, side by side or in a chain.
    """
    if len(edits) < 2:
        raise ConfigError(f"{len(edits)} delta was given.", "Give at least two.")
    updates: list[WeightUpdate] = []
    for number, edit in enumerate(edits, 1):
        if not isinstance(edit, WeightUpdate):
            raise EditError(f"Delta {number} is a {edit.kind}, which changes no weights.", "Compose deltas of weights.")
        updates.append(edit)
    together: WeightUpdate = reduce(add, updates)
    return together.sealed(opened(model).model)
