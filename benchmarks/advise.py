"""Whether advice is good: what pilots name on named settings and what they cost, beside the choice of a full sweep.

A setting is OBJECTIVE@RATE@STEPS, with @EDITOR behind it where that is not MEMIT: the objective's own task, a learning
rate, and optimizer steps of four rows. The facts are built-in ones, the same for all settings. With ``--sweep``, a run
folder of a study of protections, the same rule chooses among its arms of the same objective and rate.

    python benchmarks/advise.py reason@2e-4@24 --minutes 20 --out runs/advice
    python benchmarks/advise.py reason@5e-4@24 instruct@8e-4@24 --sweep runs/protections --out runs/advice
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from indelible.facts.choose import in_turns
from indelible.facts.world import world_facts
from indelible.numbers.arms import ArmFactors, arms_of, family
from indelible.report.folder import read_run
from indelible.report.run import Run
from indelible.study.advice.advise import advise
from indelible.study.advice.choice import choose
from indelible.study.design.config import load_config
from indelible.tuning.objective import OBJECTIVES
from indelible.watching import watching


def main() -> None:
    """Run as a script."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("settings", nargs="+", metavar="OBJECTIVE@RATE@STEPS", help="e.g. reason@2e-4@24")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--facts", type=int, default=60, help="built-in facts that may be edited")
    parser.add_argument("--protect", nargs="*", default=[], help="candidates; all that are built in by default")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--price", type=float, default=0.02)
    parser.add_argument("--set", action="append", default=[], help="a setting of each pilot's study")
    parser.add_argument("--sweep", type=Path, help="run folder of a study of protections")
    parser.add_argument("--out", type=Path, default=Path("runs/advice"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    facts = write_facts(arguments.out / f"facts-{arguments.facts}.jsonl", arguments.facts)
    swept = [] if arguments.sweep is None else choices(read_run(arguments.sweep), arguments.price)
    found = []
    for setting in arguments.settings:
        objective, rate, steps, editor = (*setting.split("@"), "memit")[:4]
        with watching() as watcher:
            advice = advise(
                arguments.model,
                facts,
                OBJECTIVES.get(objective).default_task,
                objective=objective,
                editor=editor,
                protections=arguments.protect,
                minutes=arguments.minutes,
                price=arguments.price,
                settings=[
                    *(f"tuning.learning_rate={rate}", f"tuning.steps={steps}", "tuning.batch_size=4"),
                    *arguments.set,
                ],
                out=arguments.out / setting,
                watcher=watcher,
            )
        runs = pd.read_parquet(advice.folder / "runs.parquet")
        line: dict[str, Any] = {"setting": setting, **advice.record(), **cost(runs)}
        about = (objective, float(rate), editor)
        line["sweep"] = [one for one in swept if (one["objective"], one["learning_rate"], one["editor"]) == about]
        print(f"{setting}: {advice.choice or 'none'}. {advice.why}", file=sys.stderr)
        found.append(line)
    print(json.dumps(found, indent=2))


def write_facts(file: Path, count: int) -> Path:
    """So many built-in facts of the quick study's relations, with the new objects that they bring along."""
    relations = load_config("quick").facts.relations or ()
    facts = in_turns([fact for fact in world_facts() if fact.relation in relations], 0)[:count]
    file.write_text("".join(json.dumps(asdict(fact)) + "\n" for fact in facts), encoding="utf-8")
    return file


def choices(run: Run, allowed: float) -> list[dict[str, Any]]:
    """What the rule of advice chooses in each family of a sweep's arms that has one without a protection."""
    families: dict[str, list[ArmFactors]] = defaultdict(list)
    for arm in arms_of(run.runs):
        families[family(arm, "protect")].append(arm)
    found = []
    for arms in families.values():
        plain = [arm.name for arm in arms if arm.factors["protect"] == "none"]
        others = [arm.name for arm in arms if arm.factors["protect"] != "none"]
        if len(plain) != 1 or not others:
            continue
        choice = choose(run.answers, run.runs, plain[0], others, allowed)
        about = {name: arms[0].factors[name] for name in ("objective", "editor")}
        about["learning_rate"] = arms[0].tuning.get("learning_rate")
        chosen = choice.chosen and named(arms, choice.chosen.arm)
        own = cost(run.runs[run.runs["arm"].isin([*plain, *others])])
        found.append({**about, "choice": chosen, "why": choice.why, **own})
    return found


def named(arms: Sequence[ArmFactors], arm: str) -> str:
    """The protection of an arm."""
    return next(str(one.factors["protect"]) for one in arms if one.name == arm)


def cost(runs: pd.DataFrame) -> dict[str, float]:
    """What runs of tuning took, with the edits and exams that belong to them."""
    return {"runs": len(runs), "run_seconds": float(runs["seconds"].sum()), "tokens": int(runs["tokens"].sum())}


if __name__ == "__main__":
    main()
