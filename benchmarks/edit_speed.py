"""What optimising values costs here, against the textbook loop and against the floor that the arithmetic sets.

The textbook loop stands in this file: one fact at a time, its whole texts, all layers, all logits, in every step, and
Adam. It gets the same facts, contexts and steps as ours, runs in the same process between two runs of ours, and
computes nothing twice that the textbook does not. That fewer steps do, and that a fact which has converged is left
alone, is among our ideas, so that ``ratio`` is against all its steps; published code stops a fact early too, so that
``ratio_stopping`` is against the same loop stopped where its facts have converged. Both results are written by the same
MEMIT solve and judged by the same exam. ROME's values, at a layer of its own, are compared likewise. Seconds are the
process's processor time, all threads together. Memory is measured in a process of its own that runs our whole edit and
no textbook loop.

    python benchmarks/edit_speed.py
    python benchmarks/edit_speed.py --textbook 3          # the textbook loop takes minutes: only so many of the facts
    python benchmarks/edit_speed.py --facts 8 --contexts 5 --json
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from indelible.edits.editor import Workbench
from indelible.edits.editors.memit import Memit
from indelible.edits.editors.rome import Rome
from indelible.edits.solving.closed_form import ClosedFormEditor
from indelible.edits.solving.covariance import second_moments
from indelible.edits.solving.spread import spread
from indelible.edits.solving.texts import FactRows, rows_for, sample_contexts
from indelible.edits.solving.values import ValueOptions, Values, optimise_values
from indelible.exam.questions import questions_for
from indelible.facts.fact import Fact
from indelible.models.bundled.fetch import cache_folder
from indelible.models.bundled.texts import encyclopedia_text
from indelible.models.trace import capture, evaluating, replace
from material import Bench, world_draw

COVARIANCE_LAYERS = 5
COVARIANCE_TOKENS = 20_000


def main() -> None:
    options = _options()
    if options.peak:
        print(_peak(options))
        return

    def say(text: str) -> None:
        print(text, file=sys.stderr if options.json else sys.stdout, flush=True)

    say("memory: one edit in a process of its own")
    arguments = [sys.argv[0], "--peak", *(argument for argument in sys.argv[1:] if argument != "--json")]
    peak = int(subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.PIPE).stdout)

    say(f"{peak / 1e6:.0f} MB")

    bench = Bench.of(options.model)
    facts = world_draw(bench, options.facts, 0, options.seed).edited
    memit = Memit(contexts=options.contexts)
    layer = memit.layers_in(bench.layout)[-1]

    say("covariance of five layers, from text")
    started = time.process_time()
    layers = range(layer - COVARIANCE_LAYERS + 1, layer + 1)
    uncached = _workbench(bench, options.seed).model_copy(update={"cache": None})
    second_moments(uncached, list(layers), COVARIANCE_TOKENS)
    covariance_seconds = time.process_time() - started
    say(f"{covariance_seconds:.1f} s")

    say("values of MEMIT: ours, the textbook's, ours again")
    found = _compared(bench, memit, Memit(optimiser="adam"), facts, options)
    say(f"{found.ratio:.1f} and {found.ratio_stopping:.1f} times; values of ROME")
    rome = _compared(bench, Rome(contexts=options.contexts), Rome(optimiser="adam"), facts, options)
    with FlopCounterMode(display=False) as counter:
        _ours(bench, memit, found.rows)
    floor = _floor(bench, layer, found.rows, found.values)
    few = slice(len(found.plainly.deltas_fo))
    deltas = (found.values.deltas_fo[few], found.plainly.deltas_fo)
    success = [_success(bench, memit, facts[few], found.rows[few], deltas_fo, options.seed) for deltas_fo in deltas]
    weights = sum(parameter.numel() * 4 for parameter in bench.loaded.model.parameters())
    result = {
        "facts": len(facts),
        "ratio": found.ratio,
        "ratio_stopping": found.ratio_stopping,
        "ratio_rome": rome.ratio,
        "ratio_rome_stopping": rome.ratio_stopping,
        "textbook_facts": len(found.plainly.deltas_fo),
        "success_plain": success[1],
        "success_ours": success[0],
        "seconds_plain": found.plainly.seconds,
        "seconds_ours": found.seconds,
        "flops_ours": counter.get_total_flops(),
        "flops_floor": floor,
        "peak_bytes": peak,
        "weight_bytes": weights,
        "covariance_seconds": covariance_seconds,
    }
    if options.json:
        print(json.dumps(result))
        return
    print(f"{len(facts)} facts, {options.contexts} contexts, value layer {layer}, {torch.get_num_threads()} threads")
    for name, one in (("MEMIT", found), ("ROME", rome)):
        count = len(one.plainly.deltas_fo)
        print(f"{name:12} ours {one.seconds:.1f} s, textbook {one.plainly.seconds:.1f} s for {count}")
        print(f"ratio        {one.ratio:.1f}; {one.ratio_stopping:.1f} where the textbook too stops early")
        evaluations = one.values.steps_f[:count].tolist()
        print(f"evaluations  ours {evaluations}, the textbook's {one.plainly.stops} stopping early")
    print(f"success      ours {success[0]}, textbook {success[1]} of {len(deltas[0])} (free generation)")
    done = result["flops_ours"]
    print(f"operations   {done:.3e} done, {floor:.3e} is the floor ({done / floor:.2f} x)")
    print(f"speed        {done / found.seconds / 1e9:.0f} Gflop/s; matrix products reach {_matmul_speed() / 1e9:.0f}")
    print(f"memory       rises by {peak / 1e6:.0f} MB, {peak / weights:.2f} x the weights ({weights / 1e6:.0f} MB)")
    print(f"covariance   {covariance_seconds:.1f} s for layers {layers[0]} to {layers[-1]}, {COVARIANCE_TOKENS} tokens")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--facts", type=int, default=16, help="known world facts to edit")
    parser.add_argument(
        "--contexts", type=int, default=Memit().contexts, help="texts before a wording, as in the editor"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--textbook", type=int, help="so many of the facts for the textbook loop; all by default")
    parser.add_argument("--json", action="store_true", help="print one object last; all else goes to stderr")
    parser.add_argument("--peak", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def _rows(bench: Bench, editor: ClosedFormEditor, facts: Sequence[Fact], seed: int) -> list[FactRows]:
    contexts = sample_contexts(bench.loaded.model, bench.loaded.tokenizer, editor.contexts, seed=seed)
    return [rows_for(bench.loaded.tokenizer, fact, 0, contexts) for fact in facts]


@dataclass(frozen=True)
class Plain:
    """What the textbook loop found: deltas, seconds, and seconds and evaluations up to where facts had converged."""

    deltas_fo: Tensor
    seconds: float
    seconds_stopping: float
    stops: int


@dataclass(frozen=True)
class Compared:
    """One editor's values: ours of all facts, the mean of two runs' seconds, and the textbook's of some."""

    rows: list[FactRows]
    values: Values
    seconds: float
    plainly: Plain

    @property
    def ratio(self) -> float:
        """Seconds a fact."""
        return self._times(self.plainly.seconds)

    @property
    def ratio_stopping(self) -> float:
        """The same, where the textbook stops early."""
        return self._times(self.plainly.seconds_stopping)

    def _times(self, seconds: float) -> float:
        return seconds / len(self.plainly.deltas_fo) * len(self.rows) / self.seconds


