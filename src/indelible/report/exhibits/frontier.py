"""What each protection keeps and what it costs, dose by dose: who is on the Pareto front."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd

from indelible.numbers.arms import ArmFactors, arms_of, family, varying
from indelible.numbers.measures import FACTORS, MEASURES, rate_named
from indelible.numbers.words import MINUS, MISSING, percent_with_interval
from indelible.report.drawing.frontier import Cost, frontier, on_front
from indelible.report.exhibit import Data, Fold, Heading, Part, Picture, Words, exhibit, numbers, texts
from indelible.report.run import Run

UNPROTECTED = "none"
ENDS = ("start", "end")
KEPT = {
    "retention_edited": "edited facts",
    "retention_paraphrase": "edited facts, held-out wordings",
    "retention_intrinsic": "intrinsic facts",
}
MOST_OPEN = 3
"""Families whose pictures stand open on the page."""
OPTIONS = re.compile(r"([\w-]+)(?:\(([^)]*)\))?")


@exhibit("frontier", place=55)
def frontier_shown(run: Run) -> Iterator[Part]:
    """A picture and a table for each family of arms that differ in their protection, or its dose, alone."""
    found = frontier_of(run)
    if found.empty:
        return
    yield Heading("What protects edits, and what it costs", "frontier")
    yield Words(
        "Facts kept against the held-out figure that training came to and the time that it took, both relative to the "
        "arm without a protection, dose by dose. Up and to the right is better. No arm on the Pareto front is beaten "
        "in both, as measured. Upright lines are 95% intervals, level lines run from the least to the greatest over "
        "seeds; a line joins the doses of one protection in the order of the study. Time is that of an optimizer step, "
        "protections included, without exams, held-out figures and what protections prepare before the first step "
        "(fixed_seconds in runs.parquet): of the processor where training was on one."
    )
    pictures = [_picture(number, own) for number, (_, own) in enumerate(found.groupby("family", sort=False), 1)]
    yield from pictures[:MOST_OPEN]
    if rest := pictures[MOST_OPEN:]:
        yield Fold(f"{len(rest)} more", rest)
    yield numbers(_table(found), "What protections keep and what they cost.", "frontier", data=found)
    yield Words(
        f"{MEASURES.get('durability').label.capitalize()}: the mean share kept over the held-out figures that all arms "
        "tuned alike reached, each when it was first reached; fewer exams on the way put it higher. A dash stands for "
        "an arm that came less than half as far as the farthest, or whose weights a protection changed after training.",
        "note",
    )
    yield Data("frontier", found)


def frontier_of(run: Run) -> pd.DataFrame:
    """A line for each arm of each family, plain ones first; none where no family has several.

    Columns: family (in words), number (of the arm in the picture and table), arm, the factors, protection and dose (of
    the factor protect), against (the arm that costs are relative to: the one without a protection, else the family's
    first); each of `KEPT`, and durability, with _low and _high; durability_start and _end, the held-out figures that
    its range is from and to, means over seeds; figure and better; downstream, by which share of it the arm's held-out
    figure differs from that arm's, and time, the ratio of their seconds for a step, each the mean over seeds with
    _least and _most; and front, of edited facts: "downstream", "time", both or neither.
    """
    families: dict[str, list[ArmFactors]] = {}
    for arm in arms_of(run.runs):
        families.setdefault(family(arm, "protect"), []).append(arm)
    several = [own for own in families.values() if len({arm.factors["protect"] for arm in own}) > 1]
    frames = [_family(run, own, name) for own, name in zip(several, _names(several), strict=True)]
    if not frames:
        return pd.DataFrame()
    found = pd.concat(frames, ignore_index=True)
    found.insert(1, "number", range(1, len(found) + 1))
    return found


def _names(families: Sequence[Sequence[ArmFactors]]) -> list[str]:
    """What sets families apart in words: factors, or where these do not the name of an arm; what a single one is."""
    firsts = [own[0] for own in families]
    which = [name for name in varying(firsts) if name != "protect"] or ["editor", "objective"]
    names = [", ".join(str(arm.factors[name]) for name in which) for arm in firsts]
    return [name if names.count(name) == 1 else arm.name for name, arm in zip(names, firsts, strict=True)]


def _family(run: Run, arms: Sequence[ArmFactors], name: str) -> pd.DataFrame:
    arms = sorted(arms, key=lambda arm: arm.factors["protect"] != UNPROTECTED)
    of_seeds = {arm.name: run.runs[run.runs["arm"] == arm.name].set_index("seed") for arm in arms}
    against = of_seeds[arms[0].name]
    lines = []
    for arm in arms:
        own = of_seeds[arm.name]
        protection, dose = told(str(arm.factors["protect"]))
        line: dict[str, Any] = {"family": name, "arm": arm.name}
        line |= {str(factor): arm.factors[factor] for factor in FACTORS}
        line |= {"protection": protection, "dose": dose, "against": arms[0].name}
        for measure in (*KEPT, "durability"):
            one = run.estimate(arm.name, measure)
            line |= {measure: one.value, f"{measure}_low": one.low, f"{measure}_high": one.high}
        ways = run.answers.passages(rate_named("durability")).get(arm.name, {}).values()
        line |= {f"durability_{end}": fmean(getattr(way, end) for way in ways) if ways else None for end in ENDS}
        line |= {"figure": own["figure"].dropna().iloc[0], "better": own["better"].dropna().iloc[0]}
        line |= _relative("downstream", own, against, "downstream_after", less=1.0)
        lines.append(line | _relative("time", own, against, "step_seconds"))
    found = pd.DataFrame(lines)
    return found.assign(front=_fronts(found))


def told(protect: str) -> tuple[str, str]:
    """A value of the factor protect as the protection and its dose: what its options say in words is of the protection,
    and in numbers its dose; "" for none, and "usual" for a dose that is not said."""
    kinds, doses = [], []
    for name, options in OPTIONS.findall("" if protect == UNPROTECTED else protect):
        said = [option.split("=", 1) for option in options.split(", ") if option]
        of_dose = [[key, value] for key, value in said if re.fullmatch(r"[-+.\de]+", value)]
        kinds.append(" ".join([name, *(f"{key} {value}" for key, value in said if [key, value] not in of_dose)]))
        doses += [f"{key} {float(value):g}" for key, value in of_dose]
    return "+".join(kinds), ", ".join(doses) or ("usual" if kinds else "")


def _relative(
    name: str, own: pd.DataFrame, against: pd.DataFrame, column: str, *, less: float = 0.0
) -> dict[str, float]:
    """The ratio of a column of two arms' runs, less a number, in the seeds that both have: mean, least, most."""
    if column not in own:
        return dict.fromkeys([name, f"{name}_least", f"{name}_most"], float("nan"))
    ours, theirs = own[column].astype("float64"), against[column].astype("float64")
    ratios = ((ours - less * theirs) / theirs.abs().where(theirs != 0)).dropna()
    return {name: ratios.mean(), f"{name}_least": ratios.min(), f"{name}_most": ratios.max()}


