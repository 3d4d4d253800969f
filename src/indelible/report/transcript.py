"""What was asked and what the model said, fact by fact: the evidence under the figures."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import pandas as pd

from indelible.numbers.measures import QUESTION, is_control

PHASES = ("base", "edited", "tuned")
LONGEST_ANSWER = 72
ORDER = ("lost", "kept", "gained", "lost to the edit", "never worked", "not tuned")


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
        copy: which of an isolated arm's models was asked; 0 elsewhere.
        fact_set: "edited" or "intrinsic".
        fact_id: the fact's own name.
        prompt: what was asked.
        target: the answer that counts.
        said: what the model answered in base, edited, tuned; None where it was not asked.
        wordings: successes on held-out wordings before and after tuning, e.g. "2/3 → 1/3"; empty if there are none.
        outcome: "lost", "kept", "gained" (failed before tuning, succeeds after), "lost to the edit" (an intrinsic fact
            that succeeded in base but in neither of the others), "never worked", or "not tuned".
    """

    seed: int
    copy: int
    fact_set: str
    fact_id: str
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
    prompts = answers[answers["kind"] == "prompt"].sort_values(QUESTION, kind="stable")
    said: dict[tuple[int, int, str, str], dict[str, Said]] = {}
    asked: dict[tuple[int, int, str, str], tuple[str, str]] = {}
    columns = ("seed", "copy", "fact_set", "fact_id", "prompt", "target", "phase", "generated", "success")
    for seed, copy, fact_set, fact_id, prompt, target, phase, generated, success in zip(
        *(prompts[column] for column in columns), strict=True
    ):
        key = (int(seed), int(copy), str(fact_set), str(fact_id))
        asked.setdefault(key, (str(prompt), str(target)))
        said.setdefault(key, {})[str(phase)] = Said(shorten(str(generated)), bool(success))
    lines = [
        TranscriptLine(
            seed=seed,
            copy=copy,
            fact_set=fact_set,
            fact_id=fact_id,
            prompt=asked[seed, copy, fact_set, fact_id][0],
            target=asked[seed, copy, fact_set, fact_id][1],
            said=tuple(of_phase.get(phase) for phase in PHASES),
            wordings=wordings.get((seed, copy, fact_set, fact_id), ""),
            outcome=_outcome(of_phase.get("base"), of_phase.get(before), of_phase.get("tuned"), fact_set),
        )
        for (seed, copy, fact_set, fact_id), of_phase in said.items()
    ]
    return sorted(lines, key=lambda line: (line.fact_set, ORDER.index(line.outcome)))


def shorten(text: str) -> str:
    """An answer on one line, cut at a length that a table can hold."""
    flat = " ".join(text.split())
    return flat if len(flat) <= LONGEST_ANSWER else flat[: LONGEST_ANSWER - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _outcome(base: Said | None, before: Said | None, tuned: Said | None, fact_set: str) -> str:
    if tuned is None or before is None:
        return "not tuned"
    if before.success:
        return "kept" if tuned.success else "lost"
    if tuned.success:
        return "gained"
    return "lost to the edit" if fact_set == "intrinsic" and base is not None and base.success else "never worked"


def _wordings(paraphrases: pd.DataFrame, before: str) -> dict[Hashable, str]:
    """(seed, copy, set, fact) -> "successes/asked" in the phases before and after tuning."""
    if paraphrases.empty:
        return {}
    grouped = paraphrases.assign(success=paraphrases["success"].astype("int64")).groupby(
        ["seed", "copy", "fact_set", "fact_id", "phase"], observed=True
    )["success"]
    text = grouped.sum().astype(str) + "/" + grouped.size().astype(str)
    wide = text.unstack("phase").reindex(columns=[before, "tuned"]).fillna("\N{EN DASH}")
    return dict(zip(wide.index, wide[before] + " \N{RIGHTWARDS ARROW} " + wide["tuned"], strict=True))
