"""How a model is fine-tuned: the options that all objectives share, flat and typed.

An objective with options of its own has a subclass beside it; ``objective.tuning_settings`` picks the class
that belongs to the objective which is named. Nothing here imports torch: a study's config is read without it.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

from indelible.errors import UnknownNameError
from indelible.harness.settings import HarnessSettings
from indelible.tuning.task import TASKS
from indelible.tuning.tuners.tuner import TunerSettings

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]


def _change(text: str) -> str:
    if not re.fullmatch(r"[+-]\d+(\.\d+)?%", text):
        raise ValueError("give a figure, or a change such as -5%")
    return text


RelativeChange = Annotated[str, AfterValidator(_change)]

DEFAULT_OBJECTIVE = "reason"

DEFAULT_STEPS = 40
"""Optimizer steps where neither steps nor epochs are given."""

LOOK_EVERY = 10
"""Steps between two looks at the held-out figures, where a rule needs them and nothing else is said."""


FIELDS = ("prompt", "answer", "text", "label", "chosen", "rejected", "group")
"""What columns can be mapped to."""


class DataSettings(BaseModel):
    """Where a user's own training data are, and what their columns mean. Unknown fields in ``columns`` raise
    UnknownNameError; anything else that is wrong raises pydantic's ValidationError."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        min_length=1, description="a .jsonl, .json, .csv, .tsv or .parquet file, or the id of a data set on the hub"
    )
    columns: dict[str, str] | None = Field(
        None,
        description="field (prompt, answer, text, label, chosen, rejected, group) -> column, or several: a+b; None: "
        "guess by well-known names",
    )
    split: str | None = Field(None, min_length=1, description="of a hub data set; None: train")
    config: str | None = Field(None, min_length=1, description="of a hub data set that has several")
    labels: tuple[str, ...] | None = Field(
        None, description="classify: the label words; labels that are numbers count into them; None: as in the data"
    )

    @field_validator("columns")
    @classmethod
    def _known_fields(cls, columns: dict[str, str] | None) -> dict[str, str] | None:
        for field in columns or ():
            if field not in FIELDS:
                raise UnknownNameError("field of an example", field, FIELDS)
        return columns

    @field_validator("labels")
    @classmethod
    def _several_labels(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and (len(set(labels)) < max(2, len(labels)) or not all(map(str.strip, labels))):
            raise ValueError(f"two or more different label words are needed, not {labels!r}")
        return labels


class TuningSettings(TunerSettings):
    """Options of one fine-tuning run; the tuner's own are beside them. Unknown names of tasks and tuners raise
    UnknownNameError; anything else that is wrong raises pydantic's ValidationError, which names the option."""

    objective: str = Field(DEFAULT_OBJECTIVE, description="what the loss is taken on")
    task: str | None = Field(None, description="where the examples come from; None: the objective's own default")
    data: DataSettings | None = Field(None, description="a file or hub dataset to take the examples from, not a task")
    learning_rate: Positive = Field(1e-4, description="peak learning rate of AdamW")
    steps: Count | None = Field(None, description="optimizer steps at most; None: 40, or as many as epochs ask for")
    epochs: Positive | None = Field(None, description="passes over the training rows at most")
    dose: tuple[Count, ...] = Field(
        (),
        description="tokens seen in training, in place of steps: the run ends at the largest; at each, after the step "
        "that reaches it, facts are asked and held-out figures taken",
    )
    batch_size: Count = Field(8, description="rows per forward pass")
    accumulation: Count = Field(1, description="forward passes per optimizer step")
    max_tokens: int = Field(64, ge=4, description="tokens per row at most; text is cut, questions are left out")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="learning rate after the warm-up")
    warmup_steps: int = Field(
        2, ge=0, description="steps below the peak learning rate, which rises linearly; a tenth of the run at most"
    )
    weight_decay: Share = Field(0.01, description="AdamW's decoupled decay; not on biases, norms and other vectors")
    max_grad_norm: Positive = Field(1.0, description="gradients are scaled down to this norm")
    gradient_checkpointing: bool = Field(False, description="compute activations twice rather than keep them")
    stop_at: dict[str, float | RelativeChange] = Field(
        {},
        description="stop when these held-out figures are reached, e.g. {loss: 3.0} or {accuracy: 0.8}, or when they "
        "differ by so much from the unedited model's, e.g. {loss: -5%}: one figure for all arms of a seed",
    )
    patience: Count | None = Field(None, description="stop when so many looks in a row brought no better figure")
    evaluate_every: Count | None = Field(
        None, description="steps between held-out figures; None: 10 where a stop rule needs them, else only both ends"
    )
    precision: Literal["auto", "bf16-mixed", "fp32"] = Field(
        "auto",
        description="bfloat16 autocast over float32 weights, or float32 throughout; auto: the first where the "
        "processor has bfloat16",
    )
    heldout_examples: Count = Field(64, description="rows kept apart for the held-out figures")
    train_examples: Count | None = Field(
        None, description="rows to train on, repeated when used up; None: as many as the run takes, if there are"
    )
    lm_eval: HarnessSettings | None = Field(
        None,
        description="tasks of lm-evaluation-harness whose figures are taken before and after tuning, too, e.g. "
        "{tasks: [arc_easy], limit: 200}; extra lm-eval",
    )
    trainer: dict[str, Any] = Field({}, description="arguments passed through to the trainer's own arguments class")

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str | None) -> str | None:
        if name is not None and name not in TASKS.names():
            raise UnknownNameError("task", name, TASKS.names())
        return name

    @field_validator("dose")
    @classmethod
    def _rising(cls, dose: tuple[int, ...]) -> tuple[int, ...]:
        if list(dose) != sorted(set(dose)):
            raise ValueError(f"each dose has to be larger than the one before, unlike {list(dose)}")
        return dose

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        if self.dose and (self.steps or self.epochs):
            raise ValueError("dose and steps or epochs both say when the run ends; leave one out (steps: null)")
        if self.task is not None and self.data is not None:
            raise ValueError("task and data both say where examples come from; leave one out")
        if self.epochs is not None and self.train_examples is None:
            raise ValueError("epochs needs train_examples: it counts passes over them")
        return self

    @property
    def rows_per_step(self) -> int:
        """Rows that one optimizer step is taken on."""
        return self.batch_size * self.accumulation

    @property
    def evaluation_interval(self) -> int | None:
        """Steps between two looks at the held-out figures during training, or None when there are none."""
        if self.evaluate_every is None and (self.stop_at or self.patience):
            return LOOK_EVERY
        return self.evaluate_every

    @property
    def steps_at_most(self) -> int:
        """Optimizer steps, if there are as many training rows as are wanted; with a dose, if these are filled."""
        if self.dose:
            return math.ceil(self.dose[-1] / (self.max_tokens * self.batch_size * self.accumulation))
        return self.steps_over(self.train_examples or 0)

    def steps_over(self, rows: int, tokens: int = 1) -> int:
        """Optimizer steps at most with that many training rows, of so many tokens together."""
        if self.dose:
            return math.ceil(rows / self.rows_per_step) * math.ceil(self.dose[-1] / tokens)
        if self.epochs is None:
            return self.steps or DEFAULT_STEPS
        asked = math.ceil(self.epochs * rows / self.rows_per_step)
        return min(asked, self.steps or asked)

    def steps_expected(self, rows: int, tokens: int) -> int:
        """Optimizer steps that a run takes where no rule stops it: with a dose of given rows, which are no whole number
        of passes over them, as many as read it on average."""
        if not self.dose or self.train_examples is None:
            return self.steps_over(rows, tokens)
        return max(1, math.ceil(rows / self.rows_per_step * self.dose[-1] / tokens))
