"""Edited copies of models on disk: a delta put into a checkpoint, taken out of one, and deltas joined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import add
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedModel

from indelible.care.card import CARD, card
from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import ConfigError, EditError, ModelError, StoreError
from indelible.files import check_free
from indelible.models.fingerprint import Identity, tensor_digest
from indelible.models.load import LoadedModel, load, opened
from indelible.models.save import save_model
from indelible.models.tokens import encode_prompt
from indelible.models.trace import evaluation_mode

_USE = "`transformers.AutoModelForCausalLM.from_pretrained(FOLDER)` loads it (float32)."
_REVERT = """`indelible revert FOLDER DELTA -o ORIGINAL`, with the delta that was put into it, gives back the base model
bit for bit. Without the delta, load the base model."""


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
        out: must not exist, or be empty; gets a model card, too.

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
    said = card(edit.manifest, library="transformers", use=_USE, revert=_REVERT).encode()
    carded = replace(loaded, beside={**loaded.beside, CARD: said})
    _write(carded, edit, out, edit.apply, given=loaded is model)


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
    change = partial(edit.revert, approximately=approximately)
    original = _write(loaded, edit, out, change, given=loaded is model) == edit.manifest.fingerprint
    return Reverted(original, original or not approximately, share)


ASKED = 3
"""Facts whose prompts are read by the model in memory and by the one on disk."""


@dataclass(frozen=True)
class _Written:
    """What a model that is written has to be known by once it is read: its bits, its tokens and its answers."""

    identity: Identity
    answers: Sequence[tuple[str, list[int], Tensor]]

    @classmethod
    def of(cls, loaded: LoadedModel, prompts: Sequence[str]) -> _Written:
        """Of a model in memory."""
        tokens = [encode_prompt(loaded.tokenizer, prompt) for prompt in prompts]
        answers = zip(prompts, tokens, (_logits(loaded.model, row) for row in tokens), strict=True)
        return cls(Identity.of(loaded.model), tuple(answers))

    def trouble(self, there: LoadedModel) -> str | None:
        """What a model that was read does otherwise."""
        weights = there.model.state_dict()
        for name, digest in self.identity.tensors.items():
            if name not in weights:
                return f"it lacks {name!r}"
            if tensor_digest(weights[name]) != digest:
                return f"{name!r} has other values"
        for prompt, tokens, logits_tv in self.answers:
            if encode_prompt(there.tokenizer, prompt) != tokens:
                return f"it has other tokens for {prompt!r}"
            if not torch.allclose(logits_tv, _logits(there.model, tokens), rtol=1e-4, atol=1e-3):
                return f"it answers {prompt!r} otherwise"
        return None


def _logits(model: PreTrainedModel, row: Sequence[int]) -> Tensor:
    """What is predicted after each token of a row, (tokens, vocabulary)."""
    with evaluation_mode(model), torch.no_grad():
        logits: Tensor = model(torch.tensor([row], device=model.device), use_cache=False).logits[0]
    return logits


def _write(
    loaded: LoadedModel, edit: WeightUpdate, out: Path, change: Callable[[PreTrainedModel], None], *, given: bool
) -> str:
    """Write what a change makes of a model, and read it again: the fingerprint of what was written.

    Loading converts and attaches things (adapters, quantised weights, names of another layout), so that a folder that
    was written without an error need not hold what was edited. Where anything fails, a model that was ``given`` is as
    before. Any other is let go of before the written one is read, so that memory holds one at a time.
    """
    weights = loaded.model.state_dict(keep_vars=True)
    before = {name: weights[name].detach().clone() for name in edit.parameters if name in weights} if given else {}
    try:
        change(loaded.model)
        written = _Written.of(loaded, [fact.text() for fact in edit.facts[:ASKED]])

        def check(folder: Path) -> None:
            dtype, device = loaded.model.dtype, str(loaded.model.device)
            for weight in () if given else loaded.model.parameters():
                weight.data = weight.new_empty(0)
            try:
                there = load(str(folder), dtype=dtype, device=device, trust_remote_code=loaded.trusted)
            except ModelError as error:
                raise StoreError(
                    f"{out} is not written: it would not be read again ({error.what.rstrip('.')}).", error.fix
                ) from None
            if found := written.trouble(there):
                raise StoreError(
                    f"{out} is not written: what would be read from it is not the model in memory ({found}).",
                    "Load the model from a folder that save_pretrained wrote, without adapters or quantisation.",
                )

        save_model(loaded, out, check)
    except BaseException:
        for name, weight in before.items():
            weights[name].data.copy_(weight)
        raise
    return written.identity.fingerprint


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
