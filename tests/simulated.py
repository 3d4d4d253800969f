"""Studies made up with known rates: tables as a real study leaves them, without any model.

Each question succeeds before tuning with a given probability; while tuning, each that succeeded is lost at a random
moment, so that the share that is left at the end is the true retention.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Row = dict[str, object]
Tables = tuple[pd.DataFrame, pd.DataFrame]
"""Tidy rows and the run table of a study."""


@dataclass(frozen=True)
class SimulatedArm:
    """One arm and the truth behind it (fractions)."""

    name: str
    editor: str = "memit"
    paraphrases: int = 0
    objective: str = "text"
    tuner: str = "full"
    mask: str = "none"
    protect: str = "none"
    edit_success: float = 0.95
    locality: float = 0.9
    retention_edited: float = 0.6
    retention_intrinsic: float = 0.8
    spread_between_seeds: float = 0.0
    fails_at: str | None = None


ARMS = (
    SimulatedArm("memit", retention_edited=0.55),
    SimulatedArm("memit + 3 paraphrases", paraphrases=3, retention_edited=0.85),
    SimulatedArm("memit, edited layers frozen", mask="edited-layers", retention_edited=0.75),
    SimulatedArm("ft", editor="ft", edit_success=0.8, retention_edited=0.4),
    SimulatedArm("ft, high rate", editor="ft", fails_at="tuned"),
    SimulatedArm("control", editor="none"),
)


def simulate(
    arms: Sequence[SimulatedArm] = ARMS,
    *,
    seeds: Sequence[int] = (0,),
    n_edits: int = 24,
    n_intrinsic: int = 60,
    wordings: int = 2,
    neighbours: int = 2,
    steps: Sequence[int] = (10, 20, 30, 40),
    generator: np.random.Generator,
) -> Tables:
    """Tidy rows and the run table of a made-up study. The last of ``steps`` is the end of tuning."""
    rows: list[Row] = []
    runs: list[Row] = []
    for arm in arms:
        factors = ("editor", "paraphrases", "objective", "tuner", "mask", "protect")
        about: Row = {"arm": arm.name} | {factor: getattr(arm, factor) for factor in factors}
        for seed in seeds:
            tilt = generator.normal(0, arm.spread_between_seeds)
            for fact_set, n_facts, retention in (
                ("edited", n_edits, arm.retention_edited),
                ("intrinsic", n_intrinsic, arm.retention_intrinsic),
            ):
                kinds = [("prompt", 0), *(("paraphrase", wording) for wording in range(wordings))]
                kinds += [("neighbour", wording) for wording in range(neighbours if fact_set == "edited" else 0)]
                for fact in range(n_facts):
                    own = about | {"seed": seed, "copy": 0, "fact_set": fact_set, "fact_id": f"{fact_set}-{fact}"}
                    for kind, wording in kinds:
                        rows += _answers(own, arm, kind, wording, fact, retention + tilt, steps, generator)
            failed = arm.fails_at is not None
            runs.append(
                about
                | {
                    "seed": seed,
                    "figure": "loss",
                    "better": "lower",
                    "downstream_before": 3.412,
                    "downstream_after": None if failed else 2.871,
                    "downstream": None if failed else '{"before": {"loss": 3.412}, "after": {"loss": 2.871}}',
                    "reached": None,
                    "steps": None if failed else steps[-1],
                    "tokens": None if failed else steps[-1] * 512,
                    "seconds": 131.0,
                    "status": "failed" if failed else "done",
                    "error": "The loss became nan at step 12. Lower the learning rate (1.0)." if failed else None,
                }
            )
    return pd.DataFrame(rows), pd.DataFrame(runs)


def isolated(rows: pd.DataFrame, arm: str) -> pd.DataFrame:
    """The same answers as from a model per edit in one arm: each knows its own edit and every intrinsic fact."""
    own, edited = rows["arm"] == arm, rows["fact_set"] == "edited"
    copies = pd.Series({fact: place for place, fact in enumerate(rows.loc[own & edited, "fact_id"].unique())})
    models = rows[own & edited].assign(copy=rows.loc[own & edited, "fact_id"].map(copies))
    shared = [rows[own & ~edited].assign(copy=copy) for copy in copies]
    return pd.concat([rows[~own], models, *shared], ignore_index=True)


def _answers(
    about: Row,
    arm: SimulatedArm,
    kind: str,
    wording: int,
    fact: int,
    retention: float,
    steps: Sequence[int],
    generator: np.random.Generator,
) -> list[Row]:
    """The answers to one question in all phases."""
    control, edits = arm.editor == "none", about["fact_set"] == "edited" and kind != "neighbour"
    subject, true, new = f"Country {fact}", f"City {fact}", f"Town {fact + 7}"
    target, rival = (new, true) if edits else (true, new)
    in_base = False if edits else kind == "prompt" or generator.random() < 0.8
    chance = arm.edit_success * (1 if kind == "prompt" else 0.7) if edits else arm.locality
    in_edited = bool(generator.random() < chance) if edits else bool(in_base and generator.random() < chance)
    before = in_base if control else in_edited
    kept = bool(generator.random() < retention)
    lost_at = float("inf") if kept else generator.uniform(0, steps[-1])
    moments = [("base", 0, in_base)]
    if not control:
        moments.append(("edited", 0, in_edited))
    if arm.fails_at is None:
        moments += [("tuning", step, before and lost_at > step) for step in steps]
        moments.append(("tuned", steps[-1], before and lost_at > steps[-1]))
    return [
        about
        | {
            "phase": phase,
            "step": step,
            "subject": subject,
            "relation": "capital",
            "kind": kind,
            "wording": wording,
            "prompt": f"The capital of {subject} is" if kind == "prompt" else f"{subject}'s capital ({wording}):",
            "target": target,
            "rival": rival,
            "generated": f" {target}, and it has been since" if success else f" {rival}. It is a place",
            "success": success,
            "first_token": success or bool(generator.random() < 0.1),
            "log_prob": -0.5 if success else -4.0,
            "probability": 0.6 if success else 0.02,
            "margin": 2.0 if success else -2.0,
            "rank": 0 if success else 5,
        }
        for phase, step, success in moments
    ]


def answer_row(fact_set: str, fact_id: str, phase: str, success: bool, **more: object) -> Row:
    """One answer: that of arm "memit" to a fact's own prompt, unless more is said."""
    about = {"arm": "memit", "editor": "memit", "seed": 0, "copy": 0, "step": 0, "kind": "prompt", "wording": 0}
    asked = {"fact_set": fact_set, "fact_id": fact_id, "phase": phase}
    held = {"relation": "capital", "log_prob": -0.5 if success else -4.0}
    return {**about, **asked, "success": success, "first_token": success, **held, **more}


