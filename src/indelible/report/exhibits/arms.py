"""How each arm was carried out, and which runs did not finish."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator

import pandas as pd

from indelible.numbers.measures import CONTROL_EDITOR
from indelible.numbers.words import MISSING, counted
from indelible.report.exhibit import Fold, Grid, Heading, Part, Words, exhibit
from indelible.report.run import Run

MOST_OPEN = 12
"""Arms in a table that stands open."""


@exhibit("arms", place=90)
def arms(run: Run) -> Iterator[Part]:
    """One line per arm, and one per run that failed."""
    lines = [_carried_out(arm, own) for arm, own in run.runs.groupby("arm", sort=False)]
    yield Heading("How it was done", "compared")
    table = Grid(pd.DataFrame(lines), "What was edited where", look="pinned")
    yield Fold(counted(len(lines), "arm"), [table]) if len(lines) > MOST_OPEN else table
    yield Words(
        "Bystanders are facts that no question asks about; an editor that preserves them is told to leave their "
        "subjects alone, which the published method does not do. Dropped training lines spoke of an edited or "
        "intrinsic fact. Norms are Frobenius norms of the change, the mean over seeds. "
        "Arrived is how much of the change that the editor wanted of its value layer's output at the subject is there "
        "right after the edit, where the model reads the edited wordings; editors of like strength have like shares, "
        "and those that want no such change none.",
        "note",
    )
    yield Heading("Failures", "failures", level=3)
    failed = run.runs.loc[run.runs["status"] != "done", ["arm", "seed", "error"]]
    if failed.empty:
        yield Words("None: every run of every arm finished.")
    else:
        told = failed.fillna({"error": "no message was recorded"}).rename(columns={"error": "what went wrong"})
        yield Grid(told, "Failures", look="pinned")


def _carried_out(arm: object, runs: pd.DataFrame) -> dict[str, object]:
    """What the runs of an arm were; several seeds may differ in what was dropped, and rarely in the rest."""
    first = runs.iloc[0]
    edits = first["editor"] != CONTROL_EDITOR
    made = dict.fromkeys(runs["edit"].dropna()) if edits and "edit" in runs else {}
    frozen = "" if first["mask"] == "none" else f", frozen {first['mask']}"
    kept = "" if first["protect"] == "none" else f", protected by {first['protect']}"
    return {
        "arm": arm,
        "editor": first["editor"],
        "how the edit was made": " / ".join(map(str, made)) or MISSING,
        "norm of each update": _norms(runs) or MISSING,
        "arrived": _arrived(runs) or MISSING,
        "wordings of each fact": 1 + int(first["paraphrases"]) if edits else MISSING,
        "tuning": f"{first['objective']}, {first['tuner']}{frozen}{kept}",
        "training lines dropped as relevant": _dropped(runs) or MISSING,
    }


def _norms(runs: pd.DataFrame) -> str:
    """ "model.layers.6.mlp.down_proj 1.83, ...": Frobenius norms of the updates, mean over seeds."""
    if "update_norms" not in runs:
        return ""
    means = pd.DataFrame([json.loads(text) for text in runs["update_norms"].dropna()]).mean()
    return ", ".join(f"{str(name).removesuffix('.weight')} {norm:.3g}" for name, norm in means.items())


def _arrived(runs: pd.DataFrame) -> str:
    """Mean over seeds, in per cent."""
    if "arrived" not in runs or runs["arrived"].isna().all():
        return ""
    return f"{runs['arrived'].astype(float).mean():.0%}"


def _dropped(runs: pd.DataFrame) -> str:
    """ "3 (names the subject 2, names both 1)", over all seeds."""
    if "dropped" not in runs or runs["dropped"].isna().all():
        return ""
    reasons: Counter[str] = Counter()
    for of_run in runs["dropped_reasons"].dropna():
        reasons.update(json.loads(of_run))
    detail = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return f"{int(runs['dropped'].sum())}" + (f" ({detail})" if detail else "")
