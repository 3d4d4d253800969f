"""How MEMIT's settings trade success against locality on the embedded model: the sweep behind its defaults.

Edits facts that the model knows with every combination of value layer, ridge weight and bystander weight, and prints
for each what the exam says before any fine-tuning. Values are optimised once per value layer. On two cores each layer
takes about a minute, and each combination half of one.

    python benchmarks/edit_sweep.py --layers 5 8 --covariance-weights 500 2000 --bystander-weights 0 10
"""

from __future__ import annotations

import argparse

import pandas as pd

from indelible.edits.editor import Workbench
from indelible.edits.memit import Memit
from indelible.edits.spread import spread
from indelible.edits.update import WeightUpdate
from indelible.edits.values import optimise_values
from indelible.edits.wordings import rows_for, sample_contexts
from indelible.models.bundled import cache_folder, encyclopedia_text
from material import Bench, rates, world_draw


def main() -> None:
    options = _options()
    bench = Bench.of(options.model)
    drawn = world_draw(bench, options.facts, options.intrinsic, options.seed)
    questions = drawn.questions()
    made = Workbench.model_construct(
        model=bench.loaded.model,
        tokenizer=bench.loaded.tokenizer,
        layout=bench.layout,
        identity=bench.identity,
        corpus=encyclopedia_text(),
        bystanders=drawn.bystanders,
        cache=cache_folder() / "covariances",
        seed=options.seed,
    )
    before = bench.ask(questions)
    contexts = sample_contexts(made.model, made.tokenizer, Memit().contexts, seed=options.seed)
    rows = [rows_for(made.tokenizer, fact, options.paraphrases, contexts) for fact in drawn.edited]
    found = []
    for top in options.layers:
        layers = tuple(range(top - options.span + 1, top + 1))
        values = optimise_values(made.model, made.layout, top, rows, Memit().value_options())
        for bystander_weight in options.bystander_weights:
            for weight in options.covariance_weights:
                editor = Memit(layers=layers, covariance_weight=weight, bystander_weight=bystander_weight)
                change = spread(made, layers, rows, values.deltas_fo, editor.solver(made, layers))
                update = WeightUpdate(change.deltas, {"fingerprint": made.fingerprint})
                how = {"layers": f"{layers[0]}-{top}", "lambda": weight, "bystanders": bystander_weight}
                found.append(how | rates(before, bench.ask_under(update, questions)))
                print(pd.DataFrame(found).round(3).to_string(index=False), flush=True)


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
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


if __name__ == "__main__":
    main()
