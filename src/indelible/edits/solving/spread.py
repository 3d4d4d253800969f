"""Spreading a wanted change over several layers, with any solver (MEMIT, Meng et al. 2023, algorithm 1).

From the lowest layer up, each memory takes a share of what is still missing at the value layer. Keys and what is
missing are read anew after each, since every change moves what the layers above it see.

How much of the wanted change is there at the end is an edit's strength: editors differ in it by their constraints, so
that they are compared at equal shares. One part of it is measured, along the wanted change; a share above 1 overshoots.

This holds where a memory's output is added to the residual stream as it is. Where a norm stands between the two, a
lower layer's share would arrive as something else, so that the value layer is changed alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from indelible.edits.deltas.weights import Change, LowRank, add_difference, restored
from indelible.edits.editor import Workbench
from indelible.edits.solving.keys import Compared, read_subjects
from indelible.edits.solving.solve import Factors
from indelible.edits.solving.texts import FactRows


@dataclass(frozen=True)
class Problem:
    """What is asked of one layer's memory. Every wording of a fact is a column.

    A fact counts once, however many wordings it has: its columns are scaled so that they share one unit of the squared
    error. A constraint of equality is not changed by that.

    Attributes:
        keys_dn: each wording's key, averaged over contexts.
        bare_dn: each wording's key without contexts.
        residual_on: wanted change of what the memory returns for them.
        earlier_dm: keys of earlier edits, which should be left alone.
    """

    layer: int
    keys_dn: Tensor
    bare_dn: Tensor
    residual_on: Tensor
    earlier_dm: Tensor | None


Solver = Callable[[Problem], Factors]


def spread(
    bench: Workbench,
    layers: Sequence[int],
    facts: Sequence[FactRows],
    deltas_fo: Tensor,
    solve: Solver,
    *,
    share: Callable[[int], float] = float,
    compared: Compared = "block",
    bare_share: float | None = None,
    earlier: Mapping[str, Tensor] | None = None,
) -> tuple[Change, Tensor]:
    """Change the memories of ``layers`` so that the last one's block, or MLP, returns what the deltas ask for.

    Args:
        bench: the model is changed on the way and left as it was.
        layers: ascending; the last is the value layer.
        facts: the facts' texts.
        deltas_fo: wanted change of the value layer's output, one row per fact.
        solve: returns a layer's change.
        share: what the missing change is divided by, given how many layers are still to come.
        compared: whose output in the value layer is read to tell what is missing. A change below it reaches the
            block's through the residual stream (MEMIT); of the MLP's, the value layer has to give nearly all (PMET).
        bare_share: weight of the bare wording's key; see ``read_subjects``.
        earlier: by parameter name, ``(d, m)`` keys of earlier edits.

    Returns:
        Differences in the parameters' own orientation, and the keys ``(d, n)`` as they were asked; and for each fact,
        which share of the wanted change arrives, (after - before) . delta / |delta|^2 of the value layer's block where
        the model reads the bare wordings, their mean; NaN where no change was wanted.
    """
    model, layout = bench.model, bench.layout
    value_layer = layers[-1]
    memories = [layout.memory(layer) for layer in layers]
    if not all(memory.adds_to_residual for memory in memories):
        layers, memories = layers[-1:], memories[-1:]
    names = tuple(memory.weight for memory in memories)
    deltas: dict[str, LowRank] = {}
    keys: dict[str, Tensor] = {}
    wanted_on: Tensor | None = None
    bare = [replace(rows, wordings=tuple(wording[:1] for wording in rows.wordings)) for rows in facts]
    # Behind a norm a change of the block is none of the memory's size.
    seen_at: Compared = "block" if memories[-1].adds_to_residual else "mlp"
    before = read_subjects(model, layout, value_layer, value_layer, bare, compared=seen_at)
    with restored(model, names), torch.no_grad():
        for place, (layer, memory) in enumerate(zip(layers, memories, strict=True)):
            name = memory.weight
            read = read_subjects(model, layout, layer, value_layer, facts, compared=compared, bare_share=bare_share)
            if wanted_on is None:
                wanted_on = read.states_on + deltas_fo.T[:, read.facts_n]
            missing_on = (wanted_on - read.states_on) / share(len(layers) - place)
            shares_n = torch.bincount(read.facts_n)[read.facts_n].to(missing_on.dtype).rsqrt()
            old = None if earlier is None or name not in earlier else earlier[name].to(missing_on.device)
            keys[name] = read.keys_dn * shares_n
            problem = Problem(layer, keys[name], read.bare_dn * shares_n, missing_on * shares_n, old)
            deltas[name] = oriented(solve(problem), in_out=memory.in_out)
            add_difference(model.get_parameter(name), deltas[name])
        after = read_subjects(model, layout, value_layer, value_layer, bare, compared=seen_at)
    deltas_on = deltas_fo.T[:, before.facts_n].double()
    moved_on = (after.states_on - before.states_on).double()
    shares_n = (moved_on * deltas_on).sum(0) / (deltas_on**2).sum(0)
    sums_f = torch.zeros(len(facts), dtype=shares_n.dtype, device=shares_n.device)
    arrived_f = sums_f.index_add(0, before.facts_n, shares_n) / before.facts_n.bincount()
    return Change(deltas, {name: key_dn.float().cpu() for name, key_dn in keys.items()}), arrived_f.cpu()


def oriented(factors: Factors, *, in_out: bool) -> LowRank:
    """Factors of an (out, in) change as a difference of the stored weight, which may be (in, out)."""
    left, right = factors.left_on.float().cpu(), factors.right_nd.float().cpu()
    return LowRank.balanced(right.T.contiguous(), left.T.contiguous()) if in_out else LowRank.balanced(left, right)
