"""The callback that lets protections have their say in any trainer: penalties before an optimizer step, corrections
after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from indelible.edits.deltas.delta import Edit
from indelible.facts.fact import Fact
from indelible.models.load import LoadedModel
from indelible.models.trace import evaluation_mode
from indelible.tuning.protection import Correction, Guarded, Penalty, Protection, protections_from
from indelible.tuning.randomness import kept_random_state


class Guarding(TrainerCallback):
    """Adds the gradients of penalties to those of each optimizer step (behind their clipping, which is about the task
    alone), and corrects the weights after it. Random state, and the model's mode, are as before after each."""

    def __init__(
        self,
        protections: Sequence[Protection],
        guarded: Guarded,
        computing: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """``computing`` opens the precision in which penalties are computed; the weights' own without it."""
        self.protections, self.guarded, self.computing = protections, guarded, computing
        self.penalties: list[Penalty] = []
        self.corrections: list[Correction] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make what is compared with, of the model as it is before the first step."""
        with kept_random_state(), evaluation_mode(self.guarded.model):
            made = [(one.penalty(self.guarded), one.correction(self.guarded)) for one in self.protections]
        self.penalties = [penalty for penalty, _ in made if penalty is not None]
        self.corrections = [correction for _, correction in made if correction is not None]

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the gradients of all penalties."""
        for penalty in self.penalties:
            with kept_random_state(), evaluation_mode(self.guarded.model), self.computing():
                loss = penalty(state.global_step)
            if loss is not None and loss.requires_grad:
                loss.backward()

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Correct the weights."""
        for correction in self.corrections:
            correction(kwargs["optimizer"])


def protect(
    loaded: LoadedModel,
    edit: Edit,
    protections: str | Mapping[str, Mapping[str, Any]] = "key-anchor",
    *,
    paraphrases: int = 0,
    others: Sequence[Fact] = (),
    seed: int = 0,
) -> Guarding:
    """The callback that keeps an edit while any of transformers' or trl's trainers trains the model that holds it.

    What a protection does to the weights when training is over (``interpolate``) is for ``fine_tune`` alone.

    Args:
        loaded: the model with the edit in it, not trained yet.
        protections: as in a study, e.g. ``"key-anchor+replay"`` or ``{"replay": {"share": 0.3}}``.
        paraphrases: with how many each fact was edited.
        others: facts that the model knows, for protections that want such.
        seed: of what is drawn.

    Raises:
        ConfigError: an unknown protection or option.
        EditError, FactsError, LayoutError: as ``Guarded.of``.
    """
    guarded = Guarded.of(loaded.model, loaded.tokenizer, edit, paraphrases=paraphrases, others=others, seed=seed)
    return Guarding(protections_from(protections), guarded)
