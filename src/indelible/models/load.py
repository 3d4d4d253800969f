"""Models by name: a bundled one, a local folder, or any causal language model of the hub."""

from __future__ import annotations

import logging
import os
import re
import socket
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import huggingface_hub
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils.hub import cached_file

from indelible.errors import ModelError, near_names, suggest
from indelible.models.bundled import fetch as bundled
from indelible.models.merging import base_of, is_adapter, merged

# Where it is installed, peft imports it whatever it is asked, and it warns of a kernel that is not used here.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

_WEIGHT_FILES = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json")


_NUMBER = re.compile(r"\d+")
_IF_THERE = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
# What stands beside a tokenizer where a model takes pictures or sounds too.
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")


@dataclass(frozen=True)
class LoadedModel:
    """A causal language model in evaluation mode, its tokenizer, and the name it was asked for by.

    Attributes:
        beside: settings of its processor, which the model does not need here, by file; a saved copy has them too.
        trusted: whether code of its own may be run.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    beside: Mapping[str, bytes] = field(default_factory=dict)
    trusted: bool = False

    def __repr__(self) -> str:
        count = sum(one.numel() for one in self.model.parameters()) / 1e6
        kind, dtype = type(self.model).__name__, str(self.model.dtype).removeprefix("torch.")
        return f"LoadedModel({self.name!r}: {kind}, {count:,.1f} million parameters, {dtype}, {self.model.device})"


def known_models() -> list[str]:
    """Names that load without a hub."""
    return sorted(bundled.MODELS)


def load(
    name: str | Path,
    *,
    dtype: torch.dtype = torch.float32,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> LoadedModel:
    """Load a model and its tokenizer.

    Args:
        name: a name of ``known_models()``, a folder in transformers' format, a hub id, or a folder with an adapter of
            peft alone, which is merged into the model that it names.
        dtype: of the weights. Edits are made in float32.
        device: "cpu", "cuda", "cuda:1", ...; None takes a CUDA or XPU accelerator where there is one.
        trust_remote_code: run the code that stands beside the weights, where the model needs it.

    Raises:
        ModelError: if there is no such model, its folder lacks weights, has some of another shape or some that are NaN
            or infinite, it needs code of its own that is not trusted, brings what a saved copy would lack (an adapter
            beside it, quantised weights), or is an adapter that cannot be merged.
    """
    if not isinstance(name, str | Path):
        raise ModelError(f"{name!r} is no name of a model.", "Give a bundled name, a folder or a hub id.")
    name = str(name)
    if name.strip() and is_adapter(folder := Path(name)):
        # in float32, whatever is asked for: a sum is rounded once
        base = load(base_of(folder), device=device, trust_remote_code=trust_remote_code)
        model, tokenizer = merged(base.model, base.tokenizer, folder)
        torch.nn.Module.to(model, dtype)
        _check_finite(name, model)
        return replace(base, model=model, tokenizer=tokenizer, name=name)
    source, offline = _source(name, checked=True)
    where: dict[str, Any] = {"local_files_only": offline, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(source, **where)
        tokenizer = AutoTokenizer.from_pretrained(source, **where)
        with bundled.quiet_transformers():
            loaded: Any = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, output_loading_info=True, **where)
            model, found = loaded
        files = {file: cached_file(source, file, local_files_only=offline, **_IF_THERE) for file in _PROCESSOR_FILES}
    except Exception as error:  # transformers, the hub and safetensors raise a dozen kinds for one user mistake
        raise _load_error(name, error) from error
    _check_weights(name, model, found)
    _check_plain(name, model, config)
    place = torch.device(device) if device else default_device()
    torch.nn.Module.to(model, place)
    _check_finite(name, model)
    model.eval()
    beside = {file: Path(path).read_bytes() for file, path in files.items() if path is not None}
    return LoadedModel(model, tokenizer, name, beside, trust_remote_code)


def check_name(name: str, *, unseen: bool = False, trust_remote_code: bool = False) -> None:
    """Say at once when a name can only be a mistake, before anything heavy is done.

    ``unseen`` lets a hub id pass that cannot be looked up because no hub can be reached. Raises ModelError if the name
    is neither bundled, nor a folder with a model, nor found on the hub or in its cache; or if it needs code that is not
    trusted.
    """
    if name in bundled.MODELS:
        return
    if name.strip() and is_adapter(folder := Path(name)):
        return check_name(base_of(folder), unseen=unseen, trust_remote_code=trust_remote_code)
    source, offline = _source(name)
    try:
        AutoConfig.from_pretrained(source, local_files_only=offline, trust_remote_code=trust_remote_code)
    except Exception as error:
        if unseen and offline and not Path(source).is_dir() and not near_names(name, known_models()):
            return
        raise _load_error(name, error) from error


def parameter_count(name: str, *, trust_remote_code: bool = False) -> int | None:
    """How many parameters a model has, a tied one counted once; None where that takes fetching weights to know."""
    if name in bundled.MODELS and not bundled.is_cached(name):
        return None
    try:
        source, offline = _source(name)
        config = AutoConfig.from_pretrained(source, local_files_only=offline, trust_remote_code=trust_remote_code)
        with torch.device("meta"), bundled.quiet_transformers():
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    except Exception:  # whatever is wrong with it, loading the model says
        return None
    return sum(int(weight.numel()) for weight in model.parameters())


def _source(name: str, *, checked: bool = False) -> tuple[str, bool]:
    """Where a model's files are, a folder or a hub id, and whether only this machine is to be asked for them; a bundled
    one's are to be read, and are ``checked``."""
    source = str(bundled.model_folder(name, checked=checked)) if name in bundled.MODELS else name
    if name.strip() and Path(source).is_dir():  # Path("") is the working folder
        _check_folder(Path(source), name)
        return source, True
    if name.strip() and (file := Path(source)).is_file():
        beside = (file.parent / "config.json").is_file()
        raise ModelError(
            f"{name!r} is a file, and a model is a folder.",
            f"Give the folder that it is in, {str(file.parent)!r}."
            if beside
            else "Give a model's folder, a hub id or a bundled name; of a delta `indelible apply` makes a folder.",
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise ModelError(f"There is no model folder {name!r}.", "Give an existing folder, a hub id or a bundled name.")
    return source, not _hub_answers()


def _hub_answers() -> bool:
    """Whether the hub's name resolves: without this, each look-up would retry for half a minute on a closed network."""
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True  # the proxy resolves names, not this machine
    try:
        socket.getaddrinfo(urlsplit(huggingface_hub.constants.ENDPOINT).hostname, 443)
    except OSError:
        return False
    return True


def default_device() -> torch.device:
    """Where models are put when nothing is said: a CUDA or XPU accelerator where there is one."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    # Sums over a corpus and the systems that an edit solves are float64, which MPS does not have.
    return accelerator if accelerator is not None and accelerator.type in ("cuda", "xpu") else torch.device("cpu")


def _check_folder(folder: Path, name: str) -> None:
    present = {
        "config.json": (folder / "config.json").is_file(),
        "weights (*.safetensors)": any(path for pattern in _WEIGHT_FILES for path in folder.glob(pattern)),
    }
    for what, there in present.items():
        if not there:
            raise ModelError(f"The folder {name!r} has no {what}.", "Give a folder written by save_pretrained.")


def _check_weights(name: str, model: PreTrainedModel, found: Mapping[str, Collection[Any]]) -> None:
    """Refuse a model with parts that are not in its files (transformers fills them at random), or layers only there."""
    weights = model.state_dict(keep_vars=True)
    absent = set(found["missing_keys"])
    read = {id(weight) for key, weight in weights.items() if key not in absent}
    absent = {key for key in absent if key not in weights or id(weights[key]) not in read}  # else tied to one that was
    unfit = {key if isinstance(key, str) else key[0] for key in found["mismatched_keys"]}
    for names, what in ((sorted(absent - unfit), "lack"), (sorted(unfit), "hold another shape for")):
        if names:
            remedy = "Give a complete causal language model, as save_pretrained writes it."
            raise ModelError(f"The weights of {name!r} {what} {_listed(names)}.", remedy)
    unused = sorted(found["unexpected_keys"])
    known = {_NUMBER.sub("", key) for key in weights}
    if beyond := [key for key in unused if _NUMBER.sub("", key) in known]:
        raise ModelError(
            f"The files of {name!r} hold layers that its config.json does not count: {_listed(beyond)}.",
            "Mend config.json, or save the model that you mean with save_pretrained.",
        )
    if unused:
        warnings.warn(
            f"{name!r} holds weights that are no part of a {type(model).__name__}, and that saved copies will lack:"
            f" {_listed(unused)}.",
            stacklevel=3,
        )


def _check_finite(name: str, model: PreTrainedModel) -> None:
    """Refuse a model with weights that are NaN or infinite, for which all that is done with it would take the blame.

    The ends of each tensor's range are found where it lies, and all are looked at together: one pass over the weights,
    without a copy (0.6 ns a weight on one core), and one wait for an accelerator.
    """
    named = ((key, weight.detach()) for key, weight in model.named_parameters())
    weights = {key: weight for key, weight in named if weight.is_floating_point() and weight.numel()}
    ends = [end.float() for weight in weights.values() for end in torch.aminmax(weight)]
    finite = torch.stack(ends).view(-1, 2).isfinite().all(1).tolist()
    if broken := [key for key, good in zip(weights, finite, strict=True) if not good]:
        raise ModelError(
            f"Weights of {name!r} are NaN or infinite: {_listed(broken)}.",
            "Give the model as it was before its training diverged, or fetch it again.",
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _check_plain(name: str, model: Any, config: Any) -> None:
    """Refuse what is put around a model while it is loaded, and would be lost when it is saved."""
    if getattr(model, "peft_config", None):
        raise ModelError(
            f"{name!r} holds an adapter (peft), which a saved copy of the model would lack.",
            "Merge it: peft.AutoPeftModelForCausalLM.from_pretrained(...).merge_and_unload().save_pretrained(FOLDER).",
        )
    quantised = getattr(config, "quantization_config", None)
    if quantised is None:
        return
    method = quantised.get("quant_method") if isinstance(quantised, dict) else quantised.quant_method
    if getattr(model, "hf_quantizer", None) is not None:
        raise ModelError(f"{name!r} is quantised ({method}).", "Give a model with plain weights: no others are edited.")
    warnings.warn(
        f"{name!r} is stored quantised ({method}); it is read, and will be written, unquantised.", stacklevel=3
    )


def _load_error(name: str, error: Exception) -> ModelError:
    kind = type(error).__name__
    if "trust_remote_code" in str(error):
        return ModelError(
            f"{name!r} needs code of its own, which has not been run.",
            "Read that code first; then give --trust-remote-code, in Python load(..., trust_remote_code=True).",
        )
    if "Padding_idx must be within" in str(error):
        return ModelError(
            f"The model {name!r} pads with a token beyond its vocabulary.", "Mend pad_token_id in its config.json."
        )
    if Path(name).is_dir() or name in bundled.MODELS:
        reason = next(iter(str(error).strip().splitlines()), kind).rstrip(".: ")
        remedy = "Check that it is a causal language model saved with its tokenizer."
        return ModelError(f"The model {name!r} could not be loaded: {reason}.", remedy)
    tried = "it is not bundled, not a folder, and the hub did not give it"
    return ModelError(f"There is no model {name!r}: {tried} ({kind}).", suggest(name, known_models()))


def opened(given: LoadedModel | str) -> LoadedModel:
    """The model as it is, or loaded where only its name is given.

    Raises:
        ModelError: as ``load``, or if it is neither.
    """
    if isinstance(given, LoadedModel):
        return given
    if not isinstance(given, str | Path):
        raise ModelError(
            f"A {type(given).__name__} is no loaded model.", "Give what load returns, or the model's name."
        )
    return load(str(given))
