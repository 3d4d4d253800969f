"""An edit of weights as a LoRA adapter of peft, and an adapter as an edit.

The thin factors of an edit are what LoRA adds to a linear map: W x + (alpha / r) B A x (Hu et al. 2021, arXiv
2106.09685). Written with alpha = r, factors stand as they are. All modules get the largest rank, filled up with zeros:
peft reads ranks by module (``rank_pattern``), but servers (vLLM's PEFTHelper) know one rank and one alpha / r.

The weights' file holds the edit's manifest and its own hash, as a delta's does (manifest.py), so that it is read again
as the very edit. peft, vLLM and safetensors pass over them.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.manifest import Made, WeightManifest, packed, unpacked
from indelible.edits.deltas.origin import origin
from indelible.edits.deltas.weights import Delta, LowRank, WeightUpdate
from indelible.errors import EditError, ModelError
from indelible.facts.fact import Fact
from indelible.models.fingerprint import Identity
from indelible.models.load import LoadedModel, load
from indelible.models.merging import SETTINGS, WEIGHTS, base_of, is_adapter
from indelible.models.modules.adapters import is_linear
from indelible.models.trace import evaluation_mode

TOLERANCE = 1e-5
"""How much of a difference (Frobenius norm, as a share) factors may leave out where no rank was asked for."""
NEAR = 1e-3
"""How far a logit may be from another that is to equal it, in float32."""
_NAME = "default"
_PREFIX = "base_model.model."
_SHOWN_RANKS = (16, 64, 256)
_READ = 16
_ELSEWHERE = "adapter"
"""What stands for the editor where an adapter does not say it."""


@dataclass(frozen=True)
class Factors:
    """Two thin factors of a difference of weights, and the share of it that they leave out (Frobenius norm)."""

    delta: LowRank
    error: float

    @property
    def rank(self) -> int:
        """How many columns the left factor has."""
        return int(self.delta.left.shape[1])


def factored(name: str, delta: Delta, rank: int | None) -> Factors:
    """Thin factors of a difference: its own, or those of its singular value decomposition, of which the best
    approximation of each rank is the beginning (Eckart and Young, 1936).

    Args:
        name: of the parameter, for messages.
        rank: at most; None: as many as leave out TOLERANCE at most.

    Raises:
        EditError: if no rank is given, and factors that exact would be no smaller than the matrix.
    """
    rows, columns = delta.shape
    if isinstance(delta, LowRank) and (rank is None or delta.left.shape[1] <= rank):
        return Factors(delta, 0.0)
    left, values, right = torch.linalg.svd(delta.difference(), full_matrices=False)
    energy = values.double().square()
    left_out = (energy.flip(0).cumsum(0).flip(0) / energy.sum().clamp_min(1e-300)).sqrt().tolist()
    errors = [*left_out, 0.0]  # by the rank that is kept
    kept = next(one for one, error in enumerate(errors) if error <= TOLERANCE) if rank is None else rank
    kept = min(max(kept, 1), len(values))
    if rank is None and kept * (rows + columns) >= rows * columns:
        told = ", ".join(f"{errors[one]:.0%} at rank {one}" for one in _SHOWN_RANKS if one < len(values))
        raise EditError(
            f"The edit of {name} has no low rank: factors of rank {kept} of {len(values)} would be needed, and fewer"
            f" leave out {told or 'more'} of it.",
            "Accept that loss and give a rank (--rank), or apply the delta and share the whole model.",
        )
    root = values[:kept].sqrt()
    return Factors(LowRank.balanced(left[:, :kept] * root, root[:, None] * right[:kept]), errors[kept])


def write_adapter(
    folder: Path, edit: WeightUpdate, model: PreTrainedModel, factors: Mapping[str, Factors], base: str
) -> int:
    """Write an edit of a model as an adapter into a folder, and return its rank.

    Args:
        factors: by parameter, of ``edit``.
        base: what the adapter says it was made for: a name from which the model can be loaded.

    Raises:
        EditError: if a parameter is no weight of a linear map or an embedding, for LoRA changes no other.
    """
    from peft import LoraConfig  # slow to import

    rank = max(one.rank for one in factors.values())
    tensors: dict[str, Tensor] = {}
    targets: list[str] = []
    transposed = False
    for name, one in factors.items():
        for path, module in _holders(model, name).items():
            left, right = padded(one.delta, rank)
            if isinstance(module, nn.Embedding):
                names, pair = ("lora_embedding_A", "lora_embedding_B"), (left.T, right.T)
            else:
                names, pair = ("lora_A.weight", "lora_B.weight"), (right, left)
                if isinstance(module, Conv1D):
                    pair, transposed = (left.T, right.T), True
            targets.append(path)
            for label, factor in zip(names, pair, strict=True):
                tensors[f"{_PREFIX}{path}.{label}"] = factor.contiguous()
    config = LoraConfig(
        task_type="CAUSAL_LM",
        inference_mode=True,
        base_model_name_or_path=base,
        r=rank,
        lora_alpha=rank,
        lora_dropout=0.0,
        target_modules=targets,
        fan_in_fan_out=transposed,
    )
    config.save_pretrained(str(folder))
    # peft writes modules as a set, in an order of chance
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8")) | {"target_modules": targets}
    (folder / SETTINGS).write_text(json.dumps(settings, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / WEIGHTS).write_bytes(packed(edit.manifest, partial(save, tensors)))
    return rank


def padded(delta: LowRank, rank: int) -> tuple[Tensor, Tensor]:
    """Its factors in float32, filled up with zeros to a rank."""
    left, right = delta.left.float().cpu(), delta.right.float().cpu()
    missing = rank - left.shape[1]
    return nn.functional.pad(left, (0, missing)), nn.functional.pad(right, (0, 0, 0, missing))


def read_delta(path: Path | str, *, base: LoadedModel | None = None, facts: Sequence[Fact] = ()) -> Edit:
    """An edit from a delta's file or from a folder with a LoRA adapter of peft, made here or elsewhere.

    Args:
        path: of the file or folder.
        base: the model that an adapter belongs to, in float32; by default it is loaded by the name that the adapter
            gives. It is left as it was.
        facts: what an adapter that was made elsewhere edits, each with a new object.

    Raises:
        EditError: if it is no edit, damaged, or an adapter that does more than add low-rank differences to weights.
        ModelError: if the adapter's model is not found, or is another.
        FingerprintError: if an adapter that was made here was made for another model.
    """
    folder = Path(path)
    if not is_adapter(folder):
        return Edit.load(folder)
    model = (base or load(base_of(folder))).model
    own = _own(folder, model)
    embeddings: Any = model.get_input_embeddings()
    tokens = torch.arange(_READ)[None] % len(embeddings.weight)
    identity = Identity.of(model)
    with holding(model, folder):
        deltas = _products(model)
        wanted = logits(model, tokens)
    if not deltas:
        raise _more(folder)
    manifest = own or WeightManifest(
        fingerprint=identity.fingerprint,
        model=origin(model),
        made=(Made(editor=_ELSEWHERE, options={}, paraphrases=0, seed=0, versions={"peft": version("peft")}),),
        parameters=(),
        facts=tuple(facts),
    )
    manifest = manifest.but(parameters=tuple(deltas), seal=None)
    update = WeightUpdate(deltas, manifest).sealed(model, identity=identity)
    with update.installed(model):
        found = logits(model, tokens)
    if float((found - wanted).abs().max()) > NEAR * max(1.0, float(wanted.abs().max())):
        raise _more(folder)
    return update


@contextmanager
def holding(model: PreTrainedModel, folder: Path) -> Iterator[None]:
    """An adapter of peft is in the model inside the block, unmerged, and gone after it.

    Raises:
        ModelError: if peft cannot load it into this model.
    """
    from peft import PeftModel  # slow to import

    trained = {name: weight.requires_grad for name, weight in model.named_parameters()}
    modules = dict(model.named_modules())
    marks = set(vars(model))
    try:
        try:
            # peft draws weights before it reads them, and warns of what is looked after here
            with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                PeftModel.from_pretrained(model, str(folder)).eval()
        except Exception as error:  # peft, torch and safetensors raise a dozen kinds for one user mistake
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".: ")
            raise ModelError(
                f"The adapter in {str(folder)!r} does not fit its model: {reason}.",
                "Give a whole adapter, and the model that it was trained on.",
            ) from error
        yield
    finally:
        for name, module in list(model.named_modules()):
            if name in modules and modules[name] is not module:
                model.set_submodule(name, modules[name])
        for mark in set(vars(model)) - marks:
            delattr(model, mark)
        for name, weight in model.named_parameters():
            weight.requires_grad_(trained[name])


def logits(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """What is predicted after each of the tokens (rows, n): (rows, n, vocabulary), in float32 on the processor."""
    with evaluation_mode(model), torch.no_grad():
        found: Tensor = model(tokens.to(model.device), use_cache=False).logits
    return found.float().cpu()


def product(layer: Any) -> LowRank:
    """What a LoRA layer of peft adds to its map's weight, oriented as that weight is stored."""
    scale, module = layer.scaling[_NAME], layer.get_base_layer()
    if isinstance(module, nn.Embedding):
        first, second = layer.lora_embedding_A[_NAME], layer.lora_embedding_B[_NAME]
    else:
        first, second = layer.lora_A[_NAME].weight, layer.lora_B[_NAME].weight
    first, scaled = first.detach().cpu().clone(), scale * second.detach().cpu()
    if isinstance(module, Conv1D | nn.Embedding):
        return LowRank.balanced(first.T.contiguous(), scaled.T.contiguous())
    return LowRank.balanced(scaled, first)


