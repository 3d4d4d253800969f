"""Fine-tuning, with the curve of the facts' own prompts on the way and the whole exam at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from transformers import PreTrainedModel

from indelible.edits.deltas.delta import Edit
from indelible.edits.mending import Mending
from indelible.exam.callback import RetentionCallback
from indelible.exam.exam import known_facts
from indelible.facts.fact import Fact
from indelible.facts.joining import joined
from indelible.facts.mentions import Mentions
from indelible.models.modules.nf4 import quantised_by
from indelible.progress import Progress
from indelible.study.design.settings import FactsSettings
from indelible.study.run.base_model import LentModel
from indelible.study.run.cost import Cost, Speed, asking, questions_asked, tuning_cost
from indelible.study.run.exams import ask, keyed, with_curve
from indelible.study.run.kept import (
    TUNING,
    chosen_bystanders,
    chosen_facts,
    edit_path,
    keep_rows,
    kept_edit,
    write_json,
)
from indelible.study.run.step import Done, Job, Material, Outside, Work
from indelible.tuning.freezing.mask import frozen_parameters
from indelible.tuning.objective import OBJECTIVES
from indelible.tuning.protection import Guarded, Protection
from indelible.tuning.rows import count_reasons
from indelible.tuning.settings import TuningSettings
from indelible.tuning.train import fine_tune, heldout_figures
from indelible.tuning.training.guarding import Guarding
from indelible.tuning.tuners.tuner import QLORA
from indelible.why.explain import changed_since, keep_weights, snapshot


@dataclass(frozen=True)
class Tune(Work):
    """A run of tuning.

    ``data`` is the version of the users' own data that it trains on; ``keep_weights`` keeps the weights that it
    changed, for the step that reads them; ``copy`` numbers the models where each fact is edited in one of its own. A
    mask goes by the edit in the model, or, where the base model is tuned, by that of the input ``frozen_by``. ``also``
    names kinds of questions that are asked beside those of every exam.
    """

    kind: ClassVar[str] = "tune"
    version: ClassVar[int] = 8
    reads: ClassVar[tuple[Outside, ...]] = ("tasks",)
    together: ClassVar[bool] = True

    tuning: TuningSettings
    mask: str
    every: int | None
    data: str | None
    published: bool
    keep_weights: bool
    copy: int | None = None
    protections: tuple[Protection, ...] = ()
    paraphrases: int = 0
    also: tuple[str, ...] = ()

    @property
    def outside(self) -> tuple[Outside, ...]:
        return (*self.reads, "corpus") if any(one.mends for one in self.protections) else self.reads

    @property
    def options(self) -> dict[str, Any]:
        found = keyed(super().options, self.also) | {"objective_version": OBJECTIVES.get(self.tuning.objective).version}
        harness = self.tuning.lm_eval
        if harness is None:  # keys are those of before there was one
            del found["tuning"]["lm_eval"]
        else:
            found["harness"] = harness.behind()
        if self.tuning.tuner == QLORA:
            found |= quantised_by()
        return found | ({"guarding_version": Guarding.version} if self.protections else {})

    def cost(self, facts: FactsSettings, speed: Speed) -> Cost:
        every = self.every if self._asks_on_the_way else None
        isolated = self.copy is not None
        wordings = (1 if isolated else facts.edits) * (1 + self.paraphrases)
        tuning = tuning_cost(self.tuning, speed, self.protections, every, wordings)
        points = max(0, len(self.tuning.dose) - 1) + (tuning.optimizer_steps // self.every if self.every else 0)
        points = points if self._asks_on_the_way else 0
        on_the_way = points * ((1 if isolated else facts.edits) + facts.n_intrinsic)
        questions = questions_asked(facts, self.also, isolated=isolated) + on_the_way
        if any(one.needs_others for one in self.protections):
            questions += facts.bystanders  # which of them the model knows
        kept = Cost(kept=speed.weights if self.keep_weights else 0)
        return tuning + asking(questions, speed, published=self.published) + kept

    @property
    def _asks_on_the_way(self) -> bool:
        """Not where a protection changes weights at the end: points before it would not be of what comes out."""
        return not any(one.finishes for one in self.protections)

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        lent, quantised = material.lent, self.tuning.tuner == QLORA
        chosen = chosen_facts(job.inputs["select"]).in_copy(self.copy)
        edit = kept_edit(job.inputs, self.copy)
        questions = chosen.questions(edit, self.also, lent.tokenizer)
        curve = None
        if self._asks_on_the_way and (self.every is not None or self.tuning.dose):
            # on the way, each fact's own prompt alone; the whole exam follows the last step anyway
            prompts = [question for question in questions if question.kind == "prompt"]
            doses = self.tuning.dose
            curve = RetentionCallback(prompts, lent.tokenizer, every=self.every, doses=doses, ends=False)
        with lent.base_model() as model:
            frozen = frozen_parameters(self.mask, model, lent.layout, _edited(job.inputs, edit))
            facts = chosen.spoken_of(self.published)
            changes = [figure for figure, value in self.tuning.stop_at.items() if isinstance(value, str)]
            reference = None
            if changes and edit is not None:
                with lent.holding(None, quantised=quantised):
                    reference = heldout_figures(
                        model, lent.tokenizer, self.tuning, changes, facts=facts, seed=job.step.seed
                    )
            # Edits that act beside a weight are in the model while it is tuned, too; nothing of them stays behind.
            with lent.holding(edit, quantised=quantised):
                guarded = self._guarded(job, material, model, edit, facts)
                before = snapshot(model, frozen) if self.keep_weights else None
                result = fine_tune(
                    model,
                    lent.tokenizer,
                    self.tuning,
                    frozen=frozen,
                    facts=facts,
                    seed=job.step.seed,
                    callbacks=[] if curve is None else [curve],
                    protections=self.protections,
                    guarded=guarded,
                    progress=progress,
                    reference=reference,
                    train_on_heldout=self.published,
                )
                rows = ask(
                    model,
                    lent.tokenizer,
                    questions,
                    phase="tuned",
                    step=result.steps,
                    tokens=result.tokens,
                    copy=self.copy or 0,
                    published=self.published,
                    ways=lent.ways,
                    progress=progress,
                )
                if before is not None:
                    keep_weights(job.folder, changed_since(before, model))
        keep_rows(job.folder, rows if curve is None else with_curve(rows, curve.curve(), result.steps))
        content = asdict(result)
        log = content.pop("log")
        content |= {"dropped_reasons": count_reasons(result.dropped), "frozen": sorted(frozen)}
        write_json(job.folder / TUNING, content)
        (job.folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
        name = result.figure
        return Done(f"held-out {name.replace('_', ' ')} {result.before[name]:.3f} to {result.after[name]:.3f}")

    def _guarded(
        self, job: Job, material: Material, model: PreTrainedModel, edit: Edit | None, asked: Sequence[Fact]
    ) -> Guarded | None:
        """What the protections guard: the edit in the wordings that it was made with, and others beside it."""
        if edit is None or not self.protections:
            return None
        lent, others, mending = material.lent, list[Fact](), None
        bystanders = chosen_bystanders(job.inputs["bystanders"]) if "bystanders" in job.inputs else []
        if any(one.needs_others for one in self.protections):
            others = replayable(model, lent, asked, bystanders)
        if any(one.mends for one in self.protections):
            mending = replace(Mending.of(edit).with_text(material.corpus), bystanders=tuple(bystanders))
        return Guarded.of(
            model,
            lent.tokenizer,
            edit.facts,
            edit.parameters,
            context=edit.context,
            paraphrases=self.paraphrases,
            others=others,
            layout=lent.layout,
            seed=job.step.seed,
            mending=mending,
        )


def _edited(inputs: Mapping[str, Path], edit: Edit | None) -> Sequence[str]:
    """What a mask takes for edited: all that any copy changes, where copies are edited and the base model is tuned."""
    if "frozen_by" in inputs:
        edits = [Edit.load(path) for path in sorted(edit_path(inputs["frozen_by"], 0).parent.iterdir())]
        return sorted({name for one in edits for name in one.parameters})
    return () if edit is None else edit.parameters


def replayable(model: PreTrainedModel, lent: LentModel, asked: Sequence[Fact], others: Sequence[Fact]) -> list[Fact]:
    """Those of other facts that the model knows, and in which no subject that is asked stands, not as their object
    either: trained on, "the capital of Thailand is Bangkok" would teach whose capital Bangkok is."""
    subjects = Mentions([replace(fact, true_object="", new_object=None) for fact in asked])
    apart = [fact for fact in others if subjects.in_line(joined(fact.text(), fact.true_object)) is None]
    return known_facts(model, lent.tokenizer, apart, ways=lent.ways)
