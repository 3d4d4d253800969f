"""FT: fine-tune one MLP projection on the edited facts, as the editing papers' baseline does.

ROME's baseline (Meng et al. 2022, arXiv 2202.05262, section 3). As in its published code, all of an object's tokens are
predicted from the prompt's last position: an object of several tokens is learned as a set, not as a sequence, so that
its loss stays above the logarithm of their number and free generation seldom says it. FT-M (ft_m.py) has the loss that
one would expect.

The difference is trained, not the weight itself, so that the model is never touched and a bound on it holds exactly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor

from indelible.edits.deltas.weights import Change, Dense
from indelible.edits.editor import EDITORS, Workbench
from indelible.edits.editors.rome import DEPTHS
from indelible.edits.published import Published
from indelible.edits.solving.descent import GradientEditor, Text, descend, from_prompt
from indelible.edits.solving.texts import Row
from indelible.edits.weight_editor import Changer, Layer
from indelible.facts.fact import Fact
from indelible.models.trace import evaluating


@EDITORS.register("ft")
class FineTuning(Published, GradientEditor):
    """Fine-tuning of one projection with early stop."""

    name: ClassVar[str] = "ft"
    depths: ClassVar[tuple[float, ...]] = DEPTHS
    as_published: ClassVar[Mapping[str, Any]] = {
        "steps": 25,
        "learning_rate": 5e-4,
        "stop_below": 0.01,
        "texts_per_step": 64,
    }
    learning_rate: float = Field(default=2e-3, gt=0, le=3e37, description="Of Adam.")
    layer: Layer = None

    def text(self, row: Row) -> Text:
        return from_prompt(row)

    def bounded(self, difference: Tensor) -> Tensor:
        """The nearest difference that is allowed; all are here."""
        return difference

    def changer(self, bench: Workbench, paraphrases: int) -> Changer:
        return _Tuned(self, bench, paraphrases)


class _Tuned(Changer):
    def __init__(self, editor: FineTuning, bench: Workbench, paraphrases: int) -> None:
        self.editor, self.bench, self.paraphrases = editor, bench, paraphrases

    def change(self, facts: Sequence[Fact], earlier: Mapping[str, Tensor]) -> Change:
        editor, bench = self.editor, self.bench
        (layer,) = editor.layers_in(bench.layout)
        name = bench.layout.memory(layer).weight
        texts = editor.texts(bench, facts, self.paraphrases)
        weight = bench.model.get_parameter(name)
        difference = torch.zeros_like(weight, requires_grad=True)

        def weights() -> Mapping[str, Tensor]:
            return {name: weight + difference}

        def keep_bounds() -> None:
            with torch.no_grad():
                difference.copy_(editor.bounded(difference))

        with evaluating(bench.model):
            descend(editor, bench, layer, texts, [difference], weights=weights, after_step=keep_bounds)
        return Change({name: Dense(difference.detach().cpu())})