def _compared(
    bench: Bench, editor: ClosedFormEditor, published: ClosedFormEditor, facts: Sequence[Fact], options: Any
) -> Compared:
    rows = _rows(bench, editor, facts, options.seed)
    _ours(bench, editor, rows[:1])  # what is made once per process
    first, found = _timed(lambda: _ours(bench, editor, rows))
    layer = editor.layers_in(bench.layout)[-1]
    plainly = plain_values(bench, layer, rows[: options.textbook], published.value_options())
    second, _ = _timed(lambda: _ours(bench, editor, rows))
    return Compared(rows, found, (first + second) / 2, plainly)


def _ours(bench: Bench, editor: ClosedFormEditor, rows: Sequence[FactRows]) -> Values:
    layer = editor.layers_in(bench.layout)[-1]
    return optimise_values(bench.loaded.model, bench.layout, layer, rows, editor.value_options())


def _timed(work: Callable[[], Values]) -> tuple[float, Values]:
    started = time.process_time()
    values = work()
    return time.process_time() - started, values


def plain_values(bench: Bench, layer: int, facts: Sequence[FactRows], options: ValueOptions) -> Plain:
    """The textbook loop (ROME, Meng et al. 2022, equation 4, as its code runs it)."""
    model, layout = bench.loaded.model, bench.layout
    device = model.device
    deltas = []
    seconds, seconds_stopping, stops = 0.0, 0.0, 0
    with evaluating(model):
        for fact in facts:
            started, stopped = time.process_time(), None
            texts = [*fact.rewrites, fact.essence]
            width = max(len(text.tokens) for text in texts)
            tokens = torch.zeros(len(texts), width, dtype=torch.long, device=device)
            mask = torch.zeros_like(tokens)
            for number, text in enumerate(texts):
                tokens[number, : len(text.tokens)] = torch.tensor(text.tokens)
                mask[number, : len(text.tokens)] = 1
            numbers = torch.arange(len(texts), device=device)
            subjects = torch.tensor([text.subject for text in texts], device=device)
            last = len(fact.essence.tokens) - 1
            delta = torch.zeros(layout.hidden_size, device=device, requires_grad=True)
            optimiser = torch.optim.Adam([delta], lr=options.learning_rate)
            essence_before, norm = torch.empty(0), torch.empty(0)
            measured = layout.mlp_out[layer] if options.reference == "site" else layout.blocks[layer]

            def add_delta(
                output: Tensor, delta: Tensor = delta, numbers: Tensor = numbers, subjects: Tensor = subjects
            ) -> Tensor:
                changed = output.clone()
                changed[numbers, subjects] += delta
                return changed

            for step in range(options.steps):
                optimiser.zero_grad()
                with ExitStack() as stack:
                    if step == 0:  # its own output, before anything is added to it
                        seen = stack.enter_context(capture(model, outputs_of=[measured]))
                    stack.enter_context(replace(model, layout.mlp_out[layer], add_delta))
                    logits = model(tokens, attention_mask=mask, use_cache=False).logits
                log_probs = torch.log_softmax(logits, dim=-1)
                nll = torch.zeros((), device=device)
                for number, text in enumerate(fact.rewrites):
                    end = len(text.tokens)
                    target = torch.tensor(text.tokens[end - text.target :], device=device)
                    places = torch.arange(end - text.target - 1, end - 1, device=device)
                    nll = nll - log_probs[number, places, target].mean() / len(fact.rewrites)
                essence = log_probs[-1, last]
                if step == 0:
                    essence_before = essence.detach().clone()
                    norm = seen.outputs[measured][0, subjects[0]].detach().norm()
                kl = (essence.exp() * (essence - essence_before)).sum()
                loss = nll + options.kl_weight * kl + options.weight_decay * delta.norm() / norm**2
                if stopped is None and (loss.item() < options.converged or step == options.steps - 1):
                    stopped = time.process_time() - started
                    stops += step + 1
                if step == options.steps - 1:
                    break
                loss.backward()
                optimiser.step()
                with torch.no_grad():
                    length = delta.norm()
                    if length > options.clamp * norm:
                        delta.mul_(options.clamp * norm / length)
            deltas.append(delta.detach())
            seconds += time.process_time() - started
            seconds_stopping += stopped or 0.0
    return Plain(torch.stack(deltas), seconds, seconds_stopping, stops)


