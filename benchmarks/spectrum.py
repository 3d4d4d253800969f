"""Does a checkpoint show an edit by itself, without what it was before? Singular values of the matrices that hold it.

For the unedited model and for each editor: by how much the first singular value of each layer's memory, over the second
and over the median, stands above that of the two layers before and the two after it. A layer that holds an edit would
have to stand out where the unedited model's layers do not.

    python benchmarks/spectrum.py
    python benchmarks/spectrum.py --edits memit:100 alphaedit:100 --model my-model
"""

from __future__ import annotations

import argparse

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

import indelible
from indelible.facts.choose import in_turns
from indelible.facts.world import world_facts
from indelible.models.layout import Layout, find_layout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument(
        "--edits",
        nargs="+",
        metavar="EDITOR:FACTS",
        default=["rome:1", "memit:1", "memit:24", "alphaedit:24", "ft-m:8"],
    )
    parser.add_argument("--seed", type=int, default=0, help="of which facts are edited")
    options = parser.parse_args()
    loaded = indelible.load(options.model)
    layout = find_layout(loaded.model)
    wanted = [fact for fact in world_facts() if fact.relation in ("capital", "continent", "language")]
    facts = in_turns(wanted, options.seed)
    lines = [_line("none", _above(loaded.model, layout))]
    for one in options.edits:
        editor, _, number = one.partition(":")
        edit = indelible.edit(loaded, facts[: int(number)], editor)
        edit.apply(loaded.model)
        lines.append(_line(one, _above(loaded.model, layout)))
        edit.revert(loaded.model)
    print(pd.DataFrame(lines).to_string(index=False))


def _above(model: torch.nn.Module, layout: Layout) -> NDArray[np.float64]:
    """For each layer: its two ratios over the median of its neighbours'. Shape (layers, 2)."""
    ratios = []
    for name in layout.mlp_out_weight:
        values = torch.linalg.svdvals(model.get_parameter(name).detach().double())
        ratios.append([float(values[0] / values[1]), float(values[0] / values.median())])
    found = np.array(ratios)
    places = range(len(found))
    near = [[other for other in range(place - 2, place + 3) if other != place and other in places] for place in places]
    return found / np.array([np.median(found[others], axis=0) for others in near])


def _line(edit: str, above: NDArray[np.float64]) -> dict[str, object]:
    names = ("first over second", "first over median")
    highest = {name: f"{above[:, n].max():.2f} (layer {above[:, n].argmax()})" for n, name in enumerate(names)}
    return {"edit": edit} | highest


if __name__ == "__main__":
    main()
