"""A quantised model that holds an edit: its weights are in NF4 as before the edit, which stands beside them in float32.

Here exactness ends: the side term is the edit's own factors, but the weights that it stands beside are not those that
it was solved for, so that what the model now answers has to be asked again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from transformers import PreTrainedModel

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import LowRank, WeightUpdate
from indelible.models.modules.quantised import quantised


@contextmanager
def quantised_with(
    model: PreTrainedModel, edit: Edit | None = None, *, known_fingerprint: str | None = None
) -> Iterator[None]:
    """Inside the block a model is quantised and holds an edit; after it both are gone, and its weights are as they were
    but for what was trained of those that nothing quantises (biases, layers left plain).

    Thin factors of quantised weights become side terms. Whatever else an edit has is in the model as always: weights
    that it changes in full or acts beside stay in float32, and so do those that nothing quantises (see ``quantised``).

    Args:
        model: in float32 and without the edit.
        known_fingerprint: the model's, just computed; it spares hashing.

    Raises:
        FingerprintError: if the edit was made for another model.
        ConfigError, ModelError: see ``quantised``.
    """
    if edit is not None:
        edit.check(model, known_fingerprint=known_fingerprint)
    deltas = edit.deltas if isinstance(edit, WeightUpdate) else {}
    thin = {name: (one.left, one.right) for name, one in deltas.items() if isinstance(one, LowRank)}
    plain = set() if edit is None else set(edit.parameters) - thin.keys()
    with quantised(model, thin, plain=plain) as names:
        if isinstance(edit, WeightUpdate):
            edit = replace(edit, deltas={name: one for name, one in deltas.items() if name not in names})
        with nullcontext() if edit is None else edit.installed(model):
            yield
