"""The exam before any edit, and after one, where each copy is asked of its own edited fact and all intrinsic ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import pandas as pd
from transformers import PreTrainedModel

from indelible.facts.choose import strata_counts
from indelible.models.modules.nf4 import quantised_by
from indelible.numbers.measures import Phase
from indelible.progress import Progress, silent
from indelible.study.design.settings import FactsSettings
from indelible.study.run.base_model import LentModel
from indelible.study.run.cost import Cost, Speed, asking, questions_asked
from indelible.study.run.exams import ask, keyed, successes
from indelible.study.run.kept import chosen_facts, keep_rows, kept_edit
from indelible.study.run.step import Done, Job, Material, Work


@dataclass(frozen=True)
class Probe(Work):
    """An exam; ``isolated``: of an edited copy for each fact; ``also``: kinds of questions beside every exam's;
    ``quantised``: of the model as it is tuned over by qlora."""

    kind: ClassVar[str] = "probe"
    version: ClassVar[int] = 2

    phase: Literal["base", "edited"]
    published: bool
    isolated: bool = False
    also: tuple[str, ...] = ()
    quantised: bool = False

    @property
    def options(self) -> dict[str, Any]:
        found = keyed(super().options, self.also)
        del found["quantised"]
        return found | (quantised_by() if self.quantised else {})  # else keys are those of before there was one

    def cost(self, facts: FactsSettings, speed: Speed) -> Cost:
        questions = (facts.edits if self.isolated else 1) * questions_asked(facts, self.also, isolated=self.isolated)
        return asking(questions, speed, published=self.published)

    def do(self, job: Job, material: Material, progress: Progress) -> Done:
        lent = material.lent
        with lent.base_model() as model:
            rows = ask_copies(
                *(job, lent, model),
                phase=self.phase,
                isolated=self.isolated,
                published=self.published,
                also=self.also,
                quantised=self.quantised,
                progress=progress,
            )
        keep_rows(job.folder, rows)
        right = rows[(rows["kind"] == "prompt") & rows["success"]]
        strata = {str(name): strata_counts(group["probability"]) for name, group in right.groupby("fact_set")}
        held = "; ".join(
            f"{name} {', '.join(f'{count} {stratum}' for stratum, count in counts.items())}"
            for name, counts in strata.items()
        )
        return Done(f"{successes(rows)}; of these in probability {held or 'none'}", {"strata": strata})


def ask_copies(
    job: Job,
    lent: LentModel,
    model: PreTrainedModel,
    *,
    phase: Phase,
    isolated: bool,
    published: bool,
    also: Sequence[str],
    quantised: bool = False,
    step: int = 0,
    tokens: int = 0,
    progress: Progress,
) -> pd.DataFrame:
    """Rows of the exam of a model with the step's edit in it, if it has one, or of one after another of its edits."""
    chosen = chosen_facts(job.inputs["select"])
    copies: Sequence[int | None] = range(len(chosen.edited)) if isolated else [None]
    frames = []
    for done, copy in enumerate(copies, 1):
        edit = kept_edit(job.inputs, copy)
        with lent.holding(edit, quantised=quantised):
            rows = ask(
                model,
                lent.tokenizer,
                chosen.in_copy(copy).questions(edit, also, lent.tokenizer),
                phase=phase,
                step=step,
                tokens=tokens,
                copy=copy or 0,
                published=published,
                ways=lent.ways,
                progress=silent if isolated else progress,
            )
        frames.append(rows)
        if isolated:
            progress(done, len(copies), "copies")
    return pd.concat(frames, ignore_index=True)
