"""Where fine-tuning lost facts: asked on every mixture of edited and tuned weights, and what moved under the edit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pandas as pd
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.weights import WeightUpdate
from indelible.errors import EditError, FactsError, ModelError
from indelible.exam.exam import take_exam
from indelible.exam.known import facts_known_to
from indelible.exam.questions import own_prompts
from indelible.facts.fact import Fact
from indelible.files import disk_errors
from indelible.models.layout import Layout, find_layout
from indelible.models.load import LoadedModel, load, opened
from indelible.progress import Jobs, Progress, silently
from indelible.why.drift import measure_drift
from indelible.why.drift_summary import drift_summary
from indelible.why.mixtures import mixture_exams, parameter_groups
from indelible.why.shares import NO_GROUP, mask_forecast, shares

N_INTRINSIC = 60
"""Built-in facts that are asked beside the edited ones, where none are given."""
WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Explanation:
    """Where one tuned model lost facts of one edited model: the rows of `mixtures.mixture_exams` and of
    `drift.measure_drift`, of the arm that the tuned model is, and the seed of the bootstrap."""

    mixtures: pd.DataFrame
    drift: pd.DataFrame
    seed: int = 0

    @cached_property
    def shares(self) -> pd.DataFrame:
        """Each group's share of the retention that was lost (see ``shares.shares``)."""
        return shares(self.mixtures, seed=self.seed)

    @cached_property
    def log_prob(self) -> pd.DataFrame:
        """Each group's share of the answers' fall in log-probability, in nats."""
        return shares(self.mixtures, of="log_prob", seed=self.seed)

    @cached_property
    def masks(self) -> pd.DataFrame:
        """What each freeze mask would have kept (see ``shares.mask_forecast``)."""
        return mask_forecast(self.mixtures, seed=self.seed)

    @cached_property
    def turned(self) -> pd.DataFrame:
        """Mean drift over the edited facts (see ``drift_summary``)."""
        return drift_summary(self.drift, seed=self.seed)

    @cached_property
    def retention(self) -> pd.DataFrame:
        """By fact set: facts asked, those that succeed when edited, and those of them that do when tuned."""
        whole = max(self.mixtures["mixture"].unique(), key=lambda name: (name != NO_GROUP, name.count("+")))
        found = {}
        for fact_set, rows in self.mixtures.groupby("fact_set"):
            table = rows.pivot(index="fact_id", columns="mixture", values="success").astype(bool)
            kept = table[NO_GROUP] & table[whole]
            found[fact_set] = {"facts": len(table), "edited": int(table[NO_GROUP].sum()), "tuned": int(kept.sum())}
        return pd.DataFrame.from_dict(found, orient="index")

    def write(self, folder: Path) -> None:
        """Write ``mixtures.parquet`` and ``drift.parquet`` into a folder, which is made if need be."""
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            self.mixtures.to_parquet(folder / "mixtures.parquet", index=False)
            self.drift.to_parquet(folder / "drift.parquet", index=False)


