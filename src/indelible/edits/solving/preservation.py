"""What an edit should leave alone: ordinary text, and the subjects that stand beside the edited ones.

The published editors preserve what the memory returns for ordinary text (its covariance). Most of an edit's damage is
done elsewhere: to other subjects of the same kind, whose keys lie close to the edited ones and are rare in text. When
the caller names such bystanders, the second moment of their keys is added with a weight of its own. Weight 0, or no
bystanders, is the published method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from indelible.edits.editor import Workbench
from indelible.edits.solving.covariance import second_moments
from indelible.edits.solving.keys import subject_keys
from indelible.edits.solving.texts import bare_row


def preserved_moments(
    bench: Workbench, layers: Sequence[int], *, tokens: int, bystander_weight: float
) -> Mapping[int, Tensor]:
    """By layer, the ``(d, d)`` second moment of the keys that the layer's memory should go on serving.

    Args:
        bench: with the corpus and the bystanders.
        layers: whose memories will change.
        tokens: of the corpus to use; with 0 the identity stands in for the second moment over text.
        bystander_weight: weight of E[k k^T] over bystanders against that over text.

    Raises:
        EditError: if there is not enough text.
    """
    moments = _over_text(bench, layers, tokens)
    if not bench.bystanders or bystander_weight == 0:
        return moments
    rows = [bare_row(bench.tokenizer, fact) for fact in bench.bystanders]
    keys_nd = subject_keys(bench.model, bench.layout, layers, rows)
    return {
        layer: moments[layer] + bystander_weight * (keys.T @ keys / len(rows)).cpu() for layer, keys in keys_nd.items()
    }


def _over_text(bench: Workbench, layers: Sequence[int], tokens: int) -> Mapping[int, Tensor]:
    if tokens == 0:
        return {layer: torch.eye(bench.layout.key_width) for layer in layers}
    return second_moments(
        bench.model,
        bench.tokenizer,
        bench.layout,
        layers,
        bench.corpus,
        tokens=tokens,
        model_fingerprint=bench.fingerprint,
        cache=bench.cache,
        progress=bench.progress,
    )
