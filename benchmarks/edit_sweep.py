"""How MEMIT's settings trade success against locality on the embedded model: the sweep behind its defaults.

Edits facts that the model knows with every combination of value layer, ridge weight and bystander weight, and prints
for each what the exam says before any fine-tuning; at the end the score of each (the harmonic mean of generation,
held-out paraphrases and locality, as in Meng et al. 2022) with how far it is from the best, resampled over facts.
Values are optimised once per value layer. For each seed it says which layers causal tracing (``layers: auto``) would
take. On two cores each layer takes about a minute, and each combination half of one.

    python benchmarks/edit_sweep.py --layers 5 8 --seeds 0 1 --covariance-weights 500 2000 --bystander-weights 0 10
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import numpy as np
import pandas as pd

from indelible.edits.editor import Workbench
from indelible.edits.editors.memit import Memit
from indelible.edits.solving.spread import spread
from indelible.edits.solving.texts import rows_for, sample_contexts
from indelible.edits.solving.values import optimise_values
from indelible.edits.tracing.locate import located_layers
from indelible.models.bundled.fetch import cache_folder
from indelible.models.bundled.texts import encyclopedia_text
from material import Bench, rates, world_draw


def main() -> None:
    options = _options()
    bench = Bench.of(options.model)
    found, counts = [], []
    for seed in options.seeds:
        for how, answered, before in _edited(bench, options, seed):
            found.append(how | {"seed": seed} | rates(before, answered))
            counts.append(_counts(before, answered).assign(**how, seed=seed))
            print(pd.DataFrame(found[-1:]).round(3).to_string(index=False, header=len(found) == 1), flush=True)
    names = ["layers", "lambda", "bystanders"]
    table = pd.DataFrame(found).drop(columns="seed").groupby(names, sort=False).mean()
    print("\nMeans over seeds; scores, and with 95% intervals what they lack of the best:")
    print(table.join(_scores(pd.concat(counts), names)).round(3).to_string())


def _edited(
    bench: Bench, options: argparse.Namespace, seed: int
) -> Iterator[tuple[dict[str, object], pd.DataFrame, pd.DataFrame]]:
    """Every combination's settings, with the answers after and before its edit."""
    drawn = world_draw(bench, options.facts, options.intrinsic, seed)
    questions = drawn.questions()
    made = Workbench.model_construct(
        model=bench.loaded.model,
        tokenizer=bench.loaded.tokenizer,
        layout=bench.layout,
        identity=bench.identity,
        corpus=encyclopedia_text(),
        bystanders=drawn.bystanders,
        cache=cache_folder() / "covariances",
        seed=seed,
    )
    located = located_layers(made, drawn.edited, options.span)
    print(f"seed {seed}: tracing takes layers {located[0]}-{located[-1]}", flush=True)
    before = bench.ask(questions)
    contexts = sample_contexts(made.model, made.tokenizer, Memit().contexts, seed=seed)
    rows = [rows_for(made.tokenizer, fact, options.paraphrases, contexts) for fact in drawn.edited]
    for top in options.layers:
        layers = tuple(range(top - options.span + 1, top + 1))
        values = optimise_values(made.model, made.layout, top, rows, Memit().value_options())
        for bystander_weight in options.bystander_weights:
            for weight in options.covariance_weights:
                editor = Memit(layers=layers, covariance_weight=weight, bystander_weight=bystander_weight)
                change, arrived_f = spread(made, layers, rows, values.deltas_fo, editor.solver(made, layers))
                update = editor.update(made, drawn.edited, options.paraphrases, change)
                how = {"layers": f"{layers[0]}-{top}", "lambda": weight, "bystanders": bystander_weight}
                print(f"{how}: {float(arrived_f.nanmean()):.0%} of the wanted change arrives", flush=True)
                yield how, bench.ask_under(update, questions), before


def _counts(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """By edited fact, the sum and the number of each measure's questions."""
    asked = after.assign(kept=before["success"])[after["fact_set"] == "edited"]
    asked = asked[(asked["kind"] != "neighbour") | asked["kept"]]
    table = asked.pivot_table(index="fact_id", columns="kind", values="success", aggfunc=["sum", "count"], fill_value=0)
    return table.set_axis([" ".join(column) for column in table.columns], axis=1)


def _scores(counts: pd.DataFrame, names: list[str], draws: int = 2000) -> pd.DataFrame:
    """Each combination's score, and what it lacks of the best one's when facts of all seeds are drawn again."""
    generator = np.random.default_rng(0)
    arms = {key: group.set_index("seed", append=True).sort_index() for key, group in counts.groupby(names)}
    size = len(next(iter(arms.values())))
    drawn = np.vstack([np.arange(size), generator.integers(size, size=(draws, size))])
    scores = {}
    for key, arm in arms.items():
        shares = [
            arm[f"sum {kind}"].to_numpy()[drawn].sum(1) / arm[f"count {kind}"].to_numpy()[drawn].sum(1)
            for kind in ("prompt", "paraphrase", "neighbour")
        ]
        scores[key] = len(shares) / sum(1 / np.maximum(share, 1e-9) for share in shares)
    best = max(scores.values(), key=lambda score: score[0])
    rows = []
    for key, score in scores.items():
        low, high = np.quantile((best - score)[1:], [0.025, 0.975])
        lacking = {"lacking": best[0] - score[0], "low": low, "high": high}
        rows.append(dict(zip(names, key, strict=True)) | {"score": score[0]} | lacking)
    return pd.DataFrame(rows).set_index(names)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--facts", type=int, default=24, help="known world facts to edit")
    parser.add_argument("--intrinsic", type=int, default=60, help="known world facts only to ask")
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 8], help="value layers")
    parser.add_argument("--span", type=int, default=3, help="layers that share an edit")
    parser.add_argument("--covariance-weights", type=float, nargs="+", default=[500.0, 2000.0])
    parser.add_argument("--bystander-weights", type=float, nargs="+", default=[0.0, 10.0])
    parser.add_argument("--paraphrases", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    return parser.parse_args()


if __name__ == "__main__":
    main()
