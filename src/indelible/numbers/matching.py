"""The matched gap: are edits lost more often than facts from pre-training that the model held just as firmly?

An edit may be lost more often only because the edited model gave it a lower probability than it gives to what it knows
of old. So each edited fact is set beside intrinsic facts of the same model that are near in probability, and of the
same relation where that has any: the nearest three of them, in log-odds, within a caliper (Rosenbaum & Rubin, 1985: a
fifth of the standard deviation). An intrinsic fact may serve several edits. Edits without a match are left
out and counted: about them the matched gap says nothing.

The interval treats a match as given. Matched intrinsic facts make a rate in which each counts by how many edits it
serves, and the matched gap is the difference of that rate and of the matched edits' own, drawn like every other
difference (`statistics`). A bootstrap that matched anew in every draw would be wrong: with a fixed number of neighbours
it does not even tend to the right variance (Abadie & Imbens, 2008), while weights on a given match do (Otsu & Rai,
2017).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from indelible.numbers.bootstrap import Floats
from indelible.numbers.measures import is_control, outcomes, require_columns
from indelible.numbers.replicates import Effect, RateKey, Replicates, replicate_counts

NEIGHBOURS = 3
CALIPER = 0.2
"""In standard deviations of the log-odds over edited and intrinsic facts."""
SMALLEST_PROBABILITY = 1e-6
"""Probabilities are kept so far from 0 and 1 that their log-odds stay finite."""

BALANCE_COLUMNS = (
    "facts", "edited", "intrinsic", "difference", "standardised_difference", "edits", "intrinsic_facts", "same_relation"
)  # fmt: skip
MODEL = ["seed", "copy"]
EDITED, INTRINSIC = "matched_edited", "matched_intrinsic"


@dataclass(frozen=True)
class MatchedGap:
    """A matched gap and how good the match is.

    Attributes:
        effect: intrinsic less edited retention over matched edits; positive when edits were lost more often.
        balance: two rows, "all" and "matched": mean log-probability of edited and of intrinsic facts (nats), their
            difference, the same over the standard deviation of all facts before matching, the number of edits and
            of distinct intrinsic facts, and the share of edits whose matches have the same relation.
        matched: edits with a match, over all seeds.
        unmatched: edits without one.
        counts: hits and asked per fact of both rates, from which several arms are drawn together.
        weights: of those rates in the gap.
        draws: of the bootstrap.
        seed: of the bootstrap.
    """

    effect: Effect
    balance: pd.DataFrame
    matched: int
    unmatched: int
    counts: Mapping[RateKey, pd.DataFrame]
    weights: Mapping[RateKey, float]
    draws: int
    seed: int


def matched_gap(rows: pd.DataFrame, *, draws: int = 10_000, seed: int = 0) -> MatchedGap:
    """The matched gap of one arm.

    Args:
        rows: tidy rows of one arm, with probability and relation.
        draws: bootstrap draws, 39 or more.
        seed: of the bootstrap.

    Returns:
        with an empty effect where no edit has a match, as in the control.

    Raises:
        DataError: if a column is missing, or a question was answered twice.
    """
    require_columns(rows, ["arm", "relation", "log_prob"], "table of answers")
    facts = _facts(rows)
    spread = float(facts["log_odds"].std()) if len(facts) > 1 else 0.0
    parts = [_matches(part, CALIPER * spread) for _, part in facts.groupby(MODEL, sort=True)]
    pairs = pd.concat(parts) if parts else pd.DataFrame({"edit": [], "fact": [], "share": [], "same_relation": []})
    edited = facts[facts["fact_set"] == "edited"]
    chosen = edited[edited.index.isin(pairs["edit"])]
    used = facts.loc[pairs["fact"].astype("int64")]
    shares = pairs["share"].to_numpy(dtype=np.float64)
    arm = str(rows["arm"].iloc[0]) if len(rows) else ""
    counts: dict[RateKey, pd.DataFrame] = {
        (arm, INTRINSIC): _counts(used, shares),
        (arm, EDITED): _counts(chosen, np.ones(len(chosen))),
    }
    weights = {(arm, INTRINSIC): 1.0, (arm, EDITED): -1.0}
    effect = _drawn(counts, draws, seed).effect(weights)
    balance = _balance(facts, chosen, used, shares, pairs)
    return MatchedGap(effect, balance, len(chosen), len(edited) - len(chosen), counts, weights, draws, seed)


def mean_matched_gap(gaps: Sequence[MatchedGap]) -> Effect:
    """The mean of the matched gaps of several arms, in joint draws: arms of a study share facts and seeds.

    Arms without a matched gap are left out.
    """
    measured = [gap for gap in gaps if gap.effect.value is not None]
    if not measured:
        return Effect(None, None, None, 0, 0)
    weights = {key: weight / len(measured) for gap in measured for key, weight in gap.weights.items()}
    return matched_replicates(measured).effect(weights)


def matched_replicates(gaps: Sequence[MatchedGap]) -> Replicates:
    """The matched rates of several arms, drawn together with the draws and the seed of the first gap."""
    counts = {key: count for gap in gaps for key, count in gap.counts.items()}
    return _drawn(counts, gaps[0].draws, gaps[0].seed)


def _drawn(counts: Mapping[RateKey, pd.DataFrame], draws: int, seed: int) -> Replicates:
    populations = {key: "edited" if key[1] == EDITED else "intrinsic" for key in counts}
    return replicate_counts(counts, populations, draws=draws, seed=seed)


def _facts(rows: pd.DataFrame) -> pd.DataFrame:
    """Facts that had succeeded in edited and were asked again after tuning, one per row: kept, log-odds, relation."""
    columns = [*MODEL, "fact_set", "fact_id"]
    prompts = rows[(rows["kind"] == "prompt") & (not is_control(rows))]
    outcome = outcomes(prompts).reset_index()
    known = outcome[(outcome["edited"] == 1) & outcome["tuned"].notna()]
    about = prompts.loc[prompts["phase"] == "edited", [*columns, "relation", "log_prob"]]
    facts = known[[*columns, "tuned"]].merge(about, on=columns, validate="one_to_one")
    probability = np.exp(facts["log_prob"]).clip(SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return facts.assign(log_odds=np.log(probability) - np.log1p(-probability))


def _matches(facts: pd.DataFrame, caliper: float) -> pd.DataFrame:
    """Pairs of an edit and an intrinsic fact (rows of the frame), with the share that the fact has in the edit's match.

    Args:
        facts: of one model.
        caliper: the farthest that a match may be, in log-odds.
    """
    edited, intrinsic = (facts[facts["fact_set"] == name] for name in ("edited", "intrinsic"))
    log_odds, relations = intrinsic["log_odds"].to_numpy(), intrinsic["relation"].to_numpy()
    pairs = []
    for edit, at, relation in zip(edited.index, edited["log_odds"], edited["relation"], strict=True):
        same = relations == relation
        distance = np.abs(log_odds - at)
        distance[~same & same.any()] = np.inf
        # Facts as near as the third stand beside it: which of them came first must not matter.
        farthest = min(np.sort(distance)[:NEIGHBOURS].max(initial=-1), caliper)
        near = np.flatnonzero(distance <= farthest)
        pairs += [(edit, fact, 1 / len(near), bool(same.any())) for fact in intrinsic.index[near]]
    return pd.DataFrame(pairs, columns=["edit", "fact", "share", "same_relation"])


def _counts(facts: pd.DataFrame, weights: Floats) -> pd.DataFrame:
    table = facts[[*MODEL, "fact_id"]].assign(hits=facts["tuned"].to_numpy() * weights, asked=weights)
    return table.groupby([*MODEL, "fact_id"], observed=True).sum()


def _balance(
    facts: pd.DataFrame, chosen: pd.DataFrame, used: pd.DataFrame, shares: Floats, pairs: pd.DataFrame
) -> pd.DataFrame:
    edited, intrinsic = (facts[facts["fact_set"] == name] for name in ("edited", "intrinsic"))
    spread = float(facts["log_prob"].std()) if len(facts) > 1 else float("nan")
    lines = []
    for name, edits, others, weights in (
        ("all", edited, intrinsic, np.ones(len(intrinsic))),
        ("matched", chosen, used, shares),
    ):
        total = float(weights.sum())
        means = (
            float(edits["log_prob"].mean()),
            float(others["log_prob"].to_numpy() @ weights / total) if total else float("nan"),
        )
        same = (
            float(pairs.groupby("edit")["same_relation"].all().mean())
            if name == "matched"
            else float(edits["relation"].isin(set(intrinsic["relation"])).mean())
        )
        difference = means[0] - means[1]
        scaled = difference / spread if spread else float("nan")
        lines.append((name, *means, difference, scaled, len(edits), others.index.nunique(), same))
    return pd.DataFrame(lines, columns=list(BALANCE_COLUMNS))
