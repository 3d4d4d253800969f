"""Spreading a wanted change over several layers, with any solver (MEMIT, Meng et al. 2023, algorithm 1).

From the lowest layer up, each memory takes an even share of what is still missing at the value layer. Keys and what is
missing are read anew after each, since every change moves what the layers above it see.

This holds where a memory's output is added to the residual stream as it is. Where a norm stands between the two, a
lower layer's share would arrive as something else, so that the value layer is changed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from indelible.edits.editor import Workbench
from indelible.edits.keys import read_subjects
from indelible.edits.solve import Factors
from indelible.edits.update import LowRank, add_difference, restored
from indelible.edits.wordings import FactRows

Solver = Callable[[int, Tensor, Tensor], Factors]


def spread(
    bench: Workbench, layers: Sequence[int], facts: Sequence[FactRows], deltas_fo: Tensor, solve: Solver
) -> dict[str, LowRank]:
    """Change the memories of ``layers`` so that the last one's block returns what the deltas ask for.

    Args:
        bench: the model is changed on the way and left as it was.
        layers: ascending; the last is the value layer.
        facts: the facts' texts; every wording is a column.
        deltas_fo: wanted change of the value layer's output, one row per fact.
        solve: given a layer, keys ``(d, n)`` and residuals ``(o, n)``, returns the layer's change.

    Returns:
        Differences by parameter name, in the parameters' own orientation.
    """
    model, layout = bench.model, bench.layout
    value_layer = layers[-1]
    if not layout.adds_to_residual:
        layers = layers[-1:]
    names = tuple(layout.mlp_out_weight[layer] for layer in layers)
    changes: dict[str, LowRank] = {}
    wanted_on: Tensor | None = None
    with restored(model, names), torch.no_grad():
        for place, (layer, name) in enumerate(zip(layers, names, strict=True)):
            read = read_subjects(model, layout, layer, value_layer, facts)
            if wanted_on is None:
                wanted_on = read.states_on + deltas_fo.T[:, read.facts_n]
            missing_on = (wanted_on - read.states_on) / (len(layers) - place)
            # A fact counts once, however many wordings it has: its columns share one unit of the squared error.
            shares_n = torch.bincount(read.facts_n)[read.facts_n].to(missing_on.dtype).rsqrt()
            factors = solve(layer, read.keys_dn * shares_n, missing_on * shares_n)
            changes[name] = oriented(factors, in_out=layout.in_out)
            add_difference(model.get_parameter(name), changes[name])
    return changes


def oriented(factors: Factors, *, in_out: bool) -> LowRank:
    """Factors of an (out, in) change as a difference of the stored weight, which may be (in, out)."""
    left, right = factors.left_on.float().cpu(), factors.right_nd.float().cpu()
    return LowRank(right.T.contiguous(), left.T.contiguous()) if in_out else LowRank(left, right)
