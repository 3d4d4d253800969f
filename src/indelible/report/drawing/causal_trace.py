"""The picture of a causal trace: where restored states bring an answer back (ROME, Meng et al. 2022, figure 1)."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

KINDS = {
    "hidden": ("states", "Purples"),
    "mlp": ("MLP, in a window", "Greens"),
    "attention": ("attention, in a window", "Reds"),
}
"""Kind of state -> its title and colours."""


def draw_trace(rows: pd.DataFrame, groups: list[str], file: Path) -> None:
    """Draw mean indirect effects as heat maps, one for each kind of state, into a PNG.

    Args:
        rows: one per fact, kind, layer and position, with columns ``kind``, ``layer``, ``group`` and ``effect``.
        groups: position groups from top to bottom; those without rows are left out.
    """
    kinds = [kind for kind in KINDS if kind in set(rows["kind"])]
    shown = [group for group in groups if group in set(rows["group"])]
    figure = Figure(figsize=(1.6 + 3.2 * len(kinds), 1.2 + 0.32 * len(shown)), layout="constrained")
    panels = figure.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=True):
        title, colours = KINDS[kind]
        means = rows[rows["kind"] == kind].pivot_table("effect", "group", "layer", "mean").reindex(shown)
        image = axes.imshow(means, aspect="auto", cmap=colours, vmin=0, interpolation="nearest")
        axes.set_yticks(range(len(shown)), shown, fontsize=8)
        axes.set_xlabel("layer", fontsize=8)
        axes.tick_params(axis="x", labelsize=8)
        axes.set_title(title, fontsize=9)
        bar = figure.colorbar(image, ax=axes, pad=0.02)
        bar.ax.tick_params(labelsize=7)
        bar.outline.set_visible(False)
    figure.suptitle("mean indirect effect on the answer's probability", fontsize=9)
    figure.savefig(file, dpi=150)
