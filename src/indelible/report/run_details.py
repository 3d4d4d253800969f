"""The end of a report: how each arm was carried out, what did not finish, and what to type to have it all again."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from indelible.numbers.measures import CONTROL_EDITOR


@dataclass(frozen=True)
class Compared:
    """One arm as it was carried out.

    Attributes:
        arm: its name.
        editor: the editor's.
        wordings: in which each fact was edited, its own prompt included; None where nothing is edited.
        made: how the edit was made beyond the editor's name; empty where it was not recorded.
        norms: size of each changed weight's update, mean over seeds; empty where it was not recorded.
        tuned: objective and mask.
        dropped: training lines left out because they speak of a fact, with reasons; empty where not recorded.
    """

    arm: str
    editor: str
    wordings: int | None
    made: str
    norms: str
    tuned: str
    dropped: str


@dataclass(frozen=True)
class Failure:
    """A run that did not finish."""

    arm: str
    seed: int
    error: str


def compared(arm: str, runs: pd.DataFrame) -> Compared:
    """What the runs of an arm were; several seeds may differ in what was dropped, and rarely in the rest.

    Args:
        arm: its name.
        runs: its rows of the run table, one or more.
    """
    first = runs.iloc[0]
    edits = bool(first["editor"] != CONTROL_EDITOR)
    made = dict.fromkeys(runs["edit"].dropna()) if edits and "edit" in runs else {}
    tuned = f"{first['objective']}, {first['tuner']}" + ("" if first["mask"] == "none" else f", frozen {first['mask']}")
    return Compared(
        arm=arm,
        editor=str(first["editor"]),
        wordings=1 + int(first["paraphrases"]) if edits else None,
        made=" / ".join(map(str, made)),
        norms=_norms(runs),
        tuned=tuned,
        dropped=_dropped(runs),
    )


def _norms(runs: pd.DataFrame) -> str:
    """ "model.layers.6.mlp.down_proj 1.83, ...": Frobenius norms of the updates, mean over seeds."""
    if "update_norms" not in runs:
        return ""
    found: dict[str, list[float]] = {}
    for text in runs["update_norms"].dropna():
        for name, norm in json.loads(text).items():
            found.setdefault(name, []).append(float(norm))
    return ", ".join(f"{name.removesuffix('.weight')} {sum(norms) / len(norms):.3g}" for name, norms in found.items())


def _dropped(runs: pd.DataFrame) -> str:
    """ "3 (names the subject 2, names both 1)", over all seeds."""
    if "dropped" not in runs or runs["dropped"].isna().all():
        return ""
    reasons: Counter[str] = Counter()
    for counted in runs["dropped_reasons"].dropna():
        reasons.update(json.loads(counted))
    detail = ", ".join(f"{reason} {count}" for reason, count in reasons.most_common())
    return f"{int(runs['dropped'].sum())}" + (f" ({detail})" if detail else "")


def failures(runs: pd.DataFrame) -> list[Failure]:
    """Runs that did not finish, with what was said about them, in the order of the run table."""
    failed = runs[runs["status"] != "done"]
    return [
        Failure(str(arm), int(seed), "no message was recorded" if pd.isna(error) else str(error))
        for arm, seed, error in zip(failed["arm"], failed["seed"], failed["error"], strict=True)
    ]


def rerun(settings: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What to do again, each with the command that does it.

    Args:
        settings: of the study.
        provenance: of the run; what is not recorded there is left out.
    """
    found = []
    versions = provenance.get("versions")
    if isinstance(versions, Mapping):
        pinned = " ".join(
            f"{name}=={str(versions[name]).partition('+')[0]}"
            for name in ("indelible", "torch", "transformers")
            if name in versions
        )
        found.append(("The same software:", f"pip install {pinned}"))
    if provenance.get("command"):
        found.append(("What was typed:", str(provenance["command"])))
    name = str(settings.get("name", "study"))
    found.append(
        (
            "The same study again, from the settings below, saved as study.yaml:",
            f"indelible study study.yaml --out runs/{name}-again",
        )
    )
    found.append(("This report again, from the tables in the run folder:", f"indelible report runs/{name}"))
    found.append(("Both runs on one page, arm by arm:", f"indelible report runs/{name} runs/{name}-again"))
    return found
