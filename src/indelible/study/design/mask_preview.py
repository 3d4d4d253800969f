"""What each arm's mask would freeze, said before anything is run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from indelible.models.bundled import fetch as bundled
from indelible.models.layout import find_layout
from indelible.models.load import load
from indelible.study.design.arms import Arm
from indelible.tuning.freezing.mask import NONE, about_edit, describe_frozen, frozen_parameters


def fetches_nothing(model: str) -> bool:
    """Whether a model lies here, so that it can be loaded to say what would be done."""
    return bundled.is_cached(model) if model in bundled.MODELS else Path(model).is_dir()


def mask_previews(arms: Sequence[Arm], model: str, *, trust_remote_code: bool = False) -> Mapping[str, str]:
    """In words what the mask of each arm that has one freezes. The model is loaded for it where that fetches nothing.

    Raises:
        ConfigError: if a mask cannot be applied to the model.
    """
    masked = [arm for arm in arms if arm.mask != NONE]
    if not masked:
        return {}
    if not fetches_nothing(model):
        return {arm.name: "counts come once the model has been fetched" for arm in masked}
    loaded = load(model, device="cpu", trust_remote_code=trust_remote_code).model
    layout = find_layout(loaded)
    said = {}
    for arm in masked:
        edited = () if arm.editor is None else arm.editor.parameters_in(loaded, layout)
        if about_edit(arm.mask) and not edited:
            said[arm.name] = "what is edited is known once the edit is made"
            continue
        said[arm.name] = describe_frozen(loaded, layout, frozen_parameters(arm.mask, loaded, layout, edited))
    return said
