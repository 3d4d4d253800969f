"""Fine-tune a model in place through transformers' Trainer, and say what became of its held-out loss.

Mixed precision is bfloat16 autocast over float32 weights: in pure bfloat16 small updates are rounded away, which would
pass for retention. The autocast is opened around the training loss only. Leaving it to the Trainer would wrap the
model's forward, and an exam taken by a callback during training would run in another precision than those before and
after it.
"""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainingArguments,
)
from transformers.training_args import ParallelMode

from indelible.errors import ConfigError, TrainingDivergedError
from indelible.facts.fact import Fact
from indelible.tuning.batches import (
    Collator,
    as_dicts,
    at_label_positions,
    autocast,
    mean_token_loss,
    takes_logits_to_keep,
    token_loss,
)
from indelible.tuning.callbacks import Undisturbing, Watch
from indelible.tuning.objectives import OBJECTIVES, Objective
from indelible.tuning.randomness import seeded
from indelible.tuning.rows import DroppedExample, Rows, draw_rows
from indelible.tuning.settings import TuningSettings
from indelible.tuning.tasks import TASKS

__all__ = ["TuningResult", "TuningSettings", "fine_tune"]

SCHEDULES = {"constant": "constant_with_warmup", "linear": "linear", "cosine": "cosine"}
"""Names of the schedules as transformers knows them."""


@dataclass(frozen=True)
class TuningResult:
    """What a fine-tuning run did.

    Attributes:
        heldout_before, heldout_after: mean loss over the loss-bearing tokens of the held-out rows.
        steps: optimizer steps taken.
        tokens: tokens read in training, padding not counted (on this process, where there are several).
        seconds: wall time, data and held-out losses included.
        train_rows, heldout_rows: numbers of rows.
        dropped: examples left out because they speak of a fact; ``rows.count_reasons`` sums them up.
        log: one entry per step (``step``, ``loss``, ``grad_norm``, ``learning_rate``), with ``heldout`` where it was
            computed.
    """

    heldout_before: float
    heldout_after: float
    steps: int
    tokens: int
    seconds: float
    train_rows: int
    heldout_rows: int
    dropped: tuple[DroppedExample, ...] = ()
    log: list[dict[str, float]] = field(default_factory=list)


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: TuningSettings,
    *,
    frozen: Collection[str] = frozenset(),
    facts: Sequence[Fact] = (),
    seed: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
    progress: Callable[[int, int, str], None] | None = None,
) -> TuningResult:
    """Fine-tune a model in place.

    The model stays on its device and in float32, and is left in evaluation mode with ``requires_grad`` as it was. A
    process trains on one device, however many it sees; start several processes to use several. Frozen parameters keep
    every bit. The same seed gives the same weights on one machine's CPU, whatever the callbacks do; the caller's random
    state is not touched.

    Args:
        model: a causal language model with float32 weights.
        tokenizer: its tokenizer; it is not changed, a missing padding token included.
        settings: how to train.
        frozen: names of parameters that stay as they are (see ``freeze.frozen_parameters``).
        facts: facts that no training example may speak of.
        seed: of the data, its order, and dropout.
        callbacks: transformers callbacks, e.g. probing's RetentionCallback.
        progress: called after each step with steps done, steps at most, and a note on the loss.

    Raises:
        ConfigError: if ``frozen`` names a parameter that the model lacks, or all of them, if weights are not float32,
            or if the model is on another device than this process trains on.
        DataError: if too few examples remain.
        TrainingDivergedError: if the loss or a gradient becomes NaN or infinite.
    """
    started = time.perf_counter()
    _check_precision(model)
    objective = OBJECTIVES.get(settings.objective)
    rows = _rows(objective, tokenizer, settings, facts, seed)
    pad = next((id_ for id_ in (tokenizer.pad_token_id, tokenizer.eos_token_id) if id_ is not None), 0)

    def heldout_loss() -> float:
        return mean_token_loss(
            model, rows.heldout, pad=pad, batch_size=2 * settings.batch_size, precision=settings.precision
        )

    with seeded(seed), _prepared(model, frozen), tempfile.TemporaryDirectory(prefix="indelible-") as folder:
        arguments = _arguments(model, settings, folder, seed)
        before = heldout_loss()
        watch = Watch(settings, heldout_loss, objective.heldout_figure, progress)
        trainer = _Trainer(
            model=model,
            args=arguments,
            train_dataset=as_dicts(rows.train),
            data_collator=Collator(pad),
            compute_loss_func=token_loss,
            callbacks=[watch, Undisturbing(callbacks)],
        )
        trainer.precision = settings.precision
        trainer.remove_callback(PrinterCallback)
        trainer.train()
        after = watch.log[-1].get("heldout", math.nan) if watch.log else math.nan
        after = after if math.isfinite(after) else heldout_loss()
    steps = trainer.state.global_step
    if not math.isfinite(after):
        raise TrainingDivergedError(
            f"The held-out loss is {after} after step {steps} at learning rate {settings.learning_rate:g}.",
            "Lower learning_rate.",
        )
    return TuningResult(
        heldout_before=before,
        heldout_after=after,
        steps=steps,
        tokens=trainer.tokens,
        seconds=time.perf_counter() - started,
        train_rows=len(rows.train),
        heldout_rows=len(rows.heldout),
        dropped=rows.dropped,
        log=watch.log,
    )


