"""Edited copies of models on disk: a delta put into a checkpoint, taken out of one, and deltas joined."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from pathlib import Path

import torch
from torch import Tensor

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import ConfigError, EditError, ModelError, StoreError
from indelible.facts.fact import Fact
from indelible.files import check_free
from indelible.models.fingerprint import fingerprint
from indelible.models.load import LoadedModel, load, opened
from indelible.models.save import save_model
from indelible.models.tokens import encode_prompt
from indelible.models.trace import evaluation_mode


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
        StoreError: if the folder holds something, or cannot be written, or another model would be read from it.
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
    with _written(loaded, edit, out):
        edit.apply(loaded.model)


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
        StoreError: if the folder holds something, or cannot be written, or another model would be read from it.
    """
    check_free(out)
    if not isinstance(edit, WeightUpdate):
        raise EditError(f"A {edit.kind} changes no weights.", "There is nothing to revert.")
    loaded = opened(model)
    share = edit.presence(loaded.model).share if approximately and edit.manifest.seal is not None else None
    with _written(loaded, edit, out):
        edit.revert(loaded.model, approximately=approximately)
    original = fingerprint(loaded.model) == edit.manifest.fingerprint
    return Reverted(original, original or not approximately, share)


ASKED = 3
"""Facts whose prompts are read by the model in memory and by the one on disk."""


@contextmanager
def _written(loaded: LoadedModel, edit: WeightUpdate, out: Path) -> Iterator[None]:
    """What the block makes of a model is written; where that fails, the model is as before the block."""
    weights = dict(loaded.model.named_parameters(remove_duplicate=False))
    before = {name: weights[name].detach().clone() for name in edit.parameters if name in weights}
    try:
        yield
        save_model(loaded, out, partial(_check_written, loaded, edit.facts[:ASKED], out))
    except BaseException:
        for name, weight in before.items():
            weights[name].data.copy_(weight)
        raise


def _check_written(loaded: LoadedModel, facts: Sequence[Fact], out: Path, folder: Path) -> None:
    """StoreError unless what is read from a folder is the model in memory: the same bits, tokens and answers.

    Loading converts and attaches things (adapters, quantised weights, names of another layout), so that a folder that
    was written without an error need not hold what was edited.
    """
    dtype, device = loaded.model.dtype, str(loaded.model.device)
    try:
        there = load(str(folder), dtype=dtype, device=device, trust_remote_code=loaded.trusted)
    except ModelError as error:
        raise StoreError(
            f"{out} is not written: it would not be read again ({error.what.rstrip('.')}).", error.fix
        ) from None
    mine, theirs = loaded.model.state_dict(), there.model.state_dict()
    found = [f"it lacks {name!r}" for name in mine if name not in theirs]
    found += [f"{name!r} has other values" for name in mine if name in theirs and not _same(mine[name], theirs[name])]
    with evaluation_mode(loaded.model), torch.no_grad():
        for prompt in [fact.text() for fact in facts] if not found else []:
            ids, other = (encode_prompt(one.tokenizer, prompt) for one in (loaded, there))
            row = torch.tensor([ids], device=loaded.model.device)
            if ids != other:
                found.append(f"it has other tokens for {prompt!r}")
            elif not torch.allclose(loaded.model(row).logits, there.model(row).logits, rtol=1e-4, atol=1e-3):
                found.append(f"it answers {prompt!r} otherwise")
    if found:
        raise StoreError(
            f"{out} is not written: what would be read from it is not the model in memory ({found[0]}).",
            "Load the model from a folder that save_pretrained wrote, without adapters or quantisation.",
        )


def _same(one: Tensor, other: Tensor) -> bool:
    return one.shape == other.shape and torch.equal(*(each.reshape(-1).view(torch.uint8) for each in (one, other)))


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