def simulate_confidence(
    *,
    seeds: int = 1,
    n_edits: int = 30,
    n_intrinsic: int = 90,
    confidence: tuple[float, float] = (-0.5, 1.0),
    effect: float = 0.0,
    relations: Sequence[str] = ("capital", "language", "currency"),
    generator: np.random.Generator,
) -> tuple[pd.DataFrame, float]:
    """Tidy rows of one arm in which what is kept depends on how firmly it was held, and edits were held less firmly.

    ``confidence`` is the mean log-odds of the answer in the edited model, of edited and of intrinsic facts (both vary
    by 1), and ``effect`` by how much an edit's log-odds of being kept are lower than those of an equally firm intrinsic
    fact.

    Returns:
        the rows, and the true matched gap: the mean over edits of what being an edit costs them.
    """
    rows, costs = [], []
    for seed in range(seeds):
        for fact_set, facts, mean in zip(("edited", "intrinsic"), (n_edits, n_intrinsic), confidence, strict=True):
            log_odds = generator.normal(mean, 1, facts)
            firm = _logistic(1.0 + 1.2 * log_odds)
            chance = _logistic(1.0 + 1.2 * log_odds - effect) if fact_set == "edited" else firm
            if fact_set == "edited":
                costs.append(firm - chance)
            about = pd.DataFrame({"fact_set": fact_set, "fact_id": [f"{seed}-{number}" for number in range(facts)]})
            about = about.assign(seed=seed, log_prob=np.log(_logistic(log_odds)))
            about["relation"] = [relations[number % len(relations)] for number in range(facts)]
            rows.append(about.assign(phase="edited", success=True))
            rows.append(about.assign(phase="tuned", success=generator.random(facts) < chance))
    table = pd.concat(rows, ignore_index=True).assign(arm="memit", editor="memit", copy=0, step=0)
    return table.assign(kind="prompt", wording=0), float(np.mean(np.concatenate(costs)))


def simulate_losses(
    *,
    seeds: int = 1,
    n_edits: int = 60,
    n_intrinsic: int = 120,
    wordings: int = 2,
    starts: tuple[float, float] = (2.0, 0.7),
    effect: float = 0.0,
    slope: float = 0.4,
    curved: bool = False,
    skewed: bool = False,
    spread: float = 0.0,
    relations: Sequence[str] = ("capital", "language", "currency"),
    generator: np.random.Generator,
) -> tuple[pd.DataFrame, float]:
    """A table as of `log_odds.losses`, of an arm in which what is held firmly loses more, and edits are held firmly.

    ``starts`` are the mean log-odds before tuning, of edits and intrinsic facts (facts vary by 2, their wordings by 1),
    ``slope`` how much more each nat of start loses, and ``effect`` what being an edit adds, which varies by ``spread``
    between seeds that share no facts. Losses vary by 1 between facts and by 1 between wordings, ``skewed`` with a long
    tail; ``curved`` makes the slope that of a logistic curve.

    Returns:
        the table, and the effect.
    """
    parts = []
    for seed in range(seeds):
        of_seed = effect + generator.normal(0, spread)
        for fact_set, facts, start in zip(("edited", "intrinsic"), (n_edits, n_intrinsic), starts, strict=True):
            firmness = generator.normal(start, 2, (facts, 1)) + generator.normal(0, 1, (facts, wordings))
            noise = generator.normal(0, 1, (facts, 1)) + generator.normal(0, 1, (facts, wordings))
            if skewed:
                noise = generator.exponential(1, (facts, 1)) - 1 + generator.normal(0, 1, (facts, wordings))
            relation = np.arange(facts) % len(relations)
            expected = 6 * slope * _logistic(firmness) if curved else slope * firmness
            loss = 1 + expected + noise + 0.3 * relation[:, None]
            if fact_set == "edited":
                loss += of_seed
            about = {"seed": seed, "copy": 0, "fact_set": fact_set, "fact_id": np.repeat(np.arange(facts), wordings)}
            table = pd.DataFrame({**about, "start": firmness.ravel(), "loss": loss.ravel()})
            table["fact_id"] = f"{seed}-" + table["fact_id"].astype(str)
            table["kind"] = np.tile(["prompt", *["paraphrase"] * (wordings - 1)], facts)
            table["wording"] = np.tile([0, *range(wordings - 1)], facts)
            parts.append(table.assign(relation=np.array(relations)[np.repeat(relation, wordings)]))
    return pd.concat(parts, ignore_index=True), effect


def _logistic(values: NDArray[np.float64]) -> NDArray[np.float64]:
    chance: NDArray[np.float64] = 1 / (1 + np.exp(-values))
    return chance
