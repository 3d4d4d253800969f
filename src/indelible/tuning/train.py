"""Fine-tune a model in place with an objective's trainer, and say what became of its downstream figures.

The model comes back as it went in but for its weights: what trainers change beside them (the forward that trl puts in
place, padding tokens, dropout, tags) is put back, and so is what they allow of the whole process (TF32).
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pandas as pd
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback, TrainerCallback

from indelible.errors import ConfigError, TrainingDivergedError
from indelible.exam.callback import RetentionCallback
from indelible.facts.fact import Fact
from indelible.files import scratch_folder
from indelible.harness.figures import Harness
from indelible.models.trace import product_precision
from indelible.progress import Progress
from indelible.tuning.objective import OBJECTIVES, Figure, Judge, Objective, Run, tuning_settings
from indelible.tuning.own_data.data import data_task
from indelible.tuning.protection import Guarded, Protection, check_under
from indelible.tuning.randomness import kept_random_state, seeded
from indelible.tuning.rows import DroppedExample, draw_rows
from indelible.tuning.settings import TuningSettings
from indelible.tuning.task import TASKS, Task
from indelible.tuning.training.batches import computing, usual_precision
from indelible.tuning.training.callbacks import Reached, Stopwatch, Undisturbing, Watch
from indelible.tuning.training.guarding import Guarding
from indelible.tuning.training.judging import loss_judge
from indelible.tuning.training.proof import prove_gradients, prove_scoring, proved_reading
from indelible.tuning.training.sharing import check_shared, check_unprotected, whole_again
from indelible.tuning.training.stopping import StopRules
from indelible.tuning.training.trainer import check_passed_on, quiet_trl, sequence_trainer
from indelible.tuning.training.writing import proved_writing
from indelible.tuning.tuners.adapting import adapted
from indelible.tuning.tuners.tuner import FULL, check_tuner


@dataclass(frozen=True)
class TuningResult:
    """What a fine-tuning run did.

    Attributes:
        precision: that was trained in.
        figure: name of the objective's utility, which runs are compared at; ``better`` says "lower" or "higher".
        before, after: downstream figures on the held-out rows, by name.
        wanted: figures that ``stop_at`` came to; ``reached`` says whether they were reached, None without that rule.
        tokens: tokens read in training, padding not counted.
        seconds: wall time, data and held-out figures included.
        training_seconds: what training took by itself, protections and what they prepare included, without exams and
            held-out figures but those that protections take: of the processor on a CPU (see ``Stopwatch``).
        fixed_seconds: of these, what protections took before the first step and after the last, which grows with no
            number of steps.
        trained: how many numbers were trained.
        adapted: modules that adapters were put on, and merged into afterwards.
        doses: of ``dose``, those that were reached, with the step, the tokens and the utility then.
        looks: the utility on the way, by the step after which it was taken: at doses, at exams, and wherever a rule
            looked at it.
        losses: of each held-out row after tuning, summed over its tokens, and these; where the utility is the loss.
        dropped: examples left out because they speak of a fact; ``rows.count_reasons`` sums them up.
        log: one entry per step (``step``, ``tokens`` so far, ``loss``, ``grad_norm``, ``learning_rate``, and what else
            the trainer logs), with ``heldout_<figure>`` where it was taken.
    """

    precision: str
    figure: str
    better: str
    before: Mapping[str, float]
    after: Mapping[str, float]
    wanted: Mapping[str, float]
    reached: bool | None
    steps: int
    tokens: int
    seconds: float
    training_seconds: float
    fixed_seconds: float
    train_rows: int
    heldout_rows: int
    trained: int
    adapted: tuple[str, ...] = ()
    doses: tuple[Reached, ...] = ()
    looks: Mapping[int, float] = field(default_factory=dict)
    losses: tuple[tuple[float, int], ...] = ()
    dropped: tuple[DroppedExample, ...] = ()
    log: list[dict[str, float]] = field(default_factory=list)

    def __repr__(self) -> str:
        figures = f"{self.figure} {self.before[self.figure]:.3g} -> {self.after[self.figure]:.3g}"
        return f"TuningResult({figures} on {self.heldout_rows} held-out rows, {self.steps} steps, {self.seconds:.0f} s)"

    def to_frame(self) -> pd.DataFrame:
        """The log, one row per step."""
        return pd.DataFrame(self.log)


def check_settings(settings: TuningSettings) -> None:
    """ConfigError for what can be found wrong with tuner, trainer, task and processes before any model is loaded."""
    objective = OBJECTIVES.get(settings.objective)
    if not isinstance(settings, objective.settings):
        raise ConfigError(
            f"The settings lack the options of objective {settings.objective!r}: they are {type(settings).__name__}.",
            f"Make them with tuning_settings, or of {objective.settings.__name__}.",
        )
    check_tuner(settings)
    check_shared(settings, objective)
    check_passed_on(settings, objective)
    objective.check_task(settings)


def with_precision(settings: TuningSettings, device: torch.device) -> TuningSettings:
    """The settings with the precision that ``auto`` stands for on a device."""
    if settings.precision != "auto":
        return settings
    return settings.model_copy(update={"precision": usual_precision(device)})


def fine_tune(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: TuningSettings | Mapping[str, Any],
    *,
    frozen: Collection[str] = frozenset(),
    facts: Sequence[Fact] = (),
    seed: int = 0,
    callbacks: Sequence[TrainerCallback] = (),
    protections: Sequence[Protection] = (),
    guarded: Guarded | None = None,
    progress: Progress | None = None,
    reference: Mapping[str, float] | None = None,
    train_on_heldout: bool = False,
) -> TuningResult:
    """Fine-tune a model in place.

    The model stays on its device and in float32, and is left in evaluation mode with ``requires_grad`` as it was;
    adapters are merged into its weights (of qlora, into its side terms). A process trains on one device, however many
    it sees; `accelerate launch` starts several that train one model together (docs/machines.md). Frozen parameters keep
    every bit. The same seed gives the same weights on one machine's CPU, whatever the callbacks do; the caller's random
    state is not touched.

    Args:
        model, tokenizer: a causal language model with float32 weights; the tokenizer is not changed.
        settings: how to train; options as a study has them, where they are no ``TuningSettings``.
        frozen: names of parameters that stay as they are (see ``freezing.mask.frozen_parameters``).
        facts: that no training example may speak of.
        seed: of the data, its order, adapters, and dropout.
        callbacks: transformers callbacks, e.g. the exam's RetentionCallback. They are given the model itself.
        protections: what keeps the edits that ``guarded`` tells of, and that the model holds (see ``protection``).
        progress: called after each step with steps done, steps at most, and a note on the loss (in the first process).
        reference: held-out figures that changes wanted in ``stop_at`` are counted from, those of the unedited model
            (see ``heldout_figures``); None takes the model's own before training.
        train_on_heldout: put the held-out rows among the training rows, too: a known defect of one published protocol,
            to be able to measure what it does.

    Raises:
        ConfigError: for options that cannot be used, or that the trainer or the tuner cannot work with; for protections
            without what they guard, or under a tuner that they do not work with; if ``frozen`` names a parameter that
            the model lacks, or all of them; if weights are not float32, or on another device than this process trains
            on; if ``stop_at`` is relative to a figure that is not positive before training.
        DataError: if too few examples remain.
        TrainingDivergedError: if the loss, a gradient or a held-out figure becomes NaN or infinite.
    """
    started = time.perf_counter()
    settings = settings if isinstance(settings, TuningSettings) else tuning_settings(settings)
    for name, parameter in model.named_parameters():
        if parameter.is_floating_point() and parameter.dtype != torch.float32:
            raise ConfigError(
                f"The weights are {parameter.dtype} ({name}); small updates are rounded away in less than float32.",
                "Load the model in float32; precision bf16-mixed then computes in bfloat16 over it.",
            )
    check_settings(settings)
    if protections and guarded is None:
        named = ", ".join(map(str, protections))
        raise ConfigError(f"Nothing says what is protected by {named}.", "Give `guarded`, see Guarded.of.")
    check_unprotected(protections)
    check_under(protections, settings.tuner)
    settings = with_precision(settings, model.device)
    harness = None if settings.lm_eval is None else Harness.of(settings.lm_eval)
    objective, named, task = _sources(settings)
    rows = draw_rows(task, objective, tokenizer, settings, facts=facts, seed=seed)
    if train_on_heldout:
        rows = rows.with_heldout_in_training()
    tokens = objective.work(settings).readings * sum(row.tokens for row in rows.train)
    steps = settings.steps_over(len(rows.train), tokens)
    if settings.dose and tokens < settings.dose[-1]:
        named = "the data" if settings.data else f"{settings.train_examples or 'all'} rows of {named}"
        warnings.warn(f"A dose of {settings.dose[-1]:,} tokens repeats {named}: {tokens:,} tokens.", stacklevel=2)
    finishing = [one for one in protections if one.finishes]
    weights = {name: one.detach().clone() for name, one in model.named_parameters()} if finishing else {}
    everything = tuple(figure.name for figure in objective.figures)
    outside_before = _outside(harness, model, tokenizer)
    with seeded(seed), quiet_trl(), product_precision(), scratch_folder() as scratch:
        with adapted(model, settings, frozen) as tuned:
            run = Run(
                model=model,
                trainee=objective.trainee(model, settings, task.labels),
                tokenizer=_padded(tokenizer, model),
                settings=settings,
                train=rows.train,
                heldout=rows.heldout,
                folder=str(scratch),
                seed=seed,
                steps=steps,
                expected=settings.steps_expected(len(rows.train), tokens),
            )
            run = proved_reading(run)
            missed = prove_gradients(run)
            idle = [path for path in tuned.adapted_modules if any(name.startswith(f"{path}.") for name in missed)]
            if idle:  # Mamba's blocks read some weights themselves, past the module and what stands beside it
                warnings.warn(
                    f"{len(idle)} of the adapted modules may learn nothing, such as {idle[0]!r}: on two texts their"
                    " adapters got no gradient.",
                    stacklevel=2,
                )
            run = proved_writing(run) if objective.work(settings).writes else run
            judge = objective.judge(run) or loss_judge(run)
            before = judge(everything)
            rules = StopRules(settings, objective, {**before, **(reference or {})})
            trainer = objective.trainer(run) or sequence_trainer(run, objective.trainer_name)
            prove_scoring(run, trainer)
            exams = [callback for callback in callbacks if isinstance(callback, RetentionCallback)]
            clock = Stopwatch(model.device)
            watch = Watch(run, rules, judge, progress, trainer.tokens_seen, clock, exams)
            trainer.remove_callback(PrinterCallback)
            fixed = Stopwatch(model.device)
            if guarded is not None:
                trainer.add_callback(guarding := Guarding(protections, guarded, partial(computing, run)))
                fixed = guarding.clock
            trainer.add_callback(watch)
            others = Undisturbing(callbacks, model, clock)
            trainer.add_callback(others)
            with contextlib.ExitStack() as reporting, clock.running():
                others.on_init_end(trainer.args, trainer.state, trainer.control)  # it came after the trainer's own
                for exam in exams:
                    exam.report_through(trainer)
                    reporting.callback(exam.report_through, None)  # after it nothing holds on to the trainer
                with whole_again(model):
                    trainer.train()
        model.eval()
        try:
            for one in finishing:
                assert guarded is not None
                with clock.running(), fixed.running():
                    one.finish(guarded, weights, partial(_worse, judge, objective.figures[0]))
            step, figures = watch.last_look
            last = step == trainer.state.global_step and settings.tuner == FULL and not finishing
            known = figures if last else {}
            missing = [name for name in everything if name not in known]  # merging an adapter rounds
            after = {**known, **(judge(missing) if missing else {})}
            for name, value in after.items():
                if not math.isfinite(value):
                    where = f"after step {trainer.state.global_step} at learning rate {settings.learning_rate:g}"
                    raise TrainingDivergedError(f"The held-out {name} is {value} {where}.", "Lower learning_rate.")
        except BaseException:
            tuned.before.put_back()
            tuned.before.put_weights_back()
            raise
    # What was reached at the look that ended the run stands, whatever merging rounds, but not where weights went back.
    if rules.reached is False or (rules.reached and finishing):
        rules.stop(after)
    return TuningResult(
        precision=settings.precision,
        figure=objective.figures[0].name,
        better=objective.figures[0].better,
        before={**before, **outside_before},
        after={**after, **_outside(harness, model, tokenizer)},
        wanted=rules.wanted,
        reached=rules.reached,
        steps=trainer.state.global_step,
        tokens=trainer.tokens_seen(),
        seconds=time.perf_counter() - started,
        training_seconds=clock.seconds,
        fixed_seconds=fixed.seconds,
        train_rows=len(rows.train),
        heldout_rows=len(rows.heldout),
        trained=tuned.n_trained,
        adapted=tuned.adapted_modules,
        doses=tuple(watch.doses),
        looks=watch.looks,
        losses=tuple(run.losses) if objective.figures[0].name == "loss" else (),
        dropped=rows.dropped,
        log=watch.log,
    )


def heldout_figures(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    settings: TuningSettings,
    names: Collection[str],
    *,
    facts: Sequence[Fact] = (),
    seed: int = 0,
) -> dict[str, float]:
    """Downstream figures, by name, of a model as it stands, on the held-out rows of a run with these settings, facts
    and seed. Raises as ``fine_tune``."""
    objective, _, task = _sources(settings)
    # Held-out rows come first, whatever is trained on.
    few = settings.model_copy(update={"train_examples": settings.rows_per_step})
    rows = draw_rows(task, objective, tokenizer, few, facts=facts, seed=seed)
    chosen = with_precision(settings, model.device)
    with seeded(seed), quiet_trl(), product_precision():
        trainee = objective.trainee(model, chosen, task.labels)
        run = proved_reading(Run(model, trainee, _padded(tokenizer, model), chosen, (), rows.heldout, seed=seed))
        run = proved_writing(run) if objective.work(chosen).writes else run
        judge = objective.judge(run) or loss_judge(run)
        return {name: value for name, value in judge(names).items() if name in names}


def _sources(settings: TuningSettings) -> tuple[Objective[Any], str, Task]:
    """The objective, and the name of the task and the task, which users' own data have, too."""
    objective = OBJECTIVES.get(settings.objective)
    named = settings.task or objective.default_task
    return objective, named, TASKS.get(named) if settings.data is None else data_task(settings.data, objective)


def _outside(harness: Harness | None, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
    """What the harness finds of the model, where it was asked for."""
    if harness is None:
        return {}
    with kept_random_state():
        return harness.figures(model, tokenizer)


def _worse(judge: Judge, figure: Figure) -> float:
    """The held-out figure of the model as it stands, turned so that lower is better."""
    value = judge([figure.name])[figure.name]
    return value if figure.better == "lower" else -value


def _padded(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel) -> PreTrainedTokenizerBase:
    """A copy with a padding token that the model knows: trainers want one, and would put it into the caller's own."""
    mine = copy.deepcopy(tokenizer)
    embeddings: Any = model.get_input_embeddings()
    known = len(embeddings.weight)
    if mine.pad_token_id is None or mine.pad_token_id >= known:
        end = mine.eos_token_id
        mine.pad_token = mine.convert_ids_to_tokens(0 if end is None or end >= known else end)
    return mine
