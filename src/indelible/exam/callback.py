"""The retention curve of anyone's training run: a callback for transformers' Trainer that takes the exam as it goes.

callback = RetentionCallback(questions, stop_below=0.8)
trainer = Trainer(..., processing_class=tokenizer, callbacks=[callback])
callback.report_through(trainer)  # also to whatever ``report_to`` names, such as W&B or TensorBoard
trainer.train()
callback.curve()

trl's trainers (SFT, DPO, GRPO) are Trainers too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from statistics import fmean
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from indelible.errors import ConfigError
from indelible.exam.exam import Answer, answers_frame, take_exam
from indelible.exam.proof import Ways
from indelible.exam.questions import Question

if TYPE_CHECKING:
    import pandas as pd

PARTS = 10
"""Exams in a run, where nothing says when they are to be taken."""
_KEPT = "retention/edited/prompt"


class RetentionCallback(TrainerCallback):
    """Takes the exam before the first step, after every ``every`` of them, at doses, and at the end of training; keeps
    the answers.

    Training goes on as if nothing had happened: the exam draws no random number, restores each module's training flag,
    and touches neither gradients nor weights, so a run with the callback ends in the same weights, bit for bit.

    Per fact set and kind of question, two shares go into the trainer's ``state.log_history`` (and so into its
    ``trainer_state.json``): ``success/<set>/<kind>``, of all questions those that are answered right now, and
    ``retention/<set>/<kind>``, the same of those that were right at the first exam (where there are any). Where the
    trainer evaluates, they are in its metrics: ``metric_for_best_model="retention/edited/prompt"`` chooses a checkpoint
    by it.

    Args:
        tokenizer: by default the one that the trainer was given as ``processing_class``.
        every: optimiser steps between two exams; None: a tenth of the run, or none but those at doses, where there are
            any.
        doses: tokens seen in training, after whose step there is an exam. The trainer has to count them: transformers'
            does with ``include_num_input_tokens_seen``.
        stop_below: end training at the first exam at which less than this share of the edited facts that were answered
            at the first exam are (``retention/edited/prompt``).
        batch_size: as for ``take_exam``.
        ends: take the exam before the first step and at the end; False for a caller who takes both.

    Raises:
        ConfigError: if ``every`` is not positive, or ``stop_below`` no share; when training begins, if there is no
            tokenizer, or ``stop_below`` is given and no edited fact is answered.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        tokenizer: Any = None,
        *,
        every: int | None = None,
        doses: Sequence[int] = (),
        stop_below: float | None = None,
        batch_size: int | None = None,
        ends: bool = True,
    ) -> None:
        if every is not None and every < 1:
            raise ConfigError(f"The exam cannot be taken every {every} steps.", "Give a number of at least 1.")
        if stop_below is not None and not 0 < stop_below <= 1:
            raise ConfigError(f"stop_below is {stop_below}.", "Give a share above 0 and up to 1.")
        self.questions = list(questions)
        self.tokenizer = tokenizer
        self.every = every
        self.doses = sorted(doses)
        self.stop_below = stop_below
        self.batch_size = batch_size
        self.ends = ends
        self._ways = Ways()
        self.taken: dict[int, list[Answer]] = {}
        self.tokens: dict[int, int] = {}
        self._seen = 0
        self._log: Callable[[dict[str, float]], None] | None = None

    def report_through(self, trainer: Trainer | None) -> None:
        """Send the shares wherever that trainer's ``report_to`` sends its own figures; a callback cannot find it alone.

        None ends it, and lets go of the trainer and its model. Trainers of trl add to a log entry what they have
        gathered since the last one; theirs is left to their own.
        """
        self._log = None if trainer is None else partial(Trainer.log, trainer)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any
    ) -> None:
        """Find the tokenizer before any training is paid for, and take the first exam."""
        self.tokenizer = self.tokenizer or parts.get("processing_class")
        if self.tokenizer is None:
            raise ConfigError(
                "The retention callback has no tokenizer.", "Pass one to it, or a processing_class to the trainer."
            )
        if self.every is None and not self.doses:
            self.every = max(1, round(state.max_steps / PARTS))
        if self.ends or self.stop_below is not None:
            self._ask(state, control, parts["model"])
        if self.stop_below is not None and _KEPT not in self._shares(state, control, parts["model"]):
            raise ConfigError(
                "No edited fact is answered before training, so that nothing of them can be lost.",
                "Apply the edit to the model first, ask edited facts, or leave stop_below out.",
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Take the exam when its step has come, or the last planned one."""
        before, self._seen = self._seen, state.num_input_tokens_seen
        is_last = state.global_step >= state.max_steps or control.should_training_stop
        due = self.every is not None and state.global_step % self.every == 0
        if self.ends if is_last else due or any(before < dose <= self._seen for dose in self.doses):
            self._ask(state, control, parts["model"])

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Take the exam where training has ended before its last planned step, and the model is that of the end."""
        if self.ends and not args.load_best_model_at_end:
            self._ask(state, control, parts["model"])

    def _ask(self, state: TrainerState, control: TrainerControl, model: Any) -> None:
        """Take the exam at this step and log its shares, once."""
        if state.global_step in self.taken:
            return
        shares = self._shares(state, control, model)
        if self._log is None:
            state.log_history.append({**shares, "epoch": state.epoch or 0.0, "step": state.global_step})
        else:
            # Whoever logs takes the trainer's own entry of this step for written, and with it the step's loss and
            # all that other callbacks do when they see it.
            wanted = control.should_log
            self._log(shares)
            control.should_log = wanted

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: dict[str, float] | None = None,
        **parts: Any,
    ) -> None:
        """Put the shares among the metrics that the trainer then chooses its best model by."""
        if metrics is not None:
            shares = self._shares(state, control, parts["model"])
            metrics |= {f"eval_{name}": share for name, share in shares.items()}

    def _shares(self, state: TrainerState, control: TrainerControl, model: Any) -> dict[str, float]:
        """Of successes and of what is retained, by fact set and kind, at this step's exam, which is taken where it was
        not. Training ends where too little is retained."""
        step = state.global_step
        if step not in self.taken:
            self.tokens[step] = self._seen
            self.taken[step] = take_exam(
                model, self.tokenizer, self.questions, batch_size=self.batch_size, ways=self._ways
            )
        first = next(iter(self.taken.values()))
        verdicts: dict[str, list[bool]] = {}
        for then, now in zip(first, self.taken[step], strict=True):
            of = f"{now.question.fact_set}/{now.question.kind}"
            verdicts.setdefault(f"success/{of}", []).append(now.success)
            if then.success:
                verdicts.setdefault(f"retention/{of}", []).append(now.success)
        shares = {name: fmean(found) for name, found in verdicts.items()}
        if self.stop_below is not None and shares.get(_KEPT, 1.0) < self.stop_below:
            control.should_training_stop = True
        return shares

    def curve(self) -> pd.DataFrame:
        """All answers so far as tidy rows: ``step``, ``tokens`` (seen so far; 0 where the trainer does not count them),
        then the columns of ``answers_frame``."""
        frame = answers_frame([answer for answers in self.taken.values() for answer in answers])
        steps = [step for step, answers in self.taken.items() for _ in answers]
        frame.insert(0, "step", steps)
        frame.insert(1, "tokens", [self.tokens[step] for step in steps])
        return frame
