"""Why edits are lost, in a study: what an explaining step finds, the weights that it needs, and the tables of a run.

A step of tuning keeps no weights by itself, since they are as large as the model. In arms that are to be explained it
keeps those that tuning changed, in float32, beside its answers.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.facts.fact import Fact
from indelible.models.layout import Layout
from indelible.why.drift import Position, measure_drift
from indelible.why.mixtures import mixture_exams, own_prompts, parameter_groups

WEIGHTS = "weights.safetensors"
MIXTURES = "mixtures.parquet"
DRIFT = "drift.parquet"


@dataclass(frozen=True)
class Explanation:
    """What is found about one edited and one tuned model.

    Attributes:
        mixtures: one row per fact × mixture (see ``probing.mixtures``); what ``analysis.shares`` reads.
        drift: one row per edited fact × quantity (see ``probing.drift``).
    """

    mixtures: pd.DataFrame
    drift: pd.DataFrame

    def write(self, folder: Path) -> None:
        """Both tables as Parquet."""
        self.mixtures.to_parquet(folder / MIXTURES, index=False)
        self.drift.to_parquet(folder / DRIFT, index=False)


def explain_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    edit: Edit,
    edited: Sequence[Fact],
    intrinsic: Sequence[Fact],
    tuned: Mapping[str, Tensor],
    *,
    progress: Callable[[int, int, str], None] | None = None,
) -> Explanation:
    """Take the exam on every mixture of edited and tuned weights, and measure what moved under the edit.

    Args:
        model: with the edit in it; left as it was, bit for bit.
        tokenizer: the model's.
        layout: the model's.
        edit: what is in the model.
        edited: edited facts, with their new objects.
        intrinsic: facts that the model knows from pre-training.
        tuned: weights after tuning; what is left out did not change.
        progress: called with mixtures done, their total, and a note.

    Raises:
        ModelError: if the tuned weights do not fit the model, or none of them differs.
        EditError: if the edit lies outside the model's layers.
        FactsError: if a prompt or an object has no tokens.
    """
    changes_weights = isinstance(edit, WeightUpdate)
    groups = parameter_groups(model, layout, edit.parameters, changes_weights=changes_weights)
    questions = own_prompts(edited, intrinsic, context=edit.context)
    mixtures = mixture_exams(model, tokenizer, questions, groups, tuned, progress=progress)
    # What stands beside a memory is asked at the prompt's end; a memory that holds edits, at their subjects.
    keys_at: Position = "subject" if changes_weights else "prompt"
    drift = measure_drift(
        model, tokenizer, layout, edited, edit.parameters, tuned, keys_at=keys_at, context=edit.context
    )
    return Explanation(mixtures, drift)


def snapshot(model: nn.Module, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Copies of a model's parameters on the processor, but for those that are named."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if name not in without
    }


def changed_since(before: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The parameters that differ from what ``snapshot`` kept, as they are now; the snapshot's own memory is reused."""
    found = {}
    for name, kept in before.items():
        now = model.get_parameter(name).detach()
        if not torch.equal(kept, now.cpu()):
            found[name] = kept.copy_(now)
    return found


def keep_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Write the weights that tuning changed into its step's folder."""
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / WEIGHTS)
    (folder / WEIGHTS).chmod(0o644)  # safetensors writes for its owner alone


def kept_weights(folder: Path) -> dict[str, Tensor]:
    """Read them again."""
    return load_file(folder / WEIGHTS)