def _success(
    bench: Bench, editor: Memit, facts: Sequence[Fact], rows: Sequence[FactRows], deltas_fo: Tensor, seed: int
) -> int:
    made = _workbench(bench, seed)
    layers = editor.layers_in(bench.layout)
    change, _ = spread(made, layers, rows, deltas_fo, editor.solver(made, layers))
    update = editor.update(made, facts, 0, change)
    prompts = [question for question in questions_for(facts, "edited") if question.kind == "prompt"]
    return int(bench.ask_under(update, prompts)["success"].sum())


def _workbench(bench: Bench, seed: int) -> Workbench:
    return Workbench.model_construct(
        model=bench.loaded.model,
        tokenizer=bench.loaded.tokenizer,
        layout=bench.layout,
        identity=bench.identity,
        corpus=encyclopedia_text(),
        cache=cache_folder() / "covariances",
        seed=seed,
    )


def _floor(bench: Bench, layer: int, facts: Sequence[FactRows], values: Values) -> int:
    """Operations without which these evaluations and their gradients cannot be had.

    Tokens from the subject on, through the matrix products above the value layer, forward and (but for the last
    evaluation of each fact) backward to the activations; the head where a target token, or the word after an essence,
    is predicted. Attention's own products, norms and the vectors' updates are left out: they are a few percent.
    """
    model = bench.loaded.model
    above = [model.get_submodule(path) for path in bench.layout.blocks[layer + 1 :]]
    per_token = 2 * sum(weight.numel() for block in above for weight in block.parameters() if weight.dim() == 2)
    per_prediction = 2 * model.get_submodule(bench.layout.head).weight.numel()
    total = 0
    for fact, steps in zip(facts, values.steps_f.tolist(), strict=True):
        suffixes = sum(len(text.tokens) - text.subject - 1 for text in fact.rewrites)
        suffixes += len(fact.essence.tokens) - fact.essence.subject
        predictions = sum(text.target for text in fact.rewrites) + 1
        passes = 2 * steps - 1
        total += passes * (suffixes * per_token + predictions * per_prediction)
    return total


def _matmul_speed() -> float:
    """What this machine reaches on one large float32 product, in operations a second."""
    left, right = torch.randn(512, 1536), torch.randn(1536, 1536)
    left @ right
    started = time.process_time()
    for _ in range(20):
        left @ right
    return 20 * 2 * 512 * 1536 * 1536 / (time.process_time() - started)


def _peak(options: argparse.Namespace) -> int:
    """By how much an edit, from loading to the exam, raises the resident memory of this process."""
    before = _resident()
    bench = Bench.of(options.model)
    drawn = world_draw(bench, options.facts, 0, options.seed)
    editor = Memit(contexts=options.contexts)
    arguments: dict[str, Any] = bench.arguments(options.seed, drawn.bystanders, editor) | {"cache": None}
    edit = editor.edit(bench.loaded.model, bench.loaded.tokenizer, drawn.edited, **arguments)
    bench.ask_under(edit, drawn.questions())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


if __name__ == "__main__":
    main()
