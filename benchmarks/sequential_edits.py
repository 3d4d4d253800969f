"""A hundred edits one after another: does the model keep the first ten, and stay a language model?

Known world facts are edited one at a time, each on the model that the ones before left, by each editor; every ten edits
the first ten facts, the latest ten and held-out perplexity are asked. Writes a table and a small figure.

    python benchmarks/sequential_edits.py --out runs/sequential
    python benchmarks/sequential_edits.py --editors alphaedit rome:bystander_weight=0 --facts 50
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd

from indelible.edits.editor import Workbench
from indelible.edits.weight_editor import WeightEditor
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from material import Bench, Drawn, counterfact_draw, editor_from, world_draw

PUBLISHED_ROME = "rome:bystander_weight=0,steps=20,optimiser=adam"


def main() -> None:
    options = _options()
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "sequential.csv"
    done = pd.read_csv(file) if file.exists() else pd.DataFrame(columns=["editor"])
    bench = Bench.of(options.model)
    if options.counterfact is not None:
        drawn = counterfact_draw(options.counterfact, options.facts, options.seed)
    else:
        drawn = world_draw(bench, options.facts, 0, options.seed)
    for name in options.editors:
        if name in set(done["editor"]):
            continue
        editor = editor_from(name)
        if not isinstance(editor, WeightEditor):
            raise SystemExit(f"{name} changes no weights: every edit of it is sequential already.")
        done = pd.concat([done, pd.DataFrame(_follow(bench, name, editor, drawn, options))], ignore_index=True)
        done.to_csv(file, index=False)
    print(done.round(3).to_string(index=False))
    _draw(done, options.out / "sequential.png")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument(
        "--editors", nargs="+", metavar="NAME[:KEY=VALUE,...]", default=["alphaedit", "memit", "rome", PUBLISHED_ROME]
    )
    parser.add_argument("--facts", type=int, default=100, help="edits, one after another")
    parser.add_argument("--counterfact", type=Path, help="a CounterFact file, whose facts take the world facts' place")
    parser.add_argument("--every", type=int, default=10, help="edits between two exams")
    parser.add_argument("--perplexity-tokens", type=int, default=2048, help="of held-out text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/sequential"), help="folder; added to if it exists")
    return parser.parse_args()


def _follow(
    bench: Bench, arm: str, editor: WeightEditor, drawn: Drawn, options: argparse.Namespace
) -> list[dict[str, object]]:
    model = bench.loaded.model
    arguments = bench.arguments(options.seed, drawn.bystanders, editor)
    bottom = Workbench.model_construct(model=model, tokenizer=bench.loaded.tokenizer, **arguments)
    rows = [_row(bench, arm, drawn.edited, 0, options)]
    with closing(editor.in_steps(bottom, [[fact] for fact in drawn.edited], 0)) as changes:
        for number, _ in enumerate(changes, start=1):
            if number % options.every == 0 or number == len(drawn.edited):
                rows.append(_row(bench, arm, drawn.edited, number, options))
                print(
                    pd.DataFrame(rows[-1:]).round(3).to_string(index=False, header=number == options.every), flush=True
                )
    return rows


def _row(bench: Bench, name: str, facts: Sequence[Fact], number: int, options: argparse.Namespace) -> dict[str, object]:
    """What the model says after so many edits; before the first one, of facts that will be edited."""
    first, latest = facts[: options.every], facts[max(0, number - options.every) : number] or facts[: options.every]
    return {
        "editor": name,
        "edits": number,
        "first": _success(bench, first),
        "latest": _success(bench, latest),
        "all": _success(bench, facts[:number]) if number == len(facts) else float("nan"),
        "perplexity": bench.perplexity(options.perplexity_tokens),
    }


def _success(bench: Bench, facts: Sequence[Fact]) -> float:
    answers = bench.ask([question for question in questions_for(facts, "edited") if question.kind == "prompt"])
    return float(answers["success"].mean())


def _draw(rows: pd.DataFrame, file: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    for name, group in rows.groupby("editor", sort=False):
        (line,) = left.plot(group["edits"], 100 * group["first"], marker="o", markersize=3, label=str(name))
        left.plot(group["edits"], 100 * group["latest"], linestyle=":", color=line.get_color())
        right.plot(group["edits"], group["perplexity"], marker="o", markersize=3, color=line.get_color())
    left.set(xlabel="edits, one after another", ylabel="success, %", ylim=(-3, 103))
    left.set_title("the first ten facts (dotted: the latest ten)", fontsize=9)
    left.legend(frameon=False, fontsize=8)
    right.set(xlabel="edits, one after another", ylabel="perplexity")
    if rows["perplexity"].max() > 10 * rows["perplexity"].min():
        right.set_yscale("log")
    right.set_title("held-out web text", fontsize=9)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=150)
    print(f"Figure: {file}")


if __name__ == "__main__":
    main()
