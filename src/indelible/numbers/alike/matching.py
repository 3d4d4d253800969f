"""The matched gap: are edits lost more often than facts from pre-training that the model held just as firmly?

An edit may be lost more often only because the edited model gave it a lower probability than it gives to what it knows
of old. So each edited fact is set beside intrinsic facts of the same model that are near in probability, and of the
same relation where that has any so near: the nearest three of them, in log-odds, within a caliper (Rosenbaum & Rubin,
1985: a fifth of the standard deviation). A small model holds whole relations loosely, to whose edits facts of other
relations are alike. An intrinsic fact may serve several edits. Edits without a match are left out and counted: about
them the matched gap says nothing.

The interval treats a match as given. Matched intrinsic facts make a rate in which each counts by how many edits it
serves, and the matched gap is the difference of that rate and of the matched edits' own, drawn like every other
difference (`replicates`). A bootstrap that matched anew in every draw would be wrong: with a fixed number of neighbours
it does not even tend to the right variance (Abadie & Imbens, 2008), while weights on a given match do (Otsu & Rai,
2017).
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from indelible.numbers.alike.log_odds import log_odds
from indelible.numbers.measures import FACT_SETS, FactSet, require_columns

NEIGHBOURS = 3
CALIPER = 0.2
"""In standard deviations of the log-odds over edited and intrinsic facts."""
MODEL = ["seed", "copy"]


def matched_counts(rows: pd.DataFrame, outcome: pd.DataFrame) -> dict[FactSet, pd.DataFrame]:
    """What the matched rates of an arm that edits are made of, from its tidy rows and their `answers.outcomes`: hits
    and asked by seed, copy and fact_id, 1 asked per matched edit, and per intrinsic fact the sum of its shares in the
    matches of edits. Both are empty where no edit has a match."""
    require_columns(rows, ["relation", "log_prob"], "table of answers")
    facts = _facts(rows, outcome)
    spread = float(facts["log_odds"].std()) if len(facts) > 1 else 0.0
    parts = [_matches(part, CALIPER * spread) for _, part in facts.groupby(MODEL, sort=True)]
    pairs = pd.concat(parts) if parts else pd.DataFrame({"edit": [], "fact": [], "share": []})
    edits = facts[(facts["fact_set"] == "edited") & facts.index.isin(pairs["edit"])].assign(share=1.0)
    matched = facts.loc[pairs["fact"].astype("int64"), [*MODEL, "fact_id", "tuned"]]
    others = matched.assign(share=pairs["share"].to_numpy(dtype=np.float64))
    counts = [
        part[[*MODEL, "fact_id"]].assign(hits=part["tuned"] * part["share"], asked=part["share"])
        for part in (edits, others)
    ]
    summed = [count.groupby([*MODEL, "fact_id"], observed=True).sum() for count in counts]
    return dict(zip(FACT_SETS, summed, strict=True))


def _facts(rows: pd.DataFrame, outcome: pd.DataFrame) -> pd.DataFrame:
    """Facts that had succeeded in edited and were asked again after tuning, one per row: kept, log-odds, relation."""
    columns = [*MODEL, "fact_set", "fact_id"]
    known = outcome[(outcome["edited"] == 1) & outcome["tuned"].notna()].reset_index()
    about = rows.loc[(rows["kind"] == "prompt") & (rows["phase"] == "edited"), [*columns, "relation", "log_prob"]]
    facts = known.loc[known["kind"] == "prompt", [*columns, "tuned"]].merge(about, on=columns, validate="one_to_one")
    return facts.assign(log_odds=log_odds(facts["log_prob"].to_numpy(np.float64)))


def _matches(facts: pd.DataFrame, caliper: float) -> pd.DataFrame:
    """Pairs of an edit and an intrinsic fact of one model (rows of the frame), with the share that the fact has in the
    edit's match; none is farther than the caliper, in log-odds."""
    edited, intrinsic = (facts[facts["fact_set"] == name] for name in ("edited", "intrinsic"))
    log_odds, relations = intrinsic["log_odds"].to_numpy(), intrinsic["relation"].to_numpy()
    near = []
    for at, relation in zip(edited["log_odds"], edited["relation"], strict=True):
        distance = np.abs(log_odds - at)
        same = (relations == relation) & (distance <= caliper)
        distance[~same & same.any()] = np.inf
        # Facts as near as the third stand beside it: which of them came first must not matter.
        farthest = min(np.sort(distance)[:NEIGHBOURS].max(initial=-1), caliper)
        near.append(np.flatnonzero(distance <= farthest))
    sizes = np.array([len(own) for own in near], np.int64)
    found = intrinsic.index[np.concatenate([*near, np.empty(0, np.int64)])]
    return pd.DataFrame({"edit": edited.index.repeat(sizes), "fact": found, "share": 1 / np.repeat(sizes, sizes)})