def _products(model: PreTrainedModel) -> dict[str, Delta]:
    """By parameter, what plain LoRA layers add; of a tied weight once. What else is in them, logits tell."""
    from peft.tuners.lora import LoraLayer

    layers = {path: module for path, module in model.named_modules() if isinstance(module, LoraLayer)}
    places: dict[int, str] = {}
    found: dict[str, Delta] = {}
    for path, layer in layers.items():
        module = layer.get_base_layer()
        if isinstance(module, nn.Embedding) or is_linear(module):
            name = places.setdefault(id(module.weight), f"{path}.weight")
            found.setdefault(name, _without_zeros(product(layer)))
    return found


def _without_zeros(delta: LowRank) -> LowRank:
    """The factors in float32, without the ranks that one of them fills up with zeros."""
    left, right = delta.left.float(), delta.right.float()
    used = (left != 0).any(0) & (right != 0).any(1)
    used[0] = True
    return LowRank(left[:, used].contiguous(), right[used].contiguous())


def _holders(model: PreTrainedModel, name: str) -> dict[str, nn.Module]:
    """The modules whose weight a parameter is, by path: several where it is tied.

    Raises:
        EditError: if there are none, or one is neither a linear map nor an embedding.
    """
    weight = model.get_parameter(name)
    found = {path: module for path, module in model.named_modules() if module._parameters.get("weight") is weight}
    if not found or not all(isinstance(module, nn.Embedding) or is_linear(module) for module in found.values()):
        raise EditError(
            f"{name} is no weight of a linear map or an embedding, and LoRA changes no other (biases and norms least"
            " of all).",
            "Apply the delta (`indelible apply`) and share the whole model.",
        )
    return found


