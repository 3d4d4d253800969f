"""Repair after unprotected tuning: what the edited, the tuned and the repaired model answer, and the held-out loss.

World facts that the model knows are edited, the model is tuned on worked problems at a rate that loses a good part of
them, and what was lost is edited again. Shares are of all edits for own wordings and held-out ones, and of what the
unedited model answers for neighbours and intrinsic facts. No wording but the edits' own is seen by the repair, nor are
intrinsic facts.

    python benchmarks/repair.py --json
    python benchmarks/repair.py --seeds 3 --editor memit:covariance_weight=500 --mend memit
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch

from indelible.care.repair import repair
from indelible.care.verify import verify_facts
from indelible.edits.editor import Editor
from indelible.exam.questions import Question
from indelible.facts.fact import Fact
from indelible.tuning.objective import OBJECTIVES, tuning_settings
from indelible.tuning.rows import draw_rows
from indelible.tuning.settings import TuningSettings
from indelible.tuning.task import TASKS
from indelible.tuning.train import fine_tune, heldout_figures
from material import Bench, editor_from, rates, world_draw

TUNING = {"objective": "reason", "learning_rate": 2e-4, "steps": 24, "batch_size": 4, "max_tokens": 64}
SHOWN = {"generation": "own", "paraphrases": "held-out", "locality": "neighbours", "intrinsic": "intrinsic"}


def trained_on(bench: Bench, settings: TuningSettings, facts: Sequence[Fact], seed: int) -> list[str]:
    """The texts that a run with these settings is tuned on."""
    objective, tokenizer = OBJECTIVES.get(settings.objective), bench.loaded.tokenizer
    task = TASKS.get(settings.task or objective.default_task)
    rows = draw_rows(task, objective, tokenizer, settings, facts=facts, seed=seed)
    return [str(tokenizer.decode(row.input_ids, skip_special_tokens=True)) for row in rows.train]


def figures(bench: Bench, before: Any, questions: Sequence[Question]) -> dict[str, float]:
    """Of the model as it stands."""
    found = rates(before, bench.ask(questions))
    return {name: found[key] for key, name in SHOWN.items()}


def run(bench: Bench, editor: Editor, mend: Editor | None, facts: int, intrinsic: int, seed: int) -> dict[str, Any]:
    """One seed: figures by phase."""
    model, tokenizer = bench.loaded.model, bench.loaded.tokenizer
    drawn = world_draw(bench, facts, intrinsic, seed)
    questions, settings = drawn.questions(), tuning_settings(TUNING)
    spoken_of = [*drawn.edited, *drawn.intrinsic]
    unedited = bench.ask(questions)
    edit = editor.edit(model, tokenizer, drawn.edited, **bench.arguments(seed, drawn.bystanders, editor))

    def loss() -> float:
        return heldout_figures(model, tokenizer, settings, ["loss"], facts=spoken_of, seed=seed)["loss"]

    edit.apply(model)
    asked = verify_facts(model, tokenizer, edit.facts)
    edit = edit.with_answers({one.fact.id: one.state for one in asked})
    phases = {"edited": {**figures(bench, unedited, questions), "loss": loss()}}
    fine_tune(model, tokenizer, settings, facts=spoken_of, seed=seed)
    phases["tuned"] = {**figures(bench, unedited, questions), "loss": loss()}
    since = time.process_time()
    done = repair(bench.loaded, edit, mend, data=trained_on(bench, settings, spoken_of, seed))
    seconds = time.process_time() - since
    if done.edit is not None:
        done.edit.apply(model)
    phases["repaired"] = {**figures(bench, unedited, questions), "loss": loss()}
    told = {"lost": len(done.lost), "missing": len(done.missing), "rounds": done.rounds, "seconds": round(seconds)}
    return {"seed": seed, **told, "phases": phases}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--editor", metavar="NAME[:KEY=VALUE,...]", default="memit")
    parser.add_argument("--mend", metavar="NAME[:KEY=VALUE,...]", help="editor of the repair; as edited")
    parser.add_argument("--facts", type=int, default=36)
    parser.add_argument("--intrinsic", type=int, default=120)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--json", action="store_true", help="print one object last; all else goes to stderr")
    options = parser.parse_args()
    mend = None if options.mend is None else editor_from(options.mend)
    bench = Bench.of(options.model)
    before = {name: one.detach().clone() for name, one in bench.loaded.model.named_parameters()}
    found = []
    for seed in options.seeds:
        found.append(run(bench, editor_from(options.editor), mend, options.facts, options.intrinsic, seed))
        with torch.no_grad():
            for name, weight in before.items():
                bench.loaded.model.get_parameter(name).copy_(weight)
        told = {key: value for key, value in found[-1].items() if key != "phases"}
        print(", ".join(f"{key} {value}" for key, value in told.items()), file=sys.stderr)
        for phase, shares in found[-1]["phases"].items():
            print(f"{phase:10}", *(f"{key} {value:.3f}" for key, value in shares.items()), sep="  ", file=sys.stderr)
    if options.json:
        print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