class _Trainer(Trainer):
    """transformers' Trainer with logits at label positions only, its own autocast, and a count of tokens."""

    precision = "fp32"
    tokens = 0

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        self.tokens += int(inputs["attention_mask"].sum())
        batch = at_label_positions(inputs, takes_logits_to_keep(self.accelerator.unwrap_model(model)))
        with autocast(self.args.device, self.precision):
            return super().compute_loss(model, batch, return_outputs, num_items_in_batch)


def _rows(
    objective: Objective,
    tokenizer: PreTrainedTokenizerBase,
    settings: TuningSettings,
    facts: Sequence[Fact],
    seed: int,
) -> Rows:
    task = TASKS.get(settings.task or objective.default_task)
    wanted = settings.train_examples or settings.steps * settings.rows_per_step
    return draw_rows(
        task(seed),
        objective,
        tokenizer,
        facts,
        heldout=settings.heldout_examples,
        train=wanted,
        at_least=min(wanted, settings.rows_per_step),
        max_tokens=settings.max_tokens,
    )


def _check_precision(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ConfigError(
                f"The weights are {parameter.dtype} ({name}); small updates are rounded away in less than float32.",
                "Load the model in float32; precision bf16-mixed then computes in bfloat16 over it.",
            )


def _arguments(model: PreTrainedModel, settings: TuningSettings, folder: str, seed: int) -> TrainingArguments:
    on_cpu = model.device.type == "cpu"
    arguments = TrainingArguments(
        output_dir=folder,
        use_cpu=on_cpu,
        seed=seed % 2**32,
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        train_sampling_strategy="group_by_length",
        dataloader_pin_memory=not on_cpu,
        remove_unused_columns=False,
        optim="adamw_torch_fused",
        learning_rate=settings.learning_rate,
        lr_scheduler_type=SCHEDULES[settings.schedule],
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
    # With several GPUs in view the Trainer would split each batch over replicas, and what is watched would be one.
    arguments._n_gpu = min(1, arguments.n_gpu)
    if arguments.parallel_mode != ParallelMode.DISTRIBUTED and not _same_device(model.device, arguments.device):
        raise ConfigError(
            f"The model is on {model.device}, and this process would train it on {arguments.device}.",
            f"Move it to {arguments.device}, or show the process that device alone (CUDA_VISIBLE_DEVICES).",
        )
    return arguments


def _same_device(one: torch.device, other: torch.device) -> bool:
    """Whether two devices are the same; without an index, a kind's first is meant."""
    return (one.type, one.index or 0) == (other.type, other.index or 0)


@contextlib.contextmanager
def _prepared(model: PreTrainedModel, frozen: Collection[str]) -> Iterator[None]:
    """Freeze parameters for the block; afterwards restore what training changes beside weights."""
    parameters = dict(model.named_parameters())
    unknown = sorted(set(frozen) - set(parameters))
    if unknown:
        raise ConfigError(
            f"The frozen parameter {unknown[0]!r} is not in this model.",
            "Take the names from frozen_parameters for this very model.",
        )
    required = {name: parameter.requires_grad for name, parameter in parameters.items()}
    if not any(required[name] for name in parameters.keys() - set(frozen)):
        raise ConfigError("Every parameter is frozen.", "Use a mask that freezes less.")
    use_cache = model.config.use_cache
    try:
        for name in frozen:
            parameters[name].requires_grad_(False)
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.requires_grad_(required[name])
            parameter.grad = None
        model.config.use_cache = use_cache
        model.eval()
