"""Projection: what the edited wordings put into linear maps is answered by them as before.

The inputs that a linear map sees on the edited wordings span a space; after every optimizer step the change of its
matrix is projected on the complement of that space. Gradient projection memory (Saha et al., arXiv 2103.09762) and
Adam-NSCL (Wang et al., arXiv 2103.07113) project gradients; here it is what the optimizer made of them, so that neither
its moments nor weight decay lead back into the space.

Shapes: o outputs, d inputs, r directions that are kept.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from indelible.errors import ConfigError
from indelible.models.batches import in_pieces, padded
from indelible.models.trace import by_row, capture
from indelible.tuning.protection import PROTECTIONS, Correction, Guarded, Protection

AT_ONCE = 32
"""Wordings read at a time."""


@PROTECTIONS.register("projection")
class Projection(Protection):
    """Options.

    Attributes:
        energy: share of the inputs' squared length that the space holds; 0 keeps nothing.
        most: directions at most, as a share of a map's inputs.
        where: "below": the maps in the layers up to the last edited one; or "all" layers.
    """

    name = "projection"
    version = 2
    in_layers = True
    tuners = ("full", "lora")
    energy: float = Field(0.95, ge=0, le=1)
    most: float = Field(0.5, gt=0, le=1)
    where: Literal["below", "all"] = "below"

    def correction(self, guarded: Guarded) -> Correction | None:
        """See the module. Of LoRA's two factors the first, whose own start is projected, too; DoRA has no such maps."""
        if not self.energy:
            return None
        maps = self._maps(guarded)
        if not maps:
            raise ConfigError(
                "No linear map that is trained is there to be projected.", "Freeze less, or use the tuner full or lora."
            )
        spaces = self._spaces(guarded, list(maps))
        kept: list[tuple[Tensor, Tensor, Tensor]] = []
        with torch.no_grad():
            for path, (matrix_od, adapter) in maps.items():
                space_dr = spaces[path]
                held_or = matrix_od @ space_dr
                kept.append((matrix_od, space_dr, torch.zeros_like(held_or) if adapter else held_or))

        def project(_optimizer: torch.optim.Optimizer | None = None) -> None:
            with torch.no_grad():
                for matrix_od, space_dr, held_or in kept:
                    matrix_od.sub_((matrix_od @ space_dr - held_or) @ space_dr.T)

        project()
        return project

    def _maps(self, guarded: Guarded) -> dict[str, tuple[Tensor, bool]]:
        """By module path, the trained matrix as ``(o, d)``, a view, and whether it is an adapter's."""
        last = guarded.layers[-1] if self.where == "below" else guarded.layout.n_layers - 1
        found: dict[str, tuple[Tensor, bool]] = {}
        adapted = "\0"
        for path, module in guarded.model.named_modules():
            layer = guarded.layout.layer_of(f"{path}.weight")
            if layer is None or layer > last or path.startswith(adapted):  # an adapter's own maps are parts of it
                continue
            factors: Any = getattr(module, "lora_A", None)
            if len(getattr(module, "lora_magnitude_vector", ())):
                adapted = f"{path}."  # DoRA's magnitudes change all that the map answers
            elif isinstance(factors, nn.ModuleDict) and len(factors):
                factor: Any = next(iter(factors.values()))
                found[path], adapted = (factor.weight.data, True), f"{path}."
            elif isinstance(module, nn.Linear | Conv1D) and module.weight.requires_grad:
                weight: Tensor = module.weight.data
                found[path] = (weight.T if isinstance(module, Conv1D) else weight, False)
        return found

    def _spaces(self, guarded: Guarded, paths: list[str]) -> dict[str, Tensor]:
        """By module path, orthonormal directions ``(d, r)`` that hold the inputs' energy."""
        moments: dict[str, Tensor] = {}
        device = guarded.model.device
        for some in in_pieces(guarded.wordings, AT_ONCE):
            tokens_bt, mask_bt = padded([wording.tokens[:-1] for wording in some])
            with torch.no_grad(), capture(guarded.model, inputs_of=paths) as seen:
                guarded.model(tokens_bt.to(device), attention_mask=mask_bt.to(device), use_cache=False)
            for path in paths:
                read_nd = by_row(seen.inputs[path], len(some))[mask_bt.bool().to(device)].double()
                moments[path] = moments.get(path, 0) + read_nd.T @ read_nd
        return {path: self._directions(moment_dd).to(guarded.model.dtype) for path, moment_dd in moments.items()}

    def _directions(self, moment_dd: Tensor) -> Tensor:
        values_d, vectors_dd = torch.linalg.eigh(moment_dd)
        values_d, vectors_dd = values_d.flip(0).clamp(min=0), vectors_dd.flip(1)
        held_d = values_d.cumsum(0) / values_d.sum()
        numerical = int((values_d > values_d[0] * 1e-12).sum())
        needed = int((held_d < self.energy).sum()) + 1
        kept_dr: Tensor = vectors_dd[:, : min(needed, numerical, max(1, int(self.most * len(values_d))))]
        return kept_dr