def _own(folder: Path, model: PreTrainedModel) -> WeightManifest | None:
    """The manifest that stands in weights that were written here, which are whole; None for others.

    Raises:
        EditError: if the weights are damaged, or hold more than adapters. peft puts biases and whole modules that stand
            there into the model itself, for good.
    """
    weights = model.state_dict(keep_vars=True)
    try:
        with safe_open(folder / WEIGHTS, "pt") as saved:
            said = saved.metadata() or {}
            for key in (key for key in saved.keys() if "lora_" not in key):  # noqa: SIM118 -- it is no mapping
                own = weights.get(key.removeprefix(_PREFIX).replace(".base_layer.", "."))
                if own is None or not torch.equal(saved.get_tensor(key).to(own), own):
                    raise _more(folder)
    except (OSError, SafetensorError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise EditError(
            f"The weights of the adapter in {str(folder)!r} cannot be read: {reason}.",
            f"Give one with a whole {WEIGHTS}.",
        ) from error
    if "manifest" not in said:
        return None
    return WeightManifest.model_validate_json(unpacked(folder / WEIGHTS)[0])


def _more(folder: Path) -> EditError:
    return EditError(
        f"The adapter in {str(folder)!r} does more than add low-rank differences to weights, so that it is no edit.",
        "Give a plain LoRA adapter; `indelible audit` and `indelible diff` take any, as a model.",
    )
