"""The table of drift.py over the facts of an arm, with intervals; apart from it, so that reports need no torch."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from indelible.errors import DataError, suggest
from indelible.numbers.bootstrap import mean_interval
from indelible.numbers.measures import require_columns
from indelible.numbers.replicates import generator_of

if TYPE_CHECKING:
    from collections.abc import Mapping

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "key": "key k",
        "output": "W·k",
        "output_by_weight": "tuned W, edited k",
        "output_by_key": "edited W, tuned k",
        "state": "the state that the head reads",
        "head_row": "the head's row of the answer",
    }
)
"""What was compared, on its way from the subject to the answer, with what to call it."""

ROW_COLUMNS = ("arm", "seed", "fact_id", "quantity", "layer", "cosine", "norm_change")
COLUMNS = ("arm", "quantity", "layer", "cosine", "low", "high", "norm_change", "facts", "seeds")


def drift_summary(rows: pd.DataFrame, *, draws: int = 10_000, seed: int = 0) -> pd.DataFrame:
    """Mean drift over edited facts, of the rows of `drift.measure_drift` with arm and seed.

    Returns:
        One row per arm × quantity × layer in the order of LABELS, layers ascending: the mean ``cosine`` between the
        edited and the tuned model's vectors with its 95% interval ``low`` to ``high`` by bootstrap over seeds and facts
        (NaN for a single fact), the mean ``norm_change`` (tuned norm over edited norm, less 1), ``facts`` (pairs of
        seed and fact that have a cosine) and ``seeds`` (that have any). ``layer`` is missing for what belongs to none.

    Raises:
        DataError: if a column is missing, or a quantity is unknown.
    """
    require_columns(rows, ROW_COLUMNS, "table of drift")
    if unknown := sorted(set(rows["quantity"]) - LABELS.keys()):
        raise DataError(f"Unknown quantity {unknown[0]!r} in the table of drift.", suggest(unknown[0], LABELS))
    lines: list[tuple[object, ...]] = []
    for arm in rows["arm"].drop_duplicates():
        own = rows[rows["arm"] == arm]
        for quantity in LABELS:
            for layer, part in own[own["quantity"] == quantity].groupby("layer", dropna=False):
                generator = generator_of(seed, f"{arm} {quantity} {layer}")
                # Where an edit has several projections in one layer, a fact stands for all of them.
                facts = part.groupby(["seed", "fact_id"])[["cosine", "norm_change"]].mean()
                wide = facts["cosine"].dropna().unstack()
                cosines = wide.to_numpy(dtype=np.float64)
                there = ~np.isnan(cosines)
                counted = there.astype(np.float64)
                found = mean_interval(np.nan_to_num(cosines), counted, draws=draws, generator=generator)
                means = (facts["cosine"].mean(), *(found or (np.nan, np.nan)), facts["norm_change"].mean())
                lines.append((arm, quantity, layer, *means, int(there.sum()), len(wide)))
    return pd.DataFrame(lines, columns=list(COLUMNS))
