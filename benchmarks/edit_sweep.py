"""How MEMIT's settings trade success against locality on the embedded model: the sweep behind its defaults.

Edits facts that the model knows with every combination of value layer, ridge weight and bystander weight, and prints
for each what the exam says before any fine-tuning. Values are optimised once per value layer. On two cores each layer
takes about a minute, and each combination half of one.

    python benchmarks/edit_sweep.py --layers 5 8 --covariance-weights 500 2000 --bystander-weights 0 10
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import pandas as pd

from indelible.edits.editor import Workbench
from indelible.edits.memit import Memit
from indelible.edits.preservation import preserved_moments
from indelible.edits.solve import ridge
from indelible.edits.spread import spread
from indelible.edits.update import FORMAT, WeightUpdate
from indelible.edits.values import optimise_values
from indelible.edits.wordings import rows_for, sample_contexts
from indelible.facts.fact import Fact
from indelible.facts.selection import choose_bystanders, choose_sets
from indelible.models.bundled import cache_folder, encyclopedia_text
from indelible.models.fingerprint import Identity
from indelible.models.layout import find_layout
from indelible.models.load import load
from indelible.probing.exam import answers_frame, known_facts, take_exam
from indelible.probing.questions import Question, questions_for
from indelible.study.config import FactsSettings, load_config
from indelible.study.sources import candidate_facts, in_turns


def main() -> None:
    options = _options()
    loaded = load(options.model)
    bench = Workbench.model_construct(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        layout=find_layout(loaded.model),
        identity=Identity.of(loaded.model),
        corpus=encyclopedia_text(),
        cache=cache_folder() / "covariances",
        seed=options.seed,
        progress=None,
    )
    settings = load_config("quick").facts
    edited, questions, bystanders = _material(bench, settings, options.seed)
    bench = bench.model_copy(update={"bystanders": bystanders})
    before = _ask(bench, questions)
    contexts = sample_contexts(bench.model, bench.tokenizer, Memit().contexts, seed=options.seed)
    rows = [rows_for(bench.tokenizer, fact, options.paraphrases, contexts) for fact in edited]
    found = []
    for top in options.layers:
        layers = tuple(range(top - options.span + 1, top + 1))
        values = optimise_values(bench.model, bench.layout, top, rows, Memit().value_options())
        for bystander_weight in options.bystander_weights:
            moments = preserved_moments(bench, layers, tokens=20_000, bystander_weight=bystander_weight)
            for weight in options.covariance_weights:
                changes = spread(
                    bench,
                    layers,
                    rows,
                    values.deltas_fo,
                    lambda layer, keys_dn, residual_on, moments=moments, weight=weight: ridge(
                        keys_dn, residual_on, moments[layer], weight
                    ),
                )
                update = WeightUpdate(changes, {"format": FORMAT, "fingerprint": bench.fingerprint})
                with update.applied(bench.model, known_fingerprint=bench.fingerprint):
                    after = _ask(bench, questions)
                how = {"layers": f"{layers[0]}-{top}", "lambda": weight, "bystanders": bystander_weight}
                found.append(how | _rates(before, after))
                print(pd.DataFrame(found).round(3).to_string(index=False), flush=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--layers", type=int, nargs="+", default=[5, 8], help="value layers")
    parser.add_argument("--span", type=int, default=3, help="layers that share an edit")
    parser.add_argument("--covariance-weights", type=float, nargs="+", default=[500.0, 2000.0])
    parser.add_argument("--bystander-weights", type=float, nargs="+", default=[0.0, 10.0])
    parser.add_argument("--paraphrases", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def _material(bench: Workbench, settings: FactsSettings, seed: int) -> tuple[list[Fact], list[Question], list[Fact]]:
    """The facts that the quick study would choose, its questions about them, and bystanders."""
    candidates = candidate_facts(settings)
    wanted = 2 * (settings.n_edits + settings.n_intrinsic)
    known = known_facts(bench.model, bench.tokenizer, in_turns(candidates, seed), enough=wanted)
    edited, intrinsic = choose_sets(known, settings.n_edits, settings.n_intrinsic, seed, pool=candidates)
    questions = questions_for(edited, "edited") + questions_for(intrinsic, "intrinsic")
    return edited, questions, choose_bystanders(candidates, edited, intrinsic, settings.bystanders, seed)


def _ask(bench: Workbench, questions: Sequence[Question]) -> pd.DataFrame:
    return answers_frame(take_exam(bench.model, bench.tokenizer, questions))


def _rates(before: pd.DataFrame, after: pd.DataFrame) -> dict[str, float]:
    edited, intrinsic = after["fact_set"] == "edited", after["fact_set"] == "intrinsic"
    prompt, kept = after["kind"] == "prompt", before["success"]
    return {
        "generation": float(after[edited & prompt]["success"].mean()),
        "first token": float(after[edited & prompt]["first_token"].mean()),
        "paraphrases": float(after[edited & (after["kind"] == "paraphrase")]["success"].mean()),
        "locality": float(after[(after["kind"] == "neighbour") & kept]["success"].mean()),
        "intrinsic": float(after[intrinsic & prompt & kept]["success"].mean()),
    }


if __name__ == "__main__":
    main()
