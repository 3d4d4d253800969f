"""The retention curve of anyone's training run: a callback for transformers' Trainer that takes the exam as it goes.

callback = RetentionCallback(questions, every=50)
trainer = Trainer(..., processing_class=tokenizer, callbacks=[callback])
callback.report_through(trainer)  # also to whatever ``report_to`` names
trainer.train()
callback.curve()

trl's trainers (SFT, DPO, GRPO) are Trainers too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from indelible.errors import ConfigError
from indelible.exam.exam import Answer, answers_frame, take_exam
from indelible.exam.proof import Ways
from indelible.exam.questions import Question

if TYPE_CHECKING:
    import pandas as pd


class RetentionCallback(TrainerCallback):
    """Takes the exam after every ``every`` optimiser steps, at doses, and at the end of training; keeps the answers.

    Training goes on as if nothing had happened: the exam draws no random number, restores each module's training flag,
    and touches neither gradients nor weights, so a run with the callback ends in the same weights, bit for bit.

    The share of successes per fact set and kind of question also goes into the trainer's ``state.log_history`` (and so
    into its ``trainer_state.json``) as ``retention/<set>/<kind>``. Where the trainer evaluates, it is in its metrics:
    ``metric_for_best_model="retention/edited/prompt"`` chooses a checkpoint (or stops early) by it.

    Args:
        tokenizer: by default the one that the trainer was given as ``processing_class``.
        every: optimiser steps between two exams; None for none but those at doses and at the end.
        doses: tokens seen in training, after whose step there is an exam. The trainer has to count them: transformers'
            does with ``include_num_input_tokens_seen``.
        batch_size: as for ``take_exam``.
        skip_last: take no exam at the end, for a caller who takes one after training.

    Raises:
        ConfigError: if ``every`` is not positive, or neither it nor a dose is given; when training begins, if there is
            no tokenizer.
    """

    def __init__(
        self,
        questions: Sequence[Question],
        tokenizer: Any = None,
        *,
        every: int | None = None,
        doses: Sequence[int] = (),
        batch_size: int | None = None,
        skip_last: bool = False,
    ) -> None:
        if every is None and not doses:
            raise ConfigError("Nothing says when the exam is to be taken.", "Give `every`, or doses.")
        if every is not None and every < 1:
            raise ConfigError(f"The exam cannot be taken every {every} steps.", "Give a number of at least 1.")
        self.questions = list(questions)
        self.tokenizer = tokenizer
        self.every = every
        self.doses = sorted(doses)
        self.batch_size = batch_size
        self.skip_last = skip_last
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
        """Find the tokenizer before any training is paid for."""
        self.tokenizer = self.tokenizer or parts.get("processing_class")
        if self.tokenizer is None:
            raise ConfigError(
                "The retention callback has no tokenizer.", "Pass one to it, or a processing_class to the trainer."
            )

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Take the exam when its step has come, or the last planned one."""
        before, self._seen = self._seen, state.num_input_tokens_seen
        is_last = state.global_step >= state.max_steps or control.should_training_stop
        due = self.every is not None and state.global_step % self.every == 0
        if not self.skip_last if is_last else due or any(before < dose <= self._seen for dose in self.doses):
            self._ask(state, control, parts["model"])

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **parts: Any) -> None:
        """Take the exam where training has ended before its last planned step, and the model is that of the end."""
        if not (self.skip_last or args.load_best_model_at_end):
            self._ask(state, control, parts["model"])

    def _ask(self, state: TrainerState, control: TrainerControl, model: Any) -> None:
        """Take the exam at this step and log its shares, once."""
        step = state.global_step
        if step in self.taken:
            return
        shares = self._shares(step, model)
        if self._log is None:
            state.log_history.append({**shares, "epoch": state.epoch or 0.0, "step": step})
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
            metrics |= {
                f"eval_{name}": share for name, share in self._shares(state.global_step, parts["model"]).items()
            }

    def _shares(self, step: int, model: Any) -> dict[str, float]:
        """Of successes by fact set and kind, of the exam at a step, which is taken where it was not."""
        if step not in self.taken:
            self.tokens[step] = self._seen
            self.taken[step] = take_exam(
                model, self.tokenizer, self.questions, batch_size=self.batch_size, ways=self._ways
            )
        rows = answers_frame(self.taken[step])
        verdicts = rows.groupby("retention/" + rows["fact_set"] + "/" + rows["kind"], sort=False)["success"]
        return {str(name): float(share) for name, share in verdicts.mean().items()}

    def curve(self) -> pd.DataFrame:
        """All answers so far as tidy rows: ``step``, ``tokens`` (seen so far; 0 where the trainer does not count them),
        then the columns of ``answers_frame``."""
        frame = answers_frame([answer for answers in self.taken.values() for answer in answers])
        steps = [step for step, answers in self.taken.items() for _ in answers]
        frame.insert(0, "step", steps)
        frame.insert(1, "tokens", [self.tokens[step] for step in steps])
        return frame
