"""Every editor on the same facts: success, held-out wordings, locality, perplexity and cost, over several seeds.

Known world facts and, where its file is given, CounterFact facts are edited and asked at once (the batch protocol);
ROME, R-ROME and IKE edit each fact on a model of its own (the isolated protocol), which is how they were published.
Rows are kept as they come, so that an interrupted run goes on where it stopped; the table is the mean over seeds.

    python benchmarks/editor_table.py --counterfact counterfact.jsonl --out runs/editor_table.csv
    python benchmarks/editor_table.py --editors memit ft-m lora:rank=16,steps=50 --seeds 0

Seconds are the process's processor time, all threads together: other work on the machine does not count. They cover
the whole edit but for the covariance, which is computed once per model and kept. Editors that ask for the same
optimised values get those of the first; the seconds that they took count for each.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from indelible.edits.deltas.delta import Edit
from indelible.edits.editor import EDITORS, Editor, Workbench
from indelible.edits.solving import closed_form
from indelible.edits.solving.covariance import second_moments
from indelible.edits.solving.values import Values, optimise_values
from indelible.edits.solving.views import Views
from indelible.models.layout import Layout
from material import Bench, Drawn, counterfact_draw, editor_from, isolated_answers, rates, world_draw

ISOLATED = ("rome", "r-rome", "ike")


class SharedValues:
    """Stands before ``optimise_values``: equal questions are answered once, with the seconds that the answer took. What
    is seen of the model as it stands alone is shared, not what is seen of it shaken."""

    def __init__(self) -> None:
        self.spared = 0.0
        self._kept: dict[str, tuple[Values, float]] = {}

    def __call__(
        self, model: Any, layout: Layout, layer: int, rows: Any, options: Any, progress: Any, views: Views
    ) -> Values:
        question = repr((layer, rows, options))
        if len(views) > 1:
            return optimise_values(model, layout, layer, rows, options, progress, views)
        if question not in self._kept:
            started = time.process_time()
            values = optimise_values(model, layout, layer, rows, options, progress, views)
            self._kept[question] = values, time.process_time() - started
            return values
        values, seconds = self._kept[question]
        self.spared += seconds
        return values


def main() -> None:
    options = _options()
    bench = Bench.of(options.model)
    done = pd.read_csv(options.out) if options.out.exists() else pd.DataFrame()
    for seed in options.seeds:
        draws = {"world": world_draw(bench, options.facts, options.intrinsic, seed, options.neighbours)}
        if options.counterfact is not None:
            draws["counterfact"] = counterfact_draw(options.counterfact, options.counterfact_facts, seed)
        for source, drawn in draws.items():
            shared = closed_form.optimise_values = SharedValues()  # type: ignore[assignment]
            before: tuple[pd.DataFrame, float] | None = None
            for name in options.editors or EDITORS.names():
                here = {"editor": name, "facts": source, "seed": seed, "paraphrases_in_edit": options.paraphrases}
                if _has(done, here):
                    continue
                before = before or (bench.ask(drawn.questions()), bench.perplexity(options.perplexity_tokens))
                row = here | _measure(bench, editor_from(name), drawn, before, options, seed, shared)
                done = pd.concat([done, pd.DataFrame([row])], ignore_index=True)
                options.out.parent.mkdir(parents=True, exist_ok=True)
                done.to_csv(options.out, index=False)
                print(pd.DataFrame([row]).round(3).to_string(index=False), flush=True)
    measures = [column for column in done.columns if column not in ("editor", "facts", "seed", "protocol")]
    table = done.groupby(["facts", "editor", "protocol"])[measures].agg("mean")
    table["seeds"] = done.groupby(["facts", "editor", "protocol"])["seed"].nunique()
    print(table.round(3).to_string())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--editors", nargs="+", metavar="NAME[:KEY=VALUE,...]", help="all of them by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--facts", type=int, default=32, help="known world facts to edit")
    parser.add_argument("--intrinsic", type=int, default=32, help="known world facts only to ask")
    parser.add_argument("--neighbours", type=int, default=3, help="neighbours asked of each world fact, at most")
    parser.add_argument("--counterfact", type=Path, help="a CounterFact file")
    parser.add_argument("--counterfact-facts", type=int, default=64)
    parser.add_argument("--paraphrases", type=int, default=0, help="further wordings in the edit")
    parser.add_argument("--perplexity-tokens", type=int, default=2048, help="of held-out text")
    parser.add_argument("--out", type=Path, default=Path("runs/editor_table.csv"), help="rows; added to if it exists")
    return parser.parse_args()


def _has(done: pd.DataFrame, here: dict[str, Any]) -> bool:
    return not done.empty and bool((done[list(here)] == pd.Series(here)).all(axis=1).any())


def _measure(
    bench: Bench,
    editor: Editor,
    drawn: Drawn,
    before: tuple[pd.DataFrame, float],
    options: argparse.Namespace,
    seed: int,
    shared: SharedValues,
) -> dict[str, Any]:
    arguments = bench.arguments(seed, drawn.bystanders, editor)
    _warm_covariances(bench, editor, arguments)
    model, tokenizer = bench.loaded.model, bench.loaded.tokenizer
    questions = drawn.questions()
    answers, perplexity = before
    shared.spared = 0.0
    started = time.process_time()
    if editor.name in ISOLATED:
        edits = editor.edit_each(model, tokenizer, drawn.edited, paraphrases=options.paraphrases, **arguments)
        made = list(edits)
        seconds = time.process_time() - started
        answers = answers[answers["fact_set"] == "edited"]
        after = isolated_answers(bench, iter(made), drawn)
        answers = answers.set_index(["fact_id", "kind", "wording"]).loc[
            pd.MultiIndex.from_frame(after[["fact_id", "kind", "wording"]])
        ]
        found = rates(answers.reset_index(), after)
        change = sum(_perplexity_under(bench, edit, options) for edit in _some(made)) / len(list(_some(made)))
    else:
        edit = editor.edit(model, tokenizer, drawn.edited, paraphrases=options.paraphrases, **arguments)
        seconds = time.process_time() - started
        found = rates(answers, bench.ask_under(edit, questions))
        change = _perplexity_under(bench, edit, options)
    return {
        "protocol": "isolated" if editor.name in ISOLATED else "batch",
        **found,
        "perplexity_before": perplexity,
        "perplexity_after": change,
        "seconds_per_edit": (seconds + shared.spared) / len(drawn.edited),
    }


def _some(edits: list[Edit]) -> Iterator[Edit]:
    """Perplexity of isolated edits is the mean over a few of them: each is a model of its own."""
    yield from edits[:: max(1, len(edits) // 4)][:4]


def _perplexity_under(bench: Bench, edit: Edit, options: argparse.Namespace) -> float:
    with edit.applied(bench.loaded.model, known_fingerprint=bench.fingerprint):
        return bench.perplexity(options.perplexity_tokens)


def _warm_covariances(bench: Bench, editor: Editor, arguments: dict[str, Any]) -> None:
    """Have the covariances on disk before the clock starts."""
    if not editor.uses_text:
        return
    if isinstance(editor, closed_form.ClosedFormEditor):
        made = Workbench.model_construct(model=bench.loaded.model, tokenizer=bench.loaded.tokenizer, **arguments)
        tokens = editor.covariance_tokens or max(20_000, 2 * bench.layout.key_width)
        second_moments(made, editor.layers_in(bench.layout), tokens)


if __name__ == "__main__":
    main()
