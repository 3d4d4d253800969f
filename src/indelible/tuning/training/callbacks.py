"""What watches a training run: losses, held-out figures, divergence, progress, and other people's callbacks, which are
kept from disturbing it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from indelible.errors import TrainingDivergedError
from indelible.progress import Progress
from indelible.tuning.objective import Judge, Run
from indelible.tuning.randomness import kept_random_state
from indelible.tuning.training.stopping import StopRules


@dataclass(frozen=True)
class Reached:
    """A dose, the step that reached it, the tokens seen by then, and the utility then, on held-out rows."""

    dose: int
    step: int
    tokens: int
    figure: float


class Watch(TrainerCallback):
    """Logs every step, takes held-out figures, ends a run as its dose and its rules say, and one that diverges.
    ``last_look`` is the step of the last figures, and they; ``doses`` are those that were reached."""

    def __init__(
        self, run: Run[Any], rules: StopRules, judge: Judge, progress: Progress | None, tokens: Callable[[], int]
    ) -> None:
        self.run, self.rules, self.judge, self.progress, self.tokens = run, rules, judge, progress, tokens
        self.log: list[dict[str, float]] = []
        self.last_look: tuple[int, Mapping[str, float]] = (0, {})
        self.doses: list[Reached] = []

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Tell the trainer's state how many tokens were seen, and end the run at the largest dose."""
        state.num_input_tokens_seen = self.tokens()
        dose = self.run.settings.dose
        if dose and state.num_input_tokens_seen >= dose[-1]:
            control.should_training_stop = True

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """After each step: check it, record it, and at the interval take the held-out figures."""
        if not logs or "loss" not in logs:
            return  # the summary at the end
        step, seen = state.global_step, state.num_input_tokens_seen
        reached = [dose for dose in self.run.settings.dose[len(self.doses) :] if dose <= seen]
        entry = {key: float(value) for key, value in logs.items() if isinstance(value, int | float)}
        entry |= {"step": step, "tokens": seen}
        for name, key in (("loss", "loss"), ("gradient norm", "grad_norm")):
            if not math.isfinite(entry.get(key, 0.0)):
                where = f"at step {step} with learning rate {self.run.settings.learning_rate:g}"
                raise TrainingDivergedError(f"The {name} became {entry[key]} {where}.", "Lower learning_rate.")
        note = f"loss {entry['loss']:.3f}"
        interval = self.run.settings.evaluation_interval
        if reached or (interval is not None and step % interval == 0):
            figures = self.judge({*self.rules.names, self.rules.utility} if reached else self.rules.names)
            self.last_look = step, figures
            self.doses += [Reached(dose, step, seen, figures[self.rules.utility]) for dose in reached]
            entry |= {f"heldout_{name}": value for name, value in figures.items()}
            note += "".join(f", held-out {name} {figures[name]:.3f}" for name in self.rules.names)
            if self.rules.stop(figures):
                control.should_training_stop = True
        self.log.append(entry)
        if self.progress is not None:
            self.progress(step, self.run.steps, note)


class Undisturbing(TrainerCallback):
    """Other people's callbacks, with the generators of random numbers given back as they were after each event. Each
    sees what the one before decided; they get the language model itself, whatever an objective has put around it."""

    def __init__(self, callbacks: Sequence[TrainerCallback], model: PreTrainedModel) -> None:
        self.model = model
        for name in dir(TrainerCallback):
            if name.startswith("on_"):
                setattr(self, name, partial(self._in_turn, [getattr(callback, name) for callback in callbacks]))

    def _in_turn(
        self,
        events: Sequence[Callable[..., Any]],
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,
    ) -> TrainerControl:
        with kept_random_state():
            for event in events:
                control = event(args, state, control, **{**kwargs, "model": self.model}) or control
        return control
