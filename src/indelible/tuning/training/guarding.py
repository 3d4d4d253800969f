"""The callback that lets protections have their say in any trainer: penalties before an optimizer step, corrections
after it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch.nn.utils import get_total_norm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from indelible.errors import ConfigError
from indelible.models.trace import evaluation_mode
from indelible.tuning.protection import Correction, Guarded, Penalty, Protection
from indelible.tuning.randomness import kept_random_state
from indelible.tuning.training.callbacks import Stopwatch


class Guarding(TrainerCallback):
    """Adds the gradients of penalties to those of each optimizer step, and corrects the weights after it. The trainer
    has clipped the task's gradients by then; those of the penalties are clipped to the same norm, or else Adam would
    follow one that comes seldom, and so weighs much, for many steps. Random state, and the model's mode, are as before
    after each. ``clock`` has the seconds that were spent before a first step."""

    version: ClassVar[int] = 2
    """Raised when the same protections have another say than before, so that older results are not reused."""

    def __init__(
        self,
        protections: Sequence[Protection],
        guarded: Guarded,
        computing: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        """``computing`` opens the precision in which penalties are computed; the weights' own without it."""
        self.protections, self.guarded, self.computing = protections, guarded, computing
        self.penalties: list[tuple[str, Penalty]] | None = None
        self.corrections: list[Correction] = []
        self.clock = Stopwatch(guarded.model.device)
        self._corrected: Mapping[str, torch.Tensor] = {}

    def prepare(self) -> None:
        """Make what is compared with, of the model as it is; done at the start of training, and to be called before it
        where that goes on from a checkpoint, whose weights are tuned already.

        Penalties are made once, in the precision in which they are computed, or else what rounding changes would be
        penalised like a change of the weights; corrections for the parameters that are trained now.

        Raises:
            ConfigError: if a protection finds nothing that it could hold.
        """
        with self.clock.running(), kept_random_state(), evaluation_mode(self.guarded.model):
            if self.penalties is None:
                with self.computing():
                    penalties = [(str(one), one.penalty(self.guarded)) for one in self.protections]
                self.penalties = [(name, penalty) for name, penalty in penalties if penalty is not None]
            if not self._prepared:
                corrections = [one.correction(self.guarded) for one in self.protections]
                self.corrections = [correction for correction in corrections if correction is not None]
                self._corrected = self._trained()

    def _trained(self) -> Mapping[str, torch.Tensor]:
        return {name: one for name, one in self.guarded.model.named_parameters() if one.requires_grad}

    @property
    def _prepared(self) -> bool:
        """Whether all is made, for the parameters that are trained now."""
        trained, before = self._trained(), self._corrected
        same = trained.keys() == before.keys() and all(one is before[name] for name, one in trained.items())
        return self.penalties is not None and same

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """See ``prepare``; where the training of one trainer follows that of another, both are held against the model
        before the first.

        Raises:
            ConfigError: as ``prepare``, or if a checkpoint's weights stand where the edited model should be looked at.
        """
        if state.global_step and not self._prepared:
            raise ConfigError(
                f"Training goes on from step {state.global_step} of a checkpoint, whose weights are tuned already: "
                "what the edited model was is not known to its protection.",
                "Call the callback's prepare() before train(), while the model is the edited one.",
            )
        self.prepare()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Add the gradients of all penalties.

        Raises:
            ConfigError: if no weight that is trained moves what one of them is about.
        """
        losses = []
        for name, penalty in self.penalties or ():
            with kept_random_state(), evaluation_mode(self.guarded.model), self.computing():
                loss = penalty(state.global_step)
            if loss is None:
                continue
            if not loss.requires_grad:
                raise ConfigError(
                    f"No weight that is trained moves what {name!r} holds.", "Freeze less, or protect otherwise."
                )
            losses.append(loss)
        if not losses:
            return
        trained = [one for one in self.guarded.model.parameters() if one.requires_grad]
        of_task = [one.grad for one in trained]
        for one in trained:
            one.grad = None
        torch.stack(losses).sum().backward()
        share = 1.0
        if args.max_grad_norm:
            length = float(get_total_norm([one.grad for one in trained if one.grad is not None]))
            share = min(1.0, args.max_grad_norm / (length + 1e-6))
        for one, gradient in zip(trained, of_task, strict=True):
            if gradient is None:
                one.grad = None if one.grad is None else one.grad.mul_(share)
            else:
                one.grad = gradient if one.grad is None else gradient.add_(one.grad, alpha=share)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Correct the weights."""
        for correction in self.corrections:
            correction(kwargs["optimizer"])
