"""Is indelible right in every family? Each causal family of the installed transformers, tiny, held to plain readings.

    python benchmarks/families.py --json                       # a line of JSON for each family and column
    python benchmarks/families.py --markdown docs/families.md  # the table, and families.csv beside it
    python benchmarks/families.py --out cells.jsonl            # kept as they come: goes on where it was interrupted
    python benchmarks/families.py --only llama jamba --columns exam layout

A cell is *right* (held against plain whole passes that family/ carries itself), *refused* (indelible's own error, and
the model bit-identical afterwards) or *wrong* (another error, or a value that is off). Families that cannot be made so
small, or whose model does not read text alone, are *unbuilt*. Every family runs in a process of its own.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import multiprocessing
import re
import sys
import textwrap
import time
import traceback
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))

import torch
import trl  # noqa: F401  (here, before families fork off: it takes seconds)

from family.columns import COLUMNS
from family.plain import Off, as_it_stands, differences
from family.tiny import build, family_names
from indelible.errors import IndelibleError
from tiny_models import build_tokenizer

Cell = dict[str, Any]

_PATIENCE = 120
"""Seconds for one cell, which takes one or two."""

_MARKS = {"right": "✓", "refused": "refused", "wrong": "✗"}


def main() -> None:
    options = _options()
    torch.set_num_threads(1)
    found = [json.loads(line) for line in _kept(options.out)]
    done = {(cell["family"], cell["column"]) for cell in found}
    names = options.only or family_names()
    for number, name in enumerate(names, start=1):
        for cell in cells(name, [column for column in options.columns if (name, column) not in done]):
            found.append(cell)
            line = json.dumps(cell, ensure_ascii=False)
            if options.json:
                print(line, flush=True)
            if options.out is not None:
                with options.out.open("a", encoding="utf-8") as file:
                    file.write(f"{line}\n")
            words = (f"{number}/{len(names)}", name, cell["column"], cell["state"], cell["note"][:160])
            print(*words, sep="\t", file=sys.stderr, flush=True)
    found.sort(key=lambda cell: (cell["family"], list(COLUMNS).index(cell["column"])))
    if options.markdown is not None:
        options.markdown.write_text(page(found, options.columns), encoding="utf-8")
        with options.markdown.with_suffix(".csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["family", "column", "state", "note"], extrasaction="ignore")
            writer.writeheader()
            writer.writerows(found)
    counts = Counter(cell["state"] for cell in found)
    print(*(f"{state} {count}" for state, count in counts.items()), sep=", ", file=sys.stderr)
    sys.exit(1 if counts["wrong"] else 0)


def _kept(out: Path | None) -> list[str]:
    return out.read_text(encoding="utf-8").splitlines() if out is not None and out.exists() else []


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="FAMILY", choices=family_names())
    parser.add_argument("--columns", nargs="+", choices=list(COLUMNS), default=list(COLUMNS))
    parser.add_argument("--json", action="store_true", help="a line for each cell on stdout")
    parser.add_argument("--out", type=Path, help="file that cells are added to; those in it are not made again")
    parser.add_argument("--markdown", type=Path, help="file for the table; a CSV is written beside it")
    return parser.parse_args()


def cells(name: str, columns: Sequence[str]) -> Iterator[Cell]:
    """A family's cells, made in a process of their own, so that one that dies or hangs does not end the others."""
    there, here = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=_work, args=(name, columns, here))
    worker.start()
    here.close()
    for column in columns:
        try:
            if not there.poll(_PATIENCE):
                raise TimeoutError(f"nothing after {_PATIENCE} seconds")
            yield there.recv()
        except (EOFError, TimeoutError) as error:
            worker.kill()
            yield _cell(name, column, "wrong", str(error) or "the process died")
            break
    worker.join()


def _work(name: str, columns: Sequence[str], pipe: Any) -> None:
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    sys.stdout = sys.stderr  # trainers print
    for column in columns:
        started = time.perf_counter()
        cell = judged(name, column)
        pipe.send({**cell, "seconds": round(time.perf_counter() - started, 2)})


