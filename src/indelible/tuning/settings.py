"""How a model is fine-tuned, as one flat, typed and validated set of options.

Apart from the training itself so that a study's config can be read without importing torch.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from indelible.errors import UnknownNameError
from indelible.tuning.objectives import OBJECTIVES
from indelible.tuning.tasks import TASKS

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class TuningSettings(BaseModel):
    """Options of one fine-tuning run.

    Unknown names of objectives, tasks and tuners raise UnknownNameError; anything else that is wrong raises pydantic's
    ValidationError, which names the option.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    objective: str = Field("reason", description="what the loss is taken on")
    task: str | None = Field(None, description="where the examples come from; None: the objective's own default")
    tuner: str = Field("full", description="which parameters are trained: full (all that no mask freezes)")
    learning_rate: Positive = Field(1e-4, description="peak learning rate of AdamW")
    steps: Count = Field(40, description="optimizer steps at most")
    batch_size: Count = Field(8, description="rows per forward pass")
    accumulation: Count = Field(1, description="forward passes per optimizer step")
    max_tokens: int = Field(64, ge=4, description="tokens per row at most; text is cut, questions are left out")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="learning rate after the warm-up")
    warmup_steps: int = Field(
        2, ge=0, description="steps in which the learning rate rises linearly; the first of them is taken at 0"
    )
    weight_decay: Share = Field(0.01, description="AdamW's decoupled decay; not on biases and norms")
    max_grad_norm: Positive = Field(1.0, description="gradients are scaled down to this norm")
    stop_below: Positive | None = Field(None, description="stop when the held-out loss is below this")
    evaluate_every: Count | None = Field(
        None, description="steps between held-out losses; None: 10 with stop_below, else only before and after"
    )
    precision: Literal["bf16-mixed", "fp32"] = Field(
        "bf16-mixed", description="bfloat16 autocast over float32 weights, or float32 throughout"
    )
    heldout_examples: Count = Field(64, description="rows kept apart for the held-out loss")
    train_examples: Count | None = Field(
        None, description="rows to train on, repeated when used up; None: as many as the steps take, if there are"
    )

    @field_validator("objective")
    @classmethod
    def _known_objective(cls, name: str) -> str:
        if name not in OBJECTIVES.names():
            raise UnknownNameError("objective", name, OBJECTIVES.names())
        return name

    @field_validator("task")
    @classmethod
    def _known_task(cls, name: str | None) -> str | None:
        if name is not None and name not in TASKS.names():
            raise UnknownNameError("task", name, TASKS.names())
        return name

    @field_validator("tuner")
    @classmethod
    def _known_tuner(cls, name: str) -> str:
        if name != "full":
            raise UnknownNameError("tuner", name, ["full"])
        return name

    @property
    def rows_per_step(self) -> int:
        """Rows that one optimizer step is taken on."""
        return self.batch_size * self.accumulation

    @property
    def evaluation_interval(self) -> int | None:
        """Steps between two held-out losses during training, or None when there are none."""
        if self.evaluate_every is None and self.stop_below is not None:
            return 10
        return self.evaluate_every
