"""ROME: one fact, one layer, one rank (Meng et al. 2022, arXiv 2202.05262).

Several facts are edited one after another, each on the model as the ones before left it: this is the published method,
and on small models it wears them down within ten edits (arXiv 2410.18785). A batch belongs to MEMIT. As in R-ROME
(arXiv 2403.07175), one averaged key stands in every term of the update.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from pydantic import Field

from indelible.edits.editor import EDITORS, Editor, Workbench, chosen_layers
from indelible.edits.keys import read_subjects
from indelible.edits.preservation import preserved_moments
from indelible.edits.solve import equality
from indelible.edits.spread import oriented
from indelible.edits.update import Delta, LowRank, add_difference, restored
from indelible.edits.values import ValueOptions, optimise_values
from indelible.edits.wordings import rows_for, sample_contexts
from indelible.facts.fact import Fact

_DEPTHS = (0.167,)


@EDITORS.register("rome")
class Rome(Editor):
    """Rank-one model editing."""

    name: str = Field(default="rome", exclude=True)
    layer: int | None = Field(default=None, description="Layer to change; None chooses by depth.")
    covariance_tokens: int = Field(default=20_000, gt=0, description="Tokens for the covariance.")
    bystander_weight: float = Field(default=10.0, ge=0, description="Preservation of bystanders' keys against text's.")
    steps: int = Field(default=25, gt=0, description="Steps of value optimisation.")
    learning_rate: float = Field(default=0.5, gt=0, description="Of value optimisation.")
    weight_decay: float = Field(default=0.5, ge=0, description="Of value optimisation.")
    kl_weight: float = Field(default=0.0625, ge=0, description="Keeps what the subject is.")
    clamp: float = Field(default=0.75, gt=0, description="Longest value change, in norms of the hidden state.")
    contexts: int = Field(default=3, ge=0, description="Texts that the model writes before a wording.")

    def change(self, bench: Workbench, facts: Sequence[Fact], paraphrases: int) -> Mapping[str, Delta]:
        model, layout = bench.model, bench.layout
        (layer,) = chosen_layers(layout, None if self.layer is None else (self.layer,), _DEPTHS)
        name = layout.mlp_out_weight[layer]
        contexts = sample_contexts(model, bench.tokenizer, self.contexts, seed=bench.seed)
        moment = preserved_moments(
            bench, (layer,), tokens=self.covariance_tokens, bystander_weight=self.bystander_weight
        )[layer]
        options = ValueOptions(self.steps, self.learning_rate, self.weight_decay, self.kl_weight, self.clamp)
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
