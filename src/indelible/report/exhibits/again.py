"""How each arm was carried out, what to type to have it all again, the settings, and where the run came from."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping

import pandas as pd
import yaml

from indelible.numbers.measures import CONTROL_EDITOR
from indelible.numbers.words import MISSING, counted, duration
from indelible.report.exhibit import Data, Fold, Grid, Heading, Html, Part, Words, exhibit
from indelible.report.run import Run, flat

MOST_OPEN = 12
"""Arms in a table that stands open."""
CODE = '<pre tabindex="0">{{ code }}</pre>'


@exhibit("again", place=100)
def again(run: Run) -> Iterator[Part]:
    """What was done in each arm, and which runs failed; commands, settings, provenance."""
    yield from _arms(run)
    yield Heading("How to run it again", "rerun")
    for what, command in commands(run.name, run.provenance):
        yield Words(what)
        yield Html(CODE, {"code": command})
    yield Heading("Settings", "settings", level=3)
    if run.changed is not None:
        said = list(flat(run.changed))
        yield Words("All that is not as it would be without a word:", "note")
        yield Grid(pd.DataFrame(said, columns=["setting", "value"]), "Settings that differ from defaults", look="pairs")
    if run.settings:
        study = yaml.safe_dump(dict(run.settings), sort_keys=False, allow_unicode=True)
        yield Fold("All settings, as a study file", [Html(CODE, {"code": study})], "study.yaml")
    else:
        yield Words("None were recorded.", "note")
    yield from _times(run.predicted)
    yield Heading("Provenance", "provenance", level=3)
    if run.provenance:
        recorded = pd.DataFrame(list(flat(run.provenance)), columns=["of", "value"])
        yield Fold(counted(len(recorded), "line"), [Grid(recorded, "Provenance", look="pairs")])
    else:
        yield Words("None was recorded.", "note")


def _times(predicted: Mapping[str, Mapping[str, float]]) -> Iterator[Part]:
    """What was predicted of the time of steps, beside what they took, by kind."""
    if not predicted:
        return
    yield Heading("Time predicted and taken", "times", level=3)
    yield Words(
        "Predicted from a few seconds' measurement before the first step, by kind of step. Beside other steps, or "
        "other work on the machine, steps take longer.",
        "note",
    )
    found = pd.DataFrame.from_dict(dict(predicted), orient="index").rename_axis("step").reset_index()
    found["ratio"] = found["seconds"] / found["predicted"]
    cells = pd.DataFrame(
        {
            "step": found["step"],
            "done": found["steps"].map("{:.0f}".format),
            "predicted": found["predicted"].map(duration),
            "taken": found["seconds"].map(duration),
            "ratio": found["ratio"].map("{:.2f}".format),
        }
    )
    yield Grid(cells, "Time predicted of steps, and taken", data=found)
    yield Data("times", found)


def commands(name: str, provenance: Mapping[str, object]) -> Iterator[tuple[str, str]]:
    """What to do again, each with the command that does it; what provenance does not record is left out.

    A run folder is taken to lie in runs/, under its own name (not its study's, which several runs can share).
    """
    versions = provenance.get("versions")
    if isinstance(versions, Mapping):
        pinned = [f"{one}=={str(of).partition('+')[0]}" for one, of in versions.items() if one != "python"]
        yield "The same software:", f"pip install {' '.join(pinned)}"
    if provenance.get("command"):
        yield "What was typed:", str(provenance["command"])
    yield (
        "The same study again, from the settings below, saved as study.yaml:",
        f"indelible study study.yaml --out runs/{name}-again",
    )
    yield "This report again, from the tables in the run folder:", f"indelible report runs/{name}"
    yield "Both runs on one page, arm by arm:", f"indelible report runs/{name} runs/{name}-again"


def _arms(run: Run) -> Iterator[Part]:
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
