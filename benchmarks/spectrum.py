"""How often does a checkpoint show an edit by itself, without what it was before? Edits of one fact, and of many.

For the unedited model, and for each edit of so many facts, drawn anew each time: the layer whose memory's rows are most
alike over their neighbours', by how much, and whether that layer holds the edit.

    python benchmarks/spectrum.py
    python benchmarks/spectrum.py --edits rome:1 memit:100 --draws 3 --model my-model
"""

from __future__ import annotations

import argparse

import pandas as pd

import indelible
from indelible.care.weights.spectrum import spectrum
from indelible.facts.choose import in_turns
from indelible.facts.world import world_facts
from indelible.models.layout import find_layout
from indelible.progress import silently


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument(
        "--edits",
        nargs="+",
        metavar="EDITOR[,published]:FACTS",
        default=["rome:1", "rome,published:1", "memit:1", "memit:24", "alphaedit:24", "ft-m:8"],
    )
    parser.add_argument("--draws", type=int, default=8, help="edits of each kind, each of other facts")
    parser.add_argument("--seed", type=int, default=0, help="of which facts are edited")
    options = parser.parse_args()
    loaded = indelible.load(options.model)
    memories = find_layout(loaded.model).known_memories
    wanted = [fact for fact in world_facts() if fact.relation in ("capital", "continent", "language")]
    facts = in_turns(wanted, options.seed)
    lines = [_line("none", 0, frozenset(), loaded)]
    for one in options.edits:
        kind, _, number = one.partition(":")
        editor, _, published = kind.partition(",")
        for draw in range(min(options.draws, len(facts) // int(number))):
            chosen = facts[draw * int(number) : (draw + 1) * int(number)]
            edit = indelible.edit(loaded, chosen, editor, **({"published": True} if published else {}))
            edit.apply(loaded.model)
            held = frozenset(layer for layer, memory in memories.items() if memory.weight in edit.deltas)
            lines.append(_line(one, draw, held, loaded))
            edit.revert(loaded.model)
            print(lines[-1], flush=True)
    table = pd.DataFrame(lines)
    print(table.to_string(index=False))
    grouped = table.groupby("edit", sort=False)
    print(grouped[["right", "called"]].mean().join(grouped["times"].describe()[["min", "50%", "max"]]).round(2))


def _line(edit: str, draw: int, held: frozenset[int], loaded: indelible.LoadedModel) -> dict[str, object]:
    found = spectrum(loaded, jobs=silently)
    most = max(found.rows, key=lambda row: row.times)
    called = {"right": most.layer in held, "called": most.stands_out}
    return {"edit": edit, "draw": draw, "layer": most.layer, "times": round(most.times, 2), **called}


if __name__ == "__main__":
    main()
