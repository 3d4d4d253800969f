"""What a pilot says: the cheapest protection that is shown to keep more edits than plain training, or that none is.

A candidate is held against plain training on the same facts, in the edits' own wordings and in held-out ones. It *keeps
more* where the 95% interval of its gain lies above zero and the gain is as large as one that counts, in each kind of
wording of which plain training cost enough to see a gain. The p of a candidate is the largest over these; where only
one kind was lost enough, it counts twice, as that one was chosen by its loss; and as several candidates are looked at,
all p are corrected after Holm, so that a pilot of candidates that do nothing names one of them in 5% at most. Which of
those that keep more is chosen goes by what they cost, not by how much they kept: those first whose price is allowed
with all of its interval, and of prices their upper ends are compared, since the least of several measured ones is
lower than it should be. Even so the chosen one may look better than it is: only a gain that came out large was shown
in a small pilot. Its intervals are those of one candidate alone.

Nothing is chosen where the pilot could not have told: plain training cost too few edits, or taught so little that a
protection which stops all learning would have no price.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy.stats import norm

from indelible.claims.judge import SIGNIFICANT
from indelible.claims.verdict import STRAIN
from indelible.numbers.answers import Answers, pooled
from indelible.numbers.estimate import Estimate
from indelible.numbers.measures import MEASURES, SMALLEST
from indelible.numbers.paired import holm
from indelible.numbers.power import USUAL_POWER
from indelible.numbers.replicates import generator_of
from indelible.numbers.words import MINUS, counted, in_points, percent

KEPT = {"retention_edited": "edits", "retention_paraphrase": "held-out wordings"}
INTRINSIC = "retention_intrinsic"
FEWEST_WORKING = 8
"""Edits that have to be right before tuning: with fewer, losing all of them would hardly be told from losing none."""
COUNTS = SMALLEST["share"]
WORTH = 0.15
"""A gain for which one would protect edits, and for which pilots are planned."""
ONE_SEED = " Each was run once: the intervals speak of other facts, not of other runs."

State = Literal["keeps more", "too dear", "harms other facts", "keeps no more", "cannot tell", "failed"]


@dataclass(frozen=True)
class Candidate:
    """A protection in the pilot.

    Attributes:
        arm: its name.
        kept: share of edits, held-out wordings and intrinsic facts that it kept, by measure.
        gains: the same less plain training's, with intervals.
        p: of the gain that is least sure, corrected; None where there is none.
        price: share by which the downstream figure is worse than plain training's, below zero where it is better; where
            that is the loss, with an interval over held-out rows.
        time: share by which a training step takes longer, without what is prepared before the first one.
    """

    arm: str
    kept: Mapping[str, float | None]
    gains: Mapping[str, Estimate]
    p: float | None
    price: Estimate
    time: float | None
    state: State = "failed"


@dataclass(frozen=True)
class Choice:
    """What a pilot came to: the chosen candidate, or None; why, in sentences; all candidates in their order; and what
    plain training kept."""

    chosen: Candidate | None
    why: str
    candidates: tuple[Candidate, ...]
    plain: Mapping[str, Estimate]

    def table(self) -> pd.DataFrame:
        """One row per candidate, after one for plain training (protect "none"): what is kept, gains with their ends,
        ``p``, ``price`` with its ends, ``time``, ``state``; shares."""
        lines: list[dict[str, Any]] = [
            {"protect": "none", **{name: found.value for name, found in self.plain.items()}, "state": "plain"}
        ]
        for one in self.candidates:
            line: dict[str, Any] = {"protect": one.arm, **one.kept}
            for name, gain in one.gains.items():
                line |= {f"gain_{name}": gain.value, f"gain_{name}_low": gain.low, f"gain_{name}_high": gain.high}
            line |= {"p": one.p, "price": one.price.value, "price_low": one.price.low, "price_high": one.price.high}
            lines.append(line | {"time": one.time, "state": one.state})
        return pd.DataFrame(lines)


def choose(answers: Answers, runs: pd.DataFrame, plain: str, arms: Sequence[str], allowed: float) -> Choice:
    """Choose among the arms of a pilot.

    Args:
        answers, runs: its tables.
        plain: the arm without a protection.
        arms: those of the candidates.
        allowed: share by which the downstream figure may be worse than plain training's.
    """
    kept = {name: answers.replicates.of(plain, MEASURES.get(name)) for name in (*KEPT, INTRINSIC)}
    candidates = [_candidate(arm, plain, answers, runs) for arm in arms]
    measured = [name for name in KEPT if kept[name].value is not None]
    room = [name for name in measured if _lost(kept[name]) >= STRAIN]
    corrected = holm([_least_sure(one, measured, room) for one in candidates])
    judged = [_judged(replace(one, p=p), room, allowed) for one, p in zip(candidates, corrected, strict=True)]
    if why := _untold(answers, runs, plain, kept, measured, room, allowed):
        judged = [replace(one, state="cannot tell") if one.state != "failed" else one for one in judged]
        return Choice(None, why, tuple(judged), kept)
    fit = sorted((one for one in judged if one.state == "keeps more"), key=lambda one: _cost(one, allowed))
    if fit:
        return Choice(fit[0], _praise(fit, answers, room, allowed), tuple(judged), kept)
    return Choice(None, _none(judged, measured, room, allowed), tuple(judged), kept)


def _candidate(arm: str, plain: str, answers: Answers, runs: pd.DataFrame) -> Candidate:
    gains, kept = {}, {}
    for name in (*KEPT, INTRINSIC):
        generator = generator_of(answers.replicates.seed, "advice", arm, name)
        gains[name], _ = answers.difference(arm, plain, MEASURES.get(name), generator=generator)
        kept[name] = pooled(answers.counts(arm, name))
    one, other = (runs[(runs["arm"] == name) & (runs["status"] == "done")].set_index("seed") for name in (arm, plain))
    both = one.join(other, how="inner", rsuffix="_plain")
    if both.empty:
        return Candidate(arm, kept, gains, None, Estimate(), None)
    took, plainly = (both[name].astype("float64").mean() for name in ("step_seconds", "step_seconds_plain"))
    time = took / plainly - 1
    return Candidate(arm, kept, gains, None, _price(both), None if math.isnan(time) else float(time), "cannot tell")


def _price(both: pd.DataFrame) -> Estimate:
    """Of runs beside the plain ones of their seeds. The error is that of a ratio of two means over the same held-out
    rows, by its linear part in each row."""
    value = _worse(both["downstream_after"], both["downstream_after_plain"], str(both["better"].iloc[0]))
    squares, rows = 0.0, 0
    for one, plain in zip(both["losses"], both["losses_plain"], strict=True) if "losses" in both else ():
        ours, theirs = (np.array(json.loads(each), dtype=np.float64).reshape(-1, 2)[:, 0] for each in (one, plain))
        rows += len(ours)
        if len(ours) > 1:
            parts = (ours - ours.sum() / theirs.sum() * theirs) / theirs.sum()
            squares += float(parts.var(ddof=1)) * len(parts)
    if not squares:
        return Estimate(value, seeds=len(both))
    half = float(norm.ppf(0.975)) * math.sqrt(squares) / len(both)
    return Estimate(value, value - half, value + half, facts=rows, seeds=len(both))


def _worse(figure: pd.Series, against: pd.Series, better: str) -> float:
    """Share by which a figure is worse than another, the mean over seeds; one that is zero has no shares."""
    difference = (figure - against) * (1 if better == "lower" else -1)
    shares = (difference / against.abs()).where(difference != 0, 0.0)
    return float(shares.astype("float64").mean())


def _lost(kept: Estimate) -> float:
    return 0.0 if kept.value is None else 1 - kept.value


def _least_sure(one: Candidate, measured: Sequence[str], room: Sequence[str]) -> float | None:
    found = [p for name in room if (p := one.gains[name].p) is not None]
    if one.state == "failed" or not room or len(found) < len(room):
        return None
    return min(max(found) * len(measured) / len(room), 1.0)


def _judged(one: Candidate, room: Sequence[str], allowed: float) -> Candidate:
    if one.state == "failed" or one.p is None or one.price.value is None:
        return one
    gains = [one.gains[name] for name in room]
    other = [one.gains[name] for name in KEPT if name not in room]
    state: State = "cannot tell"
    if any(gain.high is not None and gain.high < COUNTS for gain in gains) or any(gain.side < 0 for gain in other):
        state = "keeps no more"
    elif one.p < SIGNIFICANT and all(gain.side > 0 and (gain.value or 0) >= COUNTS for gain in gains):
        state = "keeps more" if one.price.value <= allowed else "too dear"
        state = "harms other facts" if one.gains[INTRINSIC].side < 0 else state
    return replace(one, state=state)


def _cost(one: Candidate, allowed: float) -> tuple[bool, float, float, str]:
    """Cheaper first: whose price is surely allowed; then by the time of a step, to the tenth, since timings are no
    finer; then by the upper end of the price."""
    time = math.inf if one.time is None else round(max(one.time, 0.0), 1)
    price = one.price.value if one.price.high is None else one.price.high
    return not _sure(one, allowed), time, math.inf if price is None else price, one.arm


def _sure(one: Candidate, allowed: float) -> bool:
    """Whether its price is below the one that is allowed with all of its interval."""
    return one.price.high is not None and one.price.high <= allowed


def _untold(
    answers: Answers,
    runs: pd.DataFrame,
    plain: str,
    kept: Mapping[str, Estimate],
    measured: Sequence[str],
    room: Sequence[str],
    allowed: float,
) -> str:
    """Why the pilot could not have told, whatever the candidates do, and what would be needed; empty where it could."""
    own = runs[(runs["arm"] == plain) & (runs["status"] == "done")]
    if own.empty or not measured:
        return "The plain run came to no end, so that there is nothing to hold a protection against."
    working = 0 if (counts := answers.counts(plain, "retention_edited")) is None else int(counts["asked"].sum())
    if working < FEWEST_WORKING:
        return (
            f"Only {counted(working, 'edit')} worked before training, and at least {FEWEST_WORKING} are needed. Give "
            "more facts, or another editor."
        )
    if not room:
        said = " and ".join(f"{percent(kept[name].value)} of {KEPT[name]}" for name in measured)
        return (
            f"The pilot is too mild to tell: plain training kept {said}, and has to lose {percent(STRAIN)} before a "
            "gain can be seen. Where your training is longer or stronger than the pilot's, give more minutes, or its "
            "steps and learning rate (tuning.steps, tuning.learning_rate); where it is not, nothing needs protection."
        )
    learned = -_worse(own["downstream_after"], own["downstream_before"], str(own["better"].iloc[0]))
    if not learned > allowed:
        return (
            f"The pilot taught too little to tell what a protection costs: the downstream figure got better by "
            f"{percent(learned)}, and {percent(allowed)} may be lost. Give more minutes, or more steps or a higher "
            "learning rate (tuning.steps, tuning.learning_rate)."
        )
    return ""


def _gains(one: Candidate, room: Sequence[str]) -> str:
    return ", ".join(f"{in_points(one.gains[name])} points of {KEPT[name]}" for name in room)


def _costs(one: Candidate) -> str:
    price, time = one.price.value or 0.0, one.time or 0.0
    worse = "no worse a downstream figure" if price <= 0 else f"a downstream figure worse by {price:.1%}"
    worse += f" ({ends})" if (ends := _ends(one.price)) else ""
    return f"{worse} and {percent(time)} more time a step" if time > 0 else f"{worse} and no more time a step"


def _ends(price: Estimate) -> str:
    """The interval of a price in words; empty where there is none."""
    if price.low is None or price.high is None:
        return ""
    return f"95% interval {price.low:+.1%} to {price.high:+.1%}".replace("-", MINUS)


def _praise(fit: Sequence[Candidate], answers: Answers, room: Sequence[str], allowed: float) -> str:
    """Of the cheapest, and of all that are shown to keep still more: the best of them alone would be so by chance."""
    best = fit[0]
    said = f"{best.arm} keeps more than plain training ({_gains(best, room)}), for {_costs(best)}."
    corrected = holm([_above(one, best, answers, room) for one in fit[1:]])
    for one in (one for one, p in zip(fit[1:], corrected, strict=True) if p is not None and p < SIGNIFICANT):
        said += f" {one.arm} keeps still more ({_gains(one, room)} over plain), for {_costs(one)}."
    if not _sure(best, allowed):
        said += (
            f" That this is below {percent(allowed)} is not sure: more held-out rows (tuning.heldout_examples) would "
            "tell."
        )
    return said + (ONE_SEED if best.gains[room[0]].seeds < 2 else "")


def _above(one: Candidate, other: Candidate, answers: Answers, room: Sequence[str]) -> float:
    """The p of its keeping more than another in some kind of wording, once for each kind; 1 where it keeps less."""
    found = []
    for name in room:
        generator = generator_of(answers.replicates.seed, "advice", one.arm, other.arm, name)
        found.append(answers.difference(one.arm, other.arm, MEASURES.get(name), generator=generator)[0])
    shown = [gain.p for gain in found if gain.side > 0 and gain.p is not None]
    return min(len(room) * min(shown), 1.0) if shown and all(gain.side >= 0 for gain in found) else 1.0


def _none(judged: Sequence[Candidate], measured: Sequence[str], room: Sequence[str], allowed: float) -> str:
    """What stands against each, and what would be needed."""
    said = ["No protection can be named."]
    for state, words in (
        ("too dear", f"keep more, but cost more than {percent(allowed)} of the downstream figure"),
        ("harms other facts", "keep more, but lose other facts"),
        ("keeps no more", f"gain less than {COUNTS * 100:g} points"),
        ("failed", "failed"),
    ):
        if named := [one for one in judged if one.state == state]:
            said.append(f"{_named(named)} {words}.")
    open_ = [one for one in judged if one.state == "cannot tell"]
    if open_:
        said.append(f"{_named(open_)} cannot be told from plain training.")
        if needed := facts_needed(open_, len(measured), room, len(judged)):
            said.append(
                f"About {needed:,} different edits (over all seeds) would show gains of {WORTH * 100:g} points in four "
                "of five pilots: give more facts or minutes, or fewer candidates."
            )
    dear = [one.price.value for one in judged if one.state == "too dear" and one.price.value is not None]
    if dear:
        said.append(f"A price of {math.ceil(round(100 * min(dear), 6)) / 100:g} would be enough for one of them.")
    return " ".join(said)


def _named(candidates: Sequence[Candidate]) -> str:
    found = []
    for one in candidates:
        price = "" if one.price.value is None else f"price {one.price.value:.1%}"
        said = ", ".join(part for part in (price, _ends(one.price)) if part)
        found.append(f"{one.arm} ({said})" if said else one.arm)
    return ", ".join(found)


def facts_needed(open_: Sequence[Candidate], measured: int, room: Sequence[str], candidates: int) -> int | None:
    """Different edits with which gains of `WORTH` would be shown together in each kind of wording that has room for
    them, with the widest intervals that candidates had; None where there are none. What they gained is left out: the
    largest of several gains that were not shown is mostly larger than it should be."""
    gains = [one.gains[name] for one in open_ for name in room]
    reach = norm.ppf(1 - SIGNIFICANT * len(room) / measured / candidates / 2)
    reach += norm.ppf(USUAL_POWER ** (1 / max(1, len(room))))
    needed = []
    for gain in gains:
        if gain.low is None or gain.high is None:
            return None
        error = (gain.high - gain.low) / (2 * norm.ppf(0.975))
        needed.append(math.ceil(gain.facts * (reach * error / WORTH) ** 2))
    return max(needed, default=None)
