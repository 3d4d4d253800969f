"""The built-in freeze masks."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from indelible.errors import ConfigError
from indelible.models.layout import Layout
from indelible.tuning.freeze import MASKS


@MASKS.register("none")
def none(names: Sequence[str], layout: Layout, edited: Sequence[str]) -> set[str]:
    """Everything is trained."""
    return set()


@MASKS.register("edited-weights")
def edited_weights(names: Sequence[str], layout: Layout, edited: Sequence[str]) -> set[str]:
    """Exactly the edited tensors; the bias beside an edited matrix is trained unless it was edited too."""
    return set(edited)


@MASKS.register("edited-layers")
def edited_layers(names: Sequence[str], layout: Layout, edited: Sequence[str]) -> set[str]:
    """Every parameter of each residual block that holds an edited one."""
    return _within(names, [layout.blocks[layer] for layer in _layers(layout, edited, "edited-layers")])


@MASKS.register("up-to-edited")
def up_to_edited(names: Sequence[str], layout: Layout, edited: Sequence[str]) -> set[str]:
    """The input embeddings, position embeddings included, and every residual block up to the last edited one.

    What an edited block reads then stays as it was when the edit was made, and no gradient has to be computed there.
    """
    layers = _layers(layout, edited, "up-to-edited")
    if not layers:
        return set()
    return _within(names, [*layout.embeddings, *layout.blocks[: max(layers) + 1]])


def _layers(layout: Layout, edited: Sequence[str], mask: str) -> set[int]:
    layers = set()
    for name in edited:
        layer = layout.layer_of(name)
        if layer is None:
            raise ConfigError(
                f"The mask {mask!r} goes by layers, but the edited parameter {name!r} is in none.",
                "Use the mask 'edited-weights'.",
            )
        layers.add(layer)
    return layers


def _within(names: Sequence[str], modules: Collection[str]) -> set[str]:
    prefixes = tuple(f"{module}." for module in modules)
    return {name for name in names if name.startswith(prefixes)}
