"""What was asked and what the model said, fact by fact: the evidence under the figures."""

from __future__ import annotations

import numpy as np
import pandas as pd

from indelible.numbers.measures import PHASES, QUESTION, is_control
from indelible.numbers.words import MISSING

LONGEST_ANSWER = 72
OUTCOMES = ("lost", "kept", "gained", "lost to the edit", "never worked", "not tuned")
FACT = ["seed", "copy", "fact_set", "fact_id"]
"""What tells one fact of an arm from another."""
ABOUT = ["subject", "relation", "prompt", "target", "rival"]


def transcript(rows: pd.DataFrame) -> pd.DataFrame:
    """The transcript of one arm's rows: edited facts first, what was lost before what was kept, then by seed and fact.

    One line per fact, of its own prompt: `FACT` and `ABOUT`; for each of `PHASES` what the model said, e.g. base_says,
    and whether that counted, e.g. base_success (both missing where it was not asked); held_out_wordings, successes
    before and after tuning, e.g. "2/3 → 1/3", empty if there are none; and outcome: "lost", "kept", "gained" (failed
    before tuning, succeeds after), "lost to the edit" (an intrinsic fact that succeeded in base but in neither of the
    others), "never worked", or "not tuned".
    """
    control = is_control(rows)
    before = "base" if control else "edited"
    answers = rows[rows["phase"].isin(PHASES) & ((rows["fact_set"] == "intrinsic") | (not control))]
    prompts = answers[answers["kind"] == "prompt"].sort_values(QUESTION, kind="stable")
    lines = prompts.drop_duplicates(FACT)[[*FACT, *ABOUT]].set_index(FACT)
    for phase in PHASES:
        asked = prompts[prompts["phase"] == phase].drop_duplicates(FACT, keep="last").set_index(FACT)
        lines[f"{phase}_says"] = asked["generated"].map(shorten).reindex(lines.index)
        lines[f"{phase}_success"] = asked["success"].astype("boolean").reindex(lines.index)
    wordings = _wordings(answers[answers["kind"] == "paraphrase"], before)
    lines["held_out_wordings"] = wordings.reindex(lines.index).fillna("")
    was, base, tuned = (lines[f"{phase}_success"].fillna(False) for phase in (before, "base", "tuned"))
    compared = lines[f"{before}_success"].notna() & lines["tuned_success"].notna()
    damaged = base & (lines.index.get_level_values("fact_set") == "intrinsic")
    cases = {"not tuned": ~compared, "kept": was & tuned, "lost": was, "gained": tuned, "lost to the edit": damaged}
    lines["outcome"] = np.select([case.to_numpy(bool) for case in cases.values()], list(cases), "never worked")
    lines = lines.assign(order=lines["outcome"].map(OUTCOMES.index)).reset_index()
    lines = lines.sort_values(["fact_set", "order"], kind="stable", ignore_index=True).drop(columns="order")
    return lines.astype(object).where(lines.notna(), None)


def shorten(text: object) -> str:
    """An answer on one line, cut at a length that a table can hold."""
    flat = " ".join(str(text).split())
    return flat if len(flat) <= LONGEST_ANSWER else flat[: LONGEST_ANSWER - 1] + "\N{HORIZONTAL ELLIPSIS}"


def _wordings(paraphrases: pd.DataFrame, before: str) -> pd.Series:
    """By `FACT`: "successes/asked" in the phases before and after tuning."""
    asked = paraphrases.astype({"success": "int64"}).groupby([*FACT, "phase"], observed=True)["success"]
    text = asked.sum().astype(str) + "/" + asked.size().astype(str)
    wide = text.unstack("phase").reindex(columns=[before, "tuned"]).fillna(MISSING).astype(str)
    return wide[before] + " \N{RIGHTWARDS ARROW} " + wide["tuned"]
