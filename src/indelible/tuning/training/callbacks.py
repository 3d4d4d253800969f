"""What watches a training run: losses, held-out figures, divergence, progress, and other people's callbacks, which are
kept from disturbing it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from indelible.errors import TrainingDivergedError
from indelible.exam.callback import RetentionCallback
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


class Stopwatch:
    """What training takes by itself: ``seconds`` of the processor where the model is on one, which whoever else is at
    work on the machine does not lengthen, else by the clock."""

    def __init__(self, device: torch.device) -> None:
        self._now = time.process_time if device.type == "cpu" else time.perf_counter
        self.seconds = 0.0

    @contextmanager
    def running(self, sign: int = 1) -> Iterator[None]:
        """Count what is done inside the block."""
        began = self._now()
        try:
            yield
        finally:
            self.seconds += sign * (self._now() - began)

    def stopped(self) -> AbstractContextManager[None]:
        """Do not count what is done inside this block, which is itself inside one that is counted."""
        return self.running(-1)


class Watch(TrainerCallback):
    """Logs every step, takes held-out figures, ends a run as its dose and its rules say, and one that diverges.
    Wherever one of the ``exams`` was taken the utility is taken, too, which ends no run. ``last_look`` is the step of
    the last figures, and they; ``doses`` are those that were reached, ``looks`` every utility on the way, by step."""

    def __init__(
        self,
        run: Run[Any],
        rules: StopRules,
        judge: Judge,
        progress: Progress | None,
        tokens: Callable[[], int],
        clock: Stopwatch,
        exams: Sequence[RetentionCallback] = (),
    ) -> None:
        self.run, self.rules, self.judge, self.progress, self.tokens = run, rules, judge, progress, tokens
        self.clock, self.exams = clock, exams
        self.log: list[dict[str, float]] = []
        self.last_look: tuple[int, Mapping[str, float]] = (0, {})
        self.doses: list[Reached] = []
        self.looks: dict[int, float] = {}

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
        due = bool(reached) or (interval is not None and step % interval == 0)
        examined = any(step in exam.taken for exam in self.exams)
        if due or examined:
            names = {*(self.rules.names if due else ()), *([self.rules.utility] if reached or examined else [])}
            with self.clock.stopped():
                figures = self.judge(names)
            self.last_look = step, figures
            self.doses += [Reached(dose, step, seen, figures[self.rules.utility]) for dose in reached]
            if self.rules.utility in figures:
                self.looks[step] = figures[self.rules.utility]
            entry |= {f"heldout_{name}": value for name, value in figures.items()}
            note += "".join(f", held-out {name} {figures[name]:.3f}" for name in self.rules.names if name in figures)
            if due and self.rules.stop(figures):
                control.should_training_stop = True
        self.log.append(entry)
        if self.progress is not None and state.is_world_process_zero:
            self.progress(step, self.run.steps, note)


class Undisturbing(TrainerCallback):
    """Other people's callbacks, with the generators of random numbers given back as they were after each event. Each
    sees what the one before decided; they get the language model itself, whatever an objective has put around it."""

    def __init__(self, callbacks: Sequence[TrainerCallback], model: PreTrainedModel, clock: Stopwatch) -> None:
        self.model, self.clock = model, clock
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
        with kept_random_state(), self.clock.stopped():
            for event in events:
                control = event(args, state, control, **{**kwargs, "model": self.model}) or control
        return control