def judged(name: str, column: str) -> Cell:
    """One cell."""
    tokenizer = build_tokenizer(pad="<|pad|>")
    try:
        model = build(name, len(tokenizer))
        with torch.no_grad():
            whole = model(input_ids=torch.arange(3, 23)[None], use_cache=False).logits
        assert torch.isfinite(whole).all(), "logits are not finite"
    except Exception as error:
        return _cell(name, column, "unbuilt", f"{type(error).__name__}: {error}")
    before = as_it_stands(model)
    try:
        return _cell(name, column, "right", COLUMNS[column](model, tokenizer))
    except IndelibleError as error:
        changed = differences(before, as_it_stands(model))
        left = f" It left changed: {', '.join(changed[:3])}." if changed else ""
        return _cell(name, column, "wrong" if changed else "refused", f"{type(error).__name__}: {error}{left}")
    except Off as error:
        return _cell(name, column, "wrong", str(error))
    except Exception as error:
        ours = [frame for frame in traceback.extract_tb(error.__traceback__) if "/indelible/" in frame.filename]
        at = f" ({Path(ours[-1].filename).name}:{ours[-1].lineno})" if ours else ""
        return _cell(name, column, "wrong", f"{type(error).__name__}{at}: {error}")


def _cell(name: str, column: str, state: str, note: str) -> Cell:
    return {"family": name, "column": column, "state": state, "note": " ".join(note.split())}


def page(found: Iterable[Cell], columns: Sequence[str]) -> str:
    """The table, what is refused and why, and what could not be built, as Markdown."""
    rows: dict[str, dict[str, Cell]] = defaultdict(dict)
    for cell in found:
        rows[cell["family"]][cell["column"]] = cell
    built = {name: row for name, row in rows.items() if all(cell["state"] != "unbuilt" for cell in row.values())}
    blank = any(column not in row for row in built.values() for column in columns)
    counts = [Counter(row[column]["state"] for row in built.values() if column in row) for column in columns]
    versions = ", ".join(f"{name} {version(name)}" for name in ("transformers", "peft", "trl"))
    lines = [
        "# Families",
        "",
        *_wrapped(
            f"Made by `benchmarks/families.py --markdown docs/families.md` with {versions}; not to be edited."
            " [families.csv](families.csv) has the same cells with what was seen in each."
        ),
        "",
        *_wrapped(
            f"{len(built)} families of causal language models, each as a tiny random model: ✓ is right, held against"
            " plain whole passes of single rows without cache or padding; *refused* is an error of indelible's own that"
            " says why (see below), with the model bit-identical afterwards; ✗ is wrong."
            + (" Blank cells were not looked at." if blank else "")
        ),
        "",
        "- *exam*: probabilities, ranks and greedy text of answers; in a Trainer's callback, too.",
        "- *layout*: the map that is named as the MLP's output moves the stream behind its block.",
        "- *memit*, *rome*: the update is the published formula's, recomputed in float64; it comes out again.",
        "- *ft-m*: the first step goes down the plain gradient; the objects are learned; it comes out again.",
        "- *lora*, *full*: losses are the plain ones, the loss falls, what is frozen keeps every bit.",
        "- *grpo*: answers to prompts of unequal length are scored as plain passes score them.",
        "",
        "| family | " + " | ".join(columns) + " |",
        "| --- |" + " :-: |" * len(columns),
        *(f"| {name} | " + " | ".join(_mark(row, column) for column in columns) + " |" for name, row in built.items()),
        "| **right** | " + " | ".join(str(count["right"]) for count in counts) + " |",
        "| **refused** | " + " | ".join(str(count["refused"]) for count in counts) + " |",
        "| **wrong** | " + " | ".join(str(count["wrong"]) for count in counts) + " |",
    ]
    for state, title in (("refused", "What is refused, and why"), ("wrong", "What is wrong")):
        reasons: dict[str, dict[str, None]] = defaultdict(dict)
        for row in built.values():
            for cell in row.values():
                if cell["state"] == state:
                    reasons[_reason(cell["note"])][cell["family"]] = None
        if reasons:
            lines += ["", f"## {title}", ""]
        for reason, names in sorted(reasons.items(), key=lambda item: -len(item[1])):
            lines += _wrapped(f"- {reason} *{', '.join(names)}*")
    unbuilt = [name for name in rows if name not in built]
    if unbuilt:
        lines += ["", "## Not built", ""]
        lines += _wrapped(f"Too large at the smallest, or not made for text alone: {', '.join(unbuilt)}.")
    return "\n".join(lines) + "\n"


def _mark(row: dict[str, Cell], column: str) -> str:
    return _MARKS[row[column]["state"]] if column in row else ""


def _reason(note: str) -> str:
    """What is common to families that are refused alike: the message without names, numbers and error class."""
    said = re.sub(r"^\w+Error: ", "", note)
    said = re.sub(r"\b[A-Z]\w*(ForCausalLM|LMHeadModel|ForConditionalGeneration)\b", "The model", said)
    said = re.sub(r"'[\w.]*\.\w[\w.]*'", "'…'", said)
    return re.sub(r"\d+(\.\d+)?(e-?\d+)?", "N", said)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 99, subsequent_indent="  " if text.startswith("- ") else "", break_long_words=False)


if __name__ == "__main__":
    main()
