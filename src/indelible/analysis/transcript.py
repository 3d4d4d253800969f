"""What was asked and what the model said, fact by fact: the evidence under the figures."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import pandas as pd

from indelible.analysis.metrics import QUESTION, is_control

PHASES = ("base", "edited", "tuned")
LONGEST_ANSWER = 72
ORDER = ("lost", "kept", "gained", "never worked", "not tuned")


@dataclass(frozen=True)
class Said:
    """An answer: the text generated, and whether it counted as a success."""

    text: str
    success: bool


@dataclass(frozen=True)
class TranscriptLine:
    """One fact's own prompt in all phases.

    Attributes:
        seed: the seed of the run.
        fact_set: "edited" or "intrinsic".
        prompt: what was asked.
        target: the answer that counts.
        said: what the model answered in base, edited, tuned; None where it was not asked.
        wordings: successes on held-out wordings before and after tuning, e.g. "2/3 → 1/3"; empty if there are none.
        outcome: "lost", "kept", "gained" (failed before tuning, succeeds after), "never worked", or "not tuned".
    """

    seed: int
    fact_set: str
    prompt: str
    target: str
    said: tuple[Said | None, ...]
    wordings: str
    outcome: str


def transcript(rows: pd.DataFrame) -> list[TranscriptLine]:
    """The transcript of one arm: edited facts first, what was lost before what was kept, then by seed and fact.

    Args:
        rows: tidy rows of one arm.
    """
    before = "base" if is_control(rows) else "edited"
    answers = rows[rows["phase"].isin(PHASES)]
    if is_control(rows):
        answers = answers[answers["fact_set"] == "intrinsic"]
    wordings = _wordings(answers[answers["kind"] == "paraphrase"], before)
    lines = []
    prompts = answers[answers["kind"] == "prompt"].sort_values(QUESTION)
    for (seed, fact_set, fact_id), part in prompts.groupby(["seed", "fact_set", "fact_id"], sort=True, observed=True):
        said = {
            str(phase): Said(shorten(str(text)), bool(success))
            for phase, text, success in zip(part["phase"], part["generated"], part["success"], strict=True)
        }
        first = part.iloc[0]
        lines.append(
            TranscriptLine(
                seed=int(first["seed"]),
                fact_set=str(fact_set),
                prompt=str(first["prompt"]),
                target=str(first["target"]),
                said=tuple(said.get(phase) for phase in PHASES),
                wordings=wordings.get((seed, fact_set, fact_id), ""),
                outcome=_outcome(said.get(before), said.get("tuned")),
            )
        )
    return sorted(lines, key=lambda line: (line.fact_set, ORDER.index(line.outcome)))


def shorten(text: str) -> str:
    """An answer on one line, cut at a length that a table can hold."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST_ANSWER else flat[: LONGEST_ANSWER - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _outcome(before: Said | None, tuned: Said | None) -> str:
    if tuned is None or before is None:
        return "not tuned"
    if before.success:
        return "kept" if tuned.success else "lost"
    return "gained" if tuned.success else "never worked"


def _wordings(paraphrases: pd.DataFrame, before: str) -> dict[Hashable, str]:
    """(seed, set, fact) -> "successes/asked" in the phases before and after tuning."""
    if paraphrases.empty:
        return {}
    grouped = paraphrases.assign(success=paraphrases["success"].astype("int64")).groupby(
        ["seed", "fact_set", "fact_id", "phase"], observed=True
    )["success"]
    text = grouped.sum().astype(str) + "/" + grouped.size().astype(str)
    wide = text.unstack("phase").reindex(columns=[before, "tuned"]).fillna("\N{EN DASH}")
    return dict(zip(wide.index, wide[before] + " \N{RIGHTWARDS ARROW} " + wide["tuned"], strict=True))
