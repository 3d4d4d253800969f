"""A classification head on a language model's trunk, for as long as it is trained.

The trunk is the model itself, run up to what its output head would read; no family needs a class of its own.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from indelible.models.layout import Layout
from indelible.models.trace import capture


class HeadOnTrunk(nn.Module):
    """Scores of labels, read off the trunk's state at each text's last token.

    Args:
        model: whose trunk it is; its parameters are trained as their ``requires_grad`` says.
        layout: the model's.
        labels: number of labels. The head begins as small random numbers from torch's generator, without bias, as in
            transformers' models for sequence classification.
    """

    def __init__(self, model: PreTrainedModel, layout: Layout, labels: int) -> None:
        super().__init__()
        self.model = model
        self._head = layout.head
        self.score = nn.Linear(layout.hidden_size, labels, bias=False, device=model.device)
        nn.init.normal_(self.score.weight, std=0.02)

    @property
    def config(self) -> Any:
        """The model's."""
        return self.model.config

    @property
    def device(self) -> torch.device:
        """The model's."""
        return self.model.device

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> SequenceClassifierOutput:
        """Scores ``(rows, labels)``.

        Args:
            input_ids: ``(rows, tokens)``, padded on the right.
            attention_mask: likewise.
        """
        last = attention_mask.sum(1) - 1
        with capture(self.model, inputs_of=[self._head], stop_before=self._head) as seen:
            self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)
        states = seen.inputs[self._head]
        rows = torch.arange(len(states), device=states.device)
        return SequenceClassifierOutput(logits=self.score(states[rows, last]))