def _costs(points: pd.DataFrame) -> list[Cost]:
    """What is known of what the arms of a family pay."""
    first = points.iloc[0]
    plain = "the unprotected arm" if not first["protection"] else "the first arm"
    falling = first["better"] == "lower"
    figure = f"held-out {str(first['figure']).replace('_', ' ')} against {plain} ({first['better']} is better)"
    found = [
        Cost("downstream", figure, falling, changes=True),
        Cost("time", f"time of a step, times that of {plain} (lower is better)", falling=True, changes=False),
    ]
    return [cost for cost in found if points[cost.column].notna().any()]


def _fronts(points: pd.DataFrame) -> list[str]:
    """By arm, in which pictures of edited facts it is on the front."""
    fronts = {
        cost.column: on_front(
            points[cost.column].to_numpy(np.float64) * (-1 if cost.falling else 1),
            points["retention_edited"].to_numpy(np.float64),
        )
        for cost in _costs(points)
    }
    return [", ".join(name for name, front in fronts.items() if front[place]) for place in range(len(points))]


def _picture(number: int, points: pd.DataFrame) -> Picture:
    front = points.loc[points["front"] != "", "arm"]
    said = f"Facts kept against what protections cost, {len(points)} arms. On the front: {'; '.join(front) or 'none'}."
    kept = {name: label for name, label in KEPT.items() if points[name].notna().any()}
    title = str(points["family"].iloc[0])
    return Picture(partial(frontier, points, kept, _costs(points)), said, title, f"frontier-{number}")


def _table(found: pd.DataFrame) -> pd.DataFrame:
    cells: dict[str, Any] = {"arm": found["arm"], "no.": found["number"].astype(str)}
    cells |= {"protection": found["protection"].replace("", UNPROTECTED), "dose": found["dose"].replace("", MISSING)}
    for measure in (*KEPT, "durability"):
        ends = [measure, f"{measure}_low", f"{measure}_high"]
        cells[f"{MEASURES.get(measure).label} [95%]"] = texts(percent_with_interval, found, *ends)
    cells["over held-out figures"] = texts(_from_to, found, *(f"durability_{end}" for end in ENDS))
    cells["downstream"] = texts(_change, found, "downstream", "downstream_least", "downstream_most")
    cells["time"] = texts(_ratio, found, "time", "time_least", "time_most")
    return pd.DataFrame(cells | {"on the front of": found["front"].replace("", MISSING)})


def _from_to(start: float, end: float) -> str:
    return MISSING if pd.isna(start) else f"{start:.3f} to {end:.3f}"


def _change(mean: float, least: float, most: float) -> str:
    """A change in percent, e.g. "+1.2% (+0.8% to +1.6%)"."""
    said = [f"{share * 100:+.1f}%".replace("-", MINUS) if share else "0" for share in (mean, least, most)]
    return _over_seeds(mean, least, most, said)


def _ratio(mean: float, least: float, most: float) -> str:
    """A ratio, e.g. "1.08 (1.05 to 1.11)"."""
    return _over_seeds(mean, least, most, [f"{one:.2f}" for one in (mean, least, most)])


def _over_seeds(mean: float, least: float, most: float, said: Sequence[str]) -> str:
    if np.isnan(mean):
        return MISSING
    return said[0] if least == most else f"{said[0]} ({said[1]} to {said[2]})"
