"""What a GPU would be asked to do, counted on a CPU: dispatched kernels, synchronisations, uploads and forward passes.

A GPU that is given many small tasks waits for the processor that gives them. How many there are can be known without
one: every operation that is no view is a kernel (or several) to be launched; every number that Python reads off a
tensor stops the queue until all before it is done; every tensor made of Python's numbers is an upload. Batches are cut
as for a GPU. A part is one function below, timed by nothing: ``values`` optimises the values of some facts with
MEMIT's defaults, ``exam`` asks about them and twice as many that are not edited, ``reason`` and ``text`` are a training
step, the second, of eight rows: more rows would be one batch on a GPU all the same, and as many launches.

    python benchmarks/launches.py --json
    python benchmarks/launches.py --baseline HEAD~20      # both builds, and what the other's counts are divided by
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

from indelible.edits.editors.memit import Memit
from indelible.edits.solving import suffixes
from indelible.edits.solving.texts import rows_for, sample_contexts
from indelible.edits.solving.values import optimise_values
from indelible.exam import batching
from indelible.exam.exam import take_exam
from indelible.exam.questions import questions_for
from indelible.facts.choose import choose_sets, in_turns
from indelible.models.layout import find_layout
from indelible.models.load import LoadedModel, load
from indelible.study.design.config import load_config
from indelible.study.run.sources import candidate_facts
from indelible.tuning.train import fine_tune
from indelible.tuning.training import trainer

GPU_BYTES = 80 << 30
_aten = torch.ops.aten
_READS = (_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default)
_READS_WHOLE = (Tensor.tolist, Tensor.numpy, Tensor.cpu)


@dataclass
class Counts:
    """What was asked for."""

    kernels: int = 0
    synchronisations: int = 0
    uploads: int = 0
    forward_passes: int = 0


class _Dispatched(TorchDispatchMode):
    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS or (func is _aten.index.Tensor and _by_mask(args[1])):
            self.counts.synchronisations += 1
        if not func.is_view and func is not _aten.detach.default:
            self.counts.kernels += 1
        return func(*args, **(kwargs or {}))


def _by_mask(indices: Any) -> bool:
    return any(index is not None and index.dtype == torch.bool for index in indices)


class _Called(TorchFunctionMode):
    """What no operation shows on a CPU: whole tensors that Python reads, and those made of Python's numbers."""

    def __init__(self, counts: Counts) -> None:
        super().__init__()
        self.counts = counts

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _READS_WHOLE:
            self.counts.synchronisations += 1
        if func is torch.tensor:
            self.counts.uploads += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counting(model: nn.Module) -> Iterator[Counts]:
    """What is asked for inside the block; forward passes are the model's."""
    counts = Counts()

    def passed(*_seen: object) -> None:
        counts.forward_passes += 1

    with model.register_forward_pre_hook(passed), _Called(counts), _Dispatched(counts):
        yield counts


class _Step(TrainerCallback):
    """Counts the second step; the first one makes what is made once."""

    def __init__(self, model: nn.Module) -> None:
        self.counting: AbstractContextManager[Counts] = counting(model)

    def on_step_begin(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == 1:
            self.counts = self.counting.__enter__()

    def on_step_end(self, args: Any, state: Any, control: Any, **parts: Any) -> None:
        if state.global_step == 2:
            self.counting.__exit__(None, None, None)


def values(loaded: LoadedModel, options: argparse.Namespace) -> Counts:
    """Values of MEMIT for known facts with new objects."""
    candidates = in_turns(candidate_facts(load_config("quick").facts), options.seed)
    facts, _ = choose_sets(candidates, options.facts, 0, options.seed, pool=candidates)
    model, layout, editor = loaded.model, find_layout(loaded.model), Memit()
    contexts = sample_contexts(model, loaded.tokenizer, editor.contexts, seed=options.seed)
    rows = [rows_for(loaded.tokenizer, fact, 0, contexts) for fact in facts]
    for table in ("_PASS_TOKENS", "_TOKENS_AT_ONCE"):  # the CPU's: cut as elsewhere
        vars(suffixes).get(table, {}).clear()
    layer = editor.layers_in(layout)[-1]
    with counting(model) as counts:
        optimise_values(model, layout, layer, rows, editor.value_options())
    return counts


def exam(loaded: LoadedModel, options: argparse.Namespace) -> Counts:
    """All questions about edited facts, and about twice as many that are not, in one exam."""
    candidates = in_turns(candidate_facts(load_config("quick").facts), options.seed)
    edited, others = choose_sets(candidates, options.facts, 2 * options.facts, options.seed, pool=candidates)
    questions = [*questions_for(edited, "edited"), *questions_for(others, "intrinsic")]
    # The CPU's: cut by memory, as a first guess would fill it, in this build and in those that count tokens.
    batching.CPU_BYTES = batching.CPU_TOKENS_PER_BATCH = int(batching.GPU_SHARE * GPU_BYTES)
    with counting(loaded.model) as counts:
        take_exam(loaded.model, loaded.tokenizer, questions)
    return counts


def step(objective: str, loaded: LoadedModel, options: argparse.Namespace) -> Counts:
    """A step of training, its optimiser's and its logging included."""
    at_once = vars(trainer).get("AT_ONCE", {})  # the CPU's: cut as on a GPU
    at_once |= {"cpu": at_once.get("cuda")}
    watch = _Step(loaded.model)
    settings = {"objective": objective, "steps": 2, "batch_size": 8, "max_tokens": 64, "heldout_examples": 1}
    fine_tune(loaded.model, loaded.tokenizer, settings, seed=options.seed, callbacks=[watch])
    return watch.counts


PARTS: Mapping[str, Callable[[LoadedModel, argparse.Namespace], Counts]] = {
    "values": values,
    "exam": exam,
    "reason": partial(step, "reason"),
    "text": partial(step, "text"),
}


def main() -> None:
    options = _options()
    loaded = load(options.model)
    found: dict[str, Any] = {name: asdict(PARTS[name](loaded, options)) for name in options.parts}
    if options.baseline is not None:
        before = _of_another_build(options)
        for name, counts in found.items():
            counts["baseline"] = before[name]
    if options.json:
        print(json.dumps(found))
        return
    for name, counts in found.items():
        old = counts.pop("baseline", None)
        for kind, count in counts.items():
            beside = "" if old is None else f", of {old[kind]} before: {count / max(old[kind], 1):.2f}"
            print(f"{name:8} {kind.replace('_', ' '):17} {count}{beside}")


def _of_another_build(options: argparse.Namespace) -> dict[str, dict[str, int]]:
    """The same counts of the sources of another commit, in a process of their own."""
    top = Path(__file__).resolve().parents[1]
    packed = subprocess.run(["git", "-C", top, "archive", options.baseline, "src"], check=True, capture_output=True)
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(packed.stdout)) as archive:
            archive.extractall(folder, filter="data")
        same = ["--model", options.model, "--facts", str(options.facts), "--seed", str(options.seed)]
        run = subprocess.run(
            [sys.executable, __file__, "--json", *same, "--parts", *options.parts],
            check=True,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": str(Path(folder) / "src")},
        )
    found: dict[str, dict[str, int]] = json.loads(run.stdout)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--parts", nargs="+", choices=tuple(PARTS), default=list(PARTS))
    parser.add_argument("--facts", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--baseline", metavar="REV", help="a commit whose build is counted too")
    parser.add_argument("--json", action="store_true", help="print one object")
    return parser.parse_args()


if __name__ == "__main__":
    main()
