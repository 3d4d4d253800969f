"""Counts of studies made up with known rates, without the tables that lead to them, and sums of rates to look at."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from indelible.numbers.measures import RateKey
from indelible.numbers.replicates import Replicates

Counts = dict[tuple[str, str], pd.DataFrame]
"""Name of an arm and of a rate -> hits and asked by seed, copy and fact."""
RETENTION = {"memit": (0.6, 0.8), "with paraphrases": (0.75, 0.8), "again": (0.6, 0.8)}
"""Each arm's true edited and intrinsic retention."""


def of(arm: str, measure: str, sign: float = 1.0) -> dict[RateKey, float]:
    """The weights of one retention."""
    return {(arm, f"retention_{measure}"): sign}


CONTRASTS: dict[str, tuple[dict[RateKey, float], float]] = {
    "edited retention": (of("memit", "edited"), 0.6),
    "intrinsic retention": (of("memit", "intrinsic"), 0.8),
    "gap": (of("memit", "intrinsic") | of("memit", "edited", -1.0), 0.2),
    "difference between arms": (of("with paraphrases", "edited") | of("memit", "edited", -1.0), 0.15),
    "no difference": (of("again", "edited") | of("memit", "edited", -1.0), 0.0),
    "mean gap": (
        {key: sign / 3 for arm in RETENTION for key, sign in (of(arm, "intrinsic") | of(arm, "edited", -1.0)).items()},
        0.15,
    ),
}
"""Weighted sums of these rates, and their true values."""


def joint_of(counts: Counts, *, draws: int, seed: int = 0) -> Replicates:
    """Rates that are counted already, drawn together."""
    by_rate: dict[str, dict[str, pd.DataFrame]] = {}
    for (arm, rate), count in counts.items():
        by_rate.setdefault(rate, {})[arm] = count
    return Replicates(lambda rate: by_rate.get(rate, {}), draws=draws, seed=seed)


def simulate_counts(
    retention: Mapping[str, tuple[float, float]],
    *,
    seeds: int,
    n_edits: int = 24,
    n_intrinsic: int = 60,
    spread: float = 0.0,
    known: float = 0.9,
    alike: float = 0.5,
    generator: np.random.Generator,
) -> Counts:
    """Counts per fact, as `joint_of` takes them.

    ``retention`` holds each arm's true edited and intrinsic retention, ``spread`` how much they vary between seeds,
    either set by itself; no two seeds share a fact. A fact had succeeded before tuning with the chance ``known``, in
    all arms alike, and with the chance ``alike`` one draw decides its fate for all arms, which makes them agree about
    it.
    """
    counts = {}
    for place, (fact_set, facts) in enumerate((("edited", n_edits), ("intrinsic", n_intrinsic))):
        asked = generator.random((seeds, facts)) < known
        common, shared = generator.random((seeds, facts)), generator.random((seeds, facts)) < alike
        index = pd.MultiIndex.from_arrays(
            [np.repeat(np.arange(seeds), facts), np.zeros(seeds * facts, int), [f"{n}" for n in range(seeds * facts)]],
            names=["seed", "copy", "fact_id"],
        )
        for arm, rates in retention.items():
            chance = np.clip(rates[place] + generator.normal(0, spread, (seeds, 1)), 0, 1)
            kept = asked & (np.where(shared, common, generator.random((seeds, facts))) < chance)
            table = pd.DataFrame({"hits": kept.ravel() * 1, "asked": asked.ravel() * 1}, index=index)
            counts[arm, f"retention_{fact_set}"] = table
    return counts


def simulate_isolated(
    retention: tuple[float, float],
    *,
    seeds: int,
    copies: int,
    n_intrinsic: int = 60,
    spread: float = 0.0,
    luck: float = 0.0,
    persistent: float = 1.0,
    generator: np.random.Generator,
) -> Counts:
    """Counts of one isolated arm, "memit": each copy is edited with one fact, tuned, and asked all intrinsic facts;
    and of "control", one model a seed that was not edited and is asked the same intrinsic facts.

    ``retention`` is the true one, edited and intrinsic; it varies by ``spread`` between seeds, either set by itself,
    and by ``luck`` between copies, both sets together. No two seeds share a fact, and all copies of one are asked the
    same intrinsic facts. ``persistent`` says how much these differ in how firmly they are held: their own rates follow
    a Beta distribution whose two numbers sum to it.
    """
    edited, intrinsic, of_control = [], [], []
    for seed in range(seeds):
        tilt = generator.normal(0, spread, 2)
        of_copy = generator.normal(0, luck, copies)
        firmness = generator.beta(persistent * retention[1], persistent * (1 - retention[1]), n_intrinsic)
        unedited = generator.random(n_intrinsic) < firmness
        of_control += [(seed, 0, f"{seed}-{fact}", int(hit)) for fact, hit in enumerate(unedited)]
        for copy in range(copies):
            hit = generator.random() < retention[0] + tilt[0] + of_copy[copy]
            edited.append((seed, copy, f"{seed}-{copy}", int(hit)))
            kept = generator.random(n_intrinsic) < np.clip(firmness + tilt[1] + of_copy[copy], 0, 1)
            intrinsic += [(seed, copy, f"{seed}-{fact}", int(hit)) for fact, hit in enumerate(kept)]
    index = ["seed", "copy", "fact_id"]
    tables = [pd.DataFrame(lines, columns=[*index, "hits"]) for lines in (edited, intrinsic, of_control)]
    keys = [("memit", "retention_edited"), ("memit", "retention_intrinsic"), ("control", "retention_intrinsic")]
    return {key: table.assign(asked=1).set_index(index) for key, table in zip(keys, tables, strict=True)}
