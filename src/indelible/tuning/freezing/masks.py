"""The built-in freeze masks."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from indelible.errors import ConfigError, near_names
from indelible.tuning.freezing.mask import MASKS, NONE, Masked, MaskEntry


def _distance(text: str) -> int:
    """How many layers on either side: 0 without an argument."""
    if text and not text.isdecimal():
        raise ValueError(text)
    return int(text or 0)


def _layer_numbers(text: str) -> list[range]:
    """Numbers out of "0-5,8"."""
    found = []
    for piece in text.split(","):
        first, dash, last = piece.partition("-")
        found.append(range(int(first), int(last if dash else first) + 1))
    if not all(found):
        raise ValueError(text)
    return found


def _patterns(text: str) -> list[str]:
    """Patterns out of "a*,b*"."""
    found = [piece.strip() for piece in text.split(",")]
    if not all(found):
        raise ValueError(text)
    return found


def edited_layers(among: Masked) -> set[str]:
    """Every parameter of each residual block that holds an edited one, and of ``k`` blocks on either side."""
    distance = _distance(among.argument)
    edited = _layers(among)
    near = [block for at, block in enumerate(among.layout.blocks) if any(abs(at - one) <= distance for one in edited)]
    return _within(among.names, near)


def only_edited(among: Masked) -> set[str]:
    """Everything outside the residual blocks that hold an edited parameter."""
    return set(among.names) - edited_layers(among)


def up_to_edited(among: Masked) -> set[str]:
    """The input embeddings, position embeddings included, and every residual block up to the last edited one: what an
    edited block reads stays as it was when the edit was made, and no gradient has to be computed there."""
    layout = among.layout
    return _within(among.names, [*layout.embeddings, *layout.blocks[: max(_layers(among)) + 1]])


def from_edited(among: Masked) -> set[str]:
    """Every residual block from the first edited one on, what follows the blocks, and the output head."""
    layout = among.layout
    return _within(among.names, [*layout.blocks[min(_layers(among)) :], *layout.after_blocks, layout.head])


def layers(among: Masked) -> set[str]:
    """Every parameter of the residual blocks of these numbers."""
    wanted = _layer_numbers(among.argument)
    if (last := max(numbers[-1] for numbers in wanted)) >= among.layout.n_layers:
        raise ConfigError(
            f"The mask 'layers:{among.argument}' names layer {last} of {among.layout.n_layers}.",
            f"Layers count from 0 to {among.layout.n_layers - 1}.",
        )
    return _within(among.names, [among.layout.blocks[layer] for numbers in wanted for layer in numbers])


def like(among: Masked) -> set[str]:
    """Parameters whose names match a pattern with ``*``, ``?`` and ``[...]``, as files are matched."""
    found: set[str] = set()
    for pattern in _patterns(among.argument):
        matching = {name for name in among.names if fnmatchcase(name, pattern)}
        if not matching:
            near = near_names(pattern.replace("*", ""), among.names) or among.names[:1]
            raise ConfigError(f"No parameter matches {pattern!r}.", f"Near it: {', '.join(near)}.")
        found |= matching
    return found


for _name, _entry in {
    NONE: MaskEntry(lambda among: set(), about_edit=False),
    # Exactly the edited tensors: the bias beside an edited matrix is trained unless it was edited too.
    "edited-weights": MaskEntry(lambda among: set(among.edited)),
    "only-edited-weights": MaskEntry(lambda among: set(among.names) - set(among.edited)),
    "edited-layers": MaskEntry(edited_layers, argument="K", check=_distance),
    # What trains is all but the edited layers: the literature's name for the same mask.
    "all-but-edited": MaskEntry(edited_layers, argument="K", check=_distance),
    "only-edited": MaskEntry(only_edited, argument="K", check=_distance),
    "up-to-edited": MaskEntry(up_to_edited),
    "from-edited": MaskEntry(from_edited),
    "layers": MaskEntry(layers, about_edit=False, argument="0-5,8", check=_layer_numbers),
    "like": MaskEntry(like, about_edit=False, argument="PATTERN,PATTERN", check=_patterns),
    # Whatever acts before the first block.
    "embeddings": MaskEntry(lambda among: _within(among.names, among.layout.embeddings), about_edit=False),
    "head": MaskEntry(lambda among: _within(among.names, [among.layout.head]), about_edit=False),
    "norms": MaskEntry(lambda among: set(among.norms), about_edit=False),
}.items():
    MASKS.register(_name)(_entry)


def _layers(among: Masked) -> set[int]:
    found = set()
    for name in among.edited:
        layer = among.layout.layer_of(name)
        if layer is None:
            raise ConfigError(
                f"A mask goes by layers, but the edited parameter {name!r} is in none.",
                "Use the mask 'edited-weights'.",
            )
        found.add(layer)
    return found


def _within(names: Iterable[str], modules: Collection[str]) -> set[str]:
    prefixes = tuple(f"{module}." for module in modules)
    return {name for name in names if name.startswith(prefixes)}
