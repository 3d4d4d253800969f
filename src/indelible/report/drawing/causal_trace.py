"""The picture of a causal trace: where restored states bring an answer back (ROME, Meng et al. 2022, figure 1)."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pandas as pd

matplotlib.use("Agg")

from matplotlib import pyplot as plt

_TITLES = {"hidden": "states", "mlp": "MLP, in a window", "attention": "attention, in a window"}
_COLOURS = {"hidden": "Purples", "mlp": "Greens", "attention": "Reds"}


def draw_trace(rows: pd.DataFrame, groups: list[str], file: Path) -> None:
    """Draw mean indirect effects as heat maps, one for each kind of state.

    Args:
        rows: one per fact, kind, layer and position, with columns ``kind``, ``layer``, ``group`` and ``effect``.
        groups: position groups from top to bottom; those without rows are left out.
        file: a PNG.
    """
    kinds = [kind for kind in _TITLES if kind in set(rows["kind"])]
    shown = [group for group in groups if group in set(rows["group"])]
    size = (1.6 + 3.2 * len(kinds), 1.2 + 0.32 * len(shown))
    figure, axes = plt.subplots(1, len(kinds), figsize=size, sharey=True, squeeze=False, layout="constrained")
    for place, kind in zip(axes[0], kinds, strict=True):
        means = rows[rows["kind"] == kind].pivot_table("effect", "group", "layer", "mean").reindex(shown)
        image = place.imshow(means, aspect="auto", cmap=_COLOURS[kind], vmin=0, interpolation="nearest")
        place.set_yticks(range(len(shown)), shown, fontsize=8)
        place.set_xlabel("layer", fontsize=8)
        place.tick_params(axis="x", labelsize=8)
        place.set_title(_TITLES[kind], fontsize=9)
        bar = figure.colorbar(image, ax=place, pad=0.02)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
    figure.suptitle("mean indirect effect on the answer's probability", fontsize=9)
    figure.savefig(file, dpi=150)
    plt.close(figure)
