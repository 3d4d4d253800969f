"""ROME: one fact, one layer, one rank (Meng et al. 2022, arXiv 2202.05262).

Several facts are edited one after another, each on the model as the ones before left it: this is the published method,
and on small models it wears them down within ten edits (arXiv 2410.18785). A batch belongs to MEMIT. As in R-ROME
(arXiv 2403.07175), one averaged key stands in every term of the update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from pydantic import Field

from indelible.edits.closed_form import ClosedFormEditor
from indelible.edits.editor import EDITORS, Workbench, chosen_layers
from indelible.edits.keys import read_subjects
from indelible.edits.solve import equality
from indelible.edits.spread import oriented
from indelible.edits.update import Delta, LowRank, add_difference, restored
from indelible.edits.values import optimise_values
from indelible.edits.wordings import rows_for, sample_contexts
from indelible.facts.fact import Fact
from indelible.models.layout import Layout

_DEPTHS = (0.234,)


@EDITORS.register("rome")
class Rome(ClosedFormEditor):
    """Rank-one model editing."""

    name: ClassVar[str] = "rome"
    layer: int | None = Field(default=None, description="Layer to change; None chooses by depth.")

    def layers_in(self, layout: Layout) -> tuple[int, ...]:
        return chosen_layers(layout, None if self.layer is None else (self.layer,), _DEPTHS)

    def change(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Mapping[str, Delta]:
        model, layout = bench.model, bench.layout
        (layer,) = self.layers_in(layout)
        name = layout.mlp_out_weight[layer]
        contexts = sample_contexts(model, bench.tokenizer, self.contexts, seed=bench.seed)
        moment = self.preserved(bench, (layer,))[layer]
        options = self.value_options()
        changes: list[LowRank] = []
        with restored(model, (name,)), torch.no_grad():
            for number, fact in enumerate(facts):
                rows = [rows_for(bench.tokenizer, fact, paraphrases, contexts)]
                with torch.enable_grad():
                    values = optimise_values(model, layout, layer, rows, options)
                read = read_subjects(model, layout, layer, layer, rows)
                wanted_on = values.deltas_fo.T.expand(-1, read.keys_dn.shape[1])
                factors = equality(read.keys_dn, wanted_on, moment.to(wanted_on.device))
                changes.append(oriented(factors, in_out=layout.in_out))
                add_difference(model.get_parameter(name), changes[-1])
                if bench.progress is not None:
                    bench.progress(number + 1, len(facts), "ROME, fact by fact")
        together = LowRank(
            torch.cat([change.left for change in changes], dim=1), torch.cat([change.right for change in changes])
        )
        return {name: together}