def explain(
    edited: LoadedModel | str,
    tuned: str,
    edit: Edit,
    *,
    facts: Sequence[Fact] | None = None,
    intrinsic: Sequence[Fact] | None = None,
    seed: int = 0,
    jobs: Jobs = silently,
) -> Explanation:
    """Find out where fine-tuning lost facts, without training anything.

    Args:
        edited: the edited model or the base model that the edit was made for, or its name; left as it was.
        tuned: name of the model after fine-tuning, adapters merged.
        facts: edited facts to ask; the edit's by default.
        intrinsic: facts from pre-training to ask; by default built-in ones that the edited model answers, none of them
            about an edited subject.
        seed: of the built-in facts' draw, and of the bootstrap.

    Raises:
        FactsError: if a fact to be asked has no new object, or none of them succeeds in the edited model.
        EditError: if the edited model holds the edit only in part or changed, or the edit lies outside its layers.
        ModelError: if the tuned model does not fit the edited one, or none of its weights differs.
    """
    asked = edit.facts if facts is None else list(facts)
    for fact in asked:
        if fact.new_object is None:
            raise FactsError(f"The fact {fact.id!r} has no new object.", "Give edited facts, or leave them out.")
    loaded = opened(edited)
    after, layout = _weights(loaded, tuned), find_layout(loaded.model)
    with _in_place(edit, loaded):
        with jobs("asking the edited model") as progress:
            questions = own_prompts(asked, "edited", context=edit.context)
            answers = take_exam(loaded.model, loaded.tokenizer, questions, progress=progress)
        if not any(answer.success for answer in answers):
            raise FactsError(
                f"None of the {len(asked)} edited facts succeeds in the edited model, so there is no loss to explain.",
                "Give the facts of this delta, or a firmer edit (`indelible verify` shows what is left of each).",
            )
        if intrinsic is None:
            with jobs("looking for facts that the model knows") as progress:
                about, context = {fact.subject for fact in asked}, edit.context
                intrinsic = facts_known_to(
                    loaded, enough=N_INTRINSIC, seed=seed, but_about=about, context=context, progress=progress
                )
        with jobs("asking") as progress:
            found = explain_loss(loaded.model, loaded.tokenizer, layout, edit, asked, intrinsic, after, progress)
    for table in (found.mixtures, found.drift):
        table.insert(0, "arm", tuned)
        table.insert(1, "seed", 0)
    return Explanation(found.mixtures, found.drift, seed)


def explain_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    layout: Layout,
    edit: Edit,
    edited: Sequence[Fact],
    intrinsic: Sequence[Fact],
    tuned: Mapping[str, Tensor],
    progress: Progress | None = None,
) -> Explanation:
    """Take the exam on every mixture of edited and tuned weights, and measure what moved under the edit.

    The model has the edit in it and is left as it was, bit for bit; weights that are not among the tuned ones did not
    change. The tables lack the columns ``arm`` and ``seed``, which the caller knows.

    Raises:
        ModelError: if the tuned weights do not fit the model, or none of them differs.
        EditError: if the edit lies outside the model's layers.
        FactsError: if a prompt or an object has no tokens.
    """
    changes_weights = isinstance(edit, WeightUpdate)
    groups = parameter_groups(model, layout, edit.parameters, changes_weights=changes_weights)
    questions = [
        *own_prompts(edited, "edited", context=edit.context),
        *own_prompts(intrinsic, "intrinsic", context=edit.context),
    ]
    mixtures = mixture_exams(model, tokenizer, questions, groups, tuned, progress=progress)
    drift = measure_drift(
        model,
        tokenizer,
        layout,
        edited,
        edit.parameters,
        tuned,
        # What stands beside a memory is asked at the prompt's end; a memory that holds edits, at their subjects.
        keys_at="subject" if changes_weights else "prompt",
        context=edit.context,
    )
    return Explanation(mixtures, drift)


def snapshot(model: nn.Module, without: Collection[str] = ()) -> dict[str, Tensor]:
    """Copies of a model's parameters on the processor, but for those that are named."""
    parameters = model.named_parameters()
    return {name: one.detach().to("cpu", copy=True) for name, one in parameters if name not in without}


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


def _weights(edited: LoadedModel, name: str) -> dict[str, Tensor]:
    """The tuned model's weights on the processor; the model itself is let go."""
    tuned = load(name, device="cpu", trust_remote_code=edited.trusted).model.named_parameters(remove_duplicate=False)
    weights = {path: weight.detach() for path, weight in tuned}
    for path, _ in edited.model.named_parameters():
        if path not in weights:
            raise ModelError(
                f"The tuned model {name!r} has no {path!r}, which {edited.name!r} has.",
                "Give two models of one architecture, adapters merged.",
            )
    return weights


def _in_place(edit: Edit, loaded: LoadedModel) -> AbstractContextManager[object]:
    """The model holds the edit inside the block."""
    if not isinstance(edit, WeightUpdate):
        return edit.installed(loaded.model)
    state = edit.presence(loaded.model).state
    if state == "absent":
        return edit.applied(loaded.model)
    if state == "exact":
        return nullcontext()
    raise EditError(
        f"{loaded.name!r} holds the delta neither as the edit left it nor not at all: {state}.",
        "Give the edited model as it was before fine-tuning, or the base model.",
    )
