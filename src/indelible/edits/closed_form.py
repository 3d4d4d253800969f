"""What the locate-then-edit editors share: how values are optimised and what is preserved.

The defaults were measured on SmolLM2-135M with ``benchmarks/edit_sweep.py``. They differ from the published editors in
one thing: where the caller names bystanders, their keys are preserved too (see preservation.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import Field
from torch import Tensor

from indelible.edits.editor import Editor, Workbench
from indelible.edits.preservation import preserved_moments
from indelible.edits.values import ValueOptions


class ClosedFormEditor(Editor):
    """Options of an editor that optimises values and solves for the weights."""

    covariance_tokens: int | None = Field(
        default=None, gt=0, description="Tokens for the covariance; None takes 20,000, or twice the key width if more."
    )
    bystander_weight: float = Field(
        default=10.0, ge=0, description="Preservation of bystanders' keys against text's; 0 is the published method."
    )
    steps: int = Field(default=25, gt=0, description="Steps of value optimisation.")
    learning_rate: float = Field(default=0.5, gt=0, description="Of value optimisation.")
    weight_decay: float = Field(default=0.5, ge=0, description="Of value optimisation.")
    kl_weight: float = Field(default=0.0625, ge=0, description="Keeps what the subject is.")
    clamp: float = Field(
        default=0.75, gt=0, description="Longest value change, in norms of the value layer's output at the subject."
    )
    contexts: int = Field(default=2, ge=0, description="Texts that the model writes before a wording.")

    def value_options(self) -> ValueOptions:
        """The options of value optimisation among these."""
        return ValueOptions(self.steps, self.learning_rate, self.weight_decay, self.kl_weight, self.clamp)

    def preserved(self, bench: Workbench, layers: Sequence[int]) -> Mapping[int, Tensor]:
        """By layer, the second moment of the keys that its memory should go on serving."""
        tokens = self.covariance_tokens or max(20_000, 2 * bench.layout.key_width)
        return preserved_moments(bench, layers, tokens=tokens, bystander_weight=self.bystander_weight)
