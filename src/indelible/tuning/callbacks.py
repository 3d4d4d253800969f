"""What watches a training run: losses, the stop at a held-out loss, divergence, and progress.

Also the wrapper that keeps other people's callbacks from disturbing the run that they watch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from indelible.errors import TrainingDivergedError
from indelible.tuning.randomness import kept_random_state
from indelible.tuning.settings import TuningSettings


class Watch(TrainerCallback):
    """Logs every step, takes held-out losses, stops below one, and ends a run that diverges.

    Args:
        settings: the run's settings.
        heldout_loss: computes the held-out loss now.
        figure: what the held-out loss is, for the note.
        progress: called with steps done, steps at most, and a note.
    """

    def __init__(
        self,
        settings: TuningSettings,
        heldout_loss: Callable[[], float],
        figure: str,
        progress: Callable[[int, int, str], None] | None,
    ) -> None:
        self.settings = settings
        self.heldout_loss = heldout_loss
        self.figure = figure
        self.progress = progress
        self.log: list[dict[str, float]] = []

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """After each step: check it, record it, and at the interval take the held-out loss."""
        if not logs or "loss" not in logs:
            return  # the summary at the end
        step = state.global_step
        entry = {"step": step, **{key: float(logs[key]) for key in ("loss", "grad_norm", "learning_rate")}}
        for name, value in (("loss", entry["loss"]), ("gradient norm", entry["grad_norm"])):
            if not math.isfinite(value):
                raise TrainingDivergedError(
                    f"The {name} became {value} at step {step} with learning rate {self.settings.learning_rate:g}.",
                    "Lower learning_rate.",
                )
        note = f"loss {entry['loss']:.3f}"
        interval = self.settings.evaluation_interval
        if interval is not None and step % interval == 0:
            entry["heldout"] = self.heldout_loss()
            note += f", held-out {entry['heldout']:.3f} ({self.figure})"
            if self.settings.stop_below is not None and entry["heldout"] < self.settings.stop_below:
                control.should_training_stop = True
        self.log.append(entry)
        if self.progress is not None:
            self.progress(step, self.settings.steps, note)


class Undisturbing(TrainerCallback):
    """Other people's callbacks, with the generators of random numbers given back as they were after each event.

    They are called in order; what one decides about the course of training, the next one sees.
    """

    def __init__(self, callbacks: Sequence[TrainerCallback]) -> None:
        for name in dir(TrainerCallback):
            if name.startswith("on_"):
                setattr(self, name, _in_turn([getattr(callback, name) for callback in callbacks]))


def _in_turn(events: Sequence[Callable[..., Any]]) -> Callable[..., Any]:
    def called(args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> TrainerControl:
        with kept_random_state():
            for event in events:
                control = event(args, state, control, **kwargs) or control
        return control

    return called
