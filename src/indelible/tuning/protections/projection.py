"""Projection: what the edited wordings put into linear maps is answered by them as before.

The inputs that a linear map sees on the edited wordings span a space; after every optimizer step the change of its
matrix is projected on the complement of that space. Gradient projection memory (Saha et al., arXiv 2103.09762) and
Adam-NSCL (Wang et al., arXiv 2103.07113) project gradients; here it is what the optimizer made of them, so that neither
its moments nor weight decay lead back into the space. Biases of these maps, which every wording meets, are put back.

Shapes: o outputs, d inputs, r directions that are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from indelible.errors import ConfigError
from indelible.models.batches import in_pieces, padded
from indelible.models.layout import Layout
from indelible.models.trace import by_row, capture
from indelible.tuning.protection import PROTECTIONS, WORDING_TOKENS, Correction, Guarded, Protection

AT_ONCE = 32
"""Wordings read at a time."""

LAYERS, BELOW, DIRECTIONS = 24, 0.4, 0.25
"""What planning assumes: layers of a model, the share of them up to the edit, and directions for each token read."""

NOTHING = "No linear map that is trained is there to be projected"
INSTEAD = "Freeze less, or use the tuner full or lora."


@PROTECTIONS.register("projection")
class Projection(Protection):
    """Options.

    Attributes:
        energy: share of the inputs' squared length that the space holds; 0 keeps nothing.
        most: directions at most, as a share of a map's inputs.
        where: "below": the maps in the layers up to the last edited one; or "all" layers.
    """

    name = "projection"
    version = 3
    in_layers = True
    tuners = ("full", "lora")
    energy: float = Field(0.95, ge=0, le=1)
    most: float = Field(0.5, gt=0, le=1)
    where: Literal["below", "all"] = "below"

    def read(self, wordings: int) -> float:
        """Each weight of a map is met twice for each direction, as it is in the passes forth of two tokens."""
        return 2 / 3 * self._passes * DIRECTIONS * wordings * WORDING_TOKENS if self.energy else 0.0

    def prepared(self, wordings: int) -> float:
        """All wordings for each layer, as far as that."""
        return LAYERS / 2 * self._passes**2 * wordings * WORDING_TOKENS if self.energy else 0.0

    @property
    def _passes(self) -> float:
        """The share of the layers in which it has maps."""
        return 1.0 if self.where == "all" else BELOW

    def correction(self, guarded: Guarded) -> Correction | None:
        """See the module. Of LoRA's two factors the first, whose own start is projected, too; DoRA has no such maps."""
        if not self.energy:
            return None
        maps = self._maps(guarded.model, guarded.layout, guarded.layers)
        if not maps:
            raise ConfigError(f"{NOTHING}.", INSTEAD)
        spaces = self._spaces(guarded, list(maps))
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        biases: list[tuple[Tensor, Tensor]] = []
        with torch.no_grad():
            for path, (matrix_od, adapter) in maps.items():
                space_dr = spaces[path]
                held_or = matrix_od @ space_dr
                kept.append((matrix_od, space_dr, torch.zeros_like(held_or) if adapter else held_or))
                bias = getattr(guarded.model.get_submodule(path), "bias", None)
                if bias is not None and bias.requires_grad:
                    biases.append((bias.data, bias.detach().clone()))

        def project(_optimizer: torch.optim.Optimizer | None = None) -> None:
            with torch.no_grad():
                for matrix_od, space_dr, held_or in kept:
                    matrix_od.sub_((matrix_od @ space_dr - held_or) @ space_dr.T)
                for bias, before in biases:
                    bias.copy_(before)

        project()
        return project

    def lacking(
        self, model: PreTrainedModel, layout: Layout, layers: Sequence[int], frozen: Collection[str]
    ) -> str | None:
        """That no map is left to it by a mask."""
        left = any(f"{path}.weight" not in frozen for path in self._maps(model, layout, layers, anyway=True))
        return None if left or not self.energy else NOTHING

    def _maps(
        self, model: PreTrainedModel, layout: Layout, layers: Sequence[int], *, anyway: bool = False
    ) -> dict[str, tuple[Tensor, bool]]:
        """By module path, the trained matrix as ``(o, d)``, a view, and whether it is an adapter's; ``anyway``: whether
        or not it is trained."""
        last = layers[-1] if self.where == "below" else layout.n_layers - 1
        found: dict[str, tuple[Tensor, bool]] = {}
        adapted = "\0"
        for path, module in model.named_modules():
            layer = layout.layer_of(f"{path}.weight")
            if layer is None or layer > last or path.startswith(adapted):  # an adapter's own maps are parts of it
                continue
            factors: Any = getattr(module, "lora_A", None)
            if len(getattr(module, "lora_magnitude_vector", ())):
                adapted = f"{path}."  # DoRA's magnitudes change all that the map answers
            elif isinstance(factors, nn.ModuleDict) and len(factors):
                factor: Any = next(iter(factors.values()))
                found[path], adapted = (factor.weight.data, True), f"{path}."
            elif isinstance(module, nn.Linear | Conv1D) and (anyway or module.weight.requires_grad):
                weight: Tensor = module.weight.data
                found[path] = (weight.T if isinstance(module, Conv1D) else weight, False)
        return found

    def _spaces(self, guarded: Guarded, paths: list[str]) -> dict[str, Tensor]:
        """By module path, orthonormal directions ``(d, r)`` that hold the inputs' energy; maps that read the same have
        one. Layer by layer, since second moments are as large as matrices."""
        found: dict[str, Tensor] = {}
        by_layer: dict[int | None, list[str]] = {}
        for path in paths:
            by_layer.setdefault(guarded.layout.layer_of(f"{path}.weight"), []).append(path)
        for layer, those in by_layer.items():
            assert layer is not None
            for readers, moment_dd in self._moments(guarded, layer, those).items():
                found |= dict.fromkeys(readers, self._directions(moment_dd).to(guarded.model.dtype))
        return found

    def _moments(self, guarded: Guarded, layer: int, paths: list[str]) -> dict[tuple[str, ...], Tensor]:
        """Second moments ``(d, d)`` of what maps of a layer read on the edited wordings, one for all that read
        the same."""
        moments: dict[tuple[str, ...], Tensor] = {}
        device = guarded.model.device
        for some in in_pieces(guarded.wordings, AT_ONCE):
            tokens_bt, mask_bt = padded([wording.tokens[:-1] for wording in some])
            block = guarded.layout.blocks[layer]
            with torch.no_grad(), capture(guarded.model, inputs_of=paths, stop_after=block) as seen:
                guarded.model(tokens_bt.to(device), attention_mask=mask_bt.to(device), use_cache=False)
            readers: dict[int, list[str]] = {}
            for path in paths:
                readers.setdefault(id(seen.inputs[path]), []).append(path)
            for those in readers.values():
                read_nd = by_row(seen.inputs[those[0]], len(some))[mask_bt.bool().to(device)].double()
                moments[tuple(those)] = moments.get(tuple(those), 0) + read_nd.T @ read_nd
        return moments

    def _directions(self, moment_dd: Tensor) -> Tensor:
        values_d, vectors_dd = torch.linalg.eigh(moment_dd)
        values_d, vectors_dd = values_d.flip(0).clamp(min=0), vectors_dd.flip(1)
        held_d = values_d.cumsum(0) / values_d.sum()
        numerical = int((values_d > values_d[0] * 1e-12).sum())
        needed = int((held_d < self.energy).sum()) + 1
        kept_dr: Tensor = vectors_dd[:, : min(needed, numerical, max(1, int(self.most * len(values_d))))]
        return kept_dr
