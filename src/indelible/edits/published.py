"""Published settings: what a method's own code does, as one option.

Papers say less than their code: how texts are put before a wording, how keys are averaged, where the KL term is taken,
when a value is left. ``published: true`` sets all of it as the code has it, each as an option of its own that can still
be given another value, so that what differs can be taken apart. Where the code has other figures for other models, the
set has GPT-J's, for which all of these methods were published; those of other models stand in the studies' `by_model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, StrictBool, model_validator

from indelible.edits.weight_editor import WeightEditor


class Published(WeightEditor):
    """Base of editors whose published code says what their options are."""

    as_published: ClassVar[Mapping[str, Any]] = {}
    """Options that the method's published code has, by name."""
    published: StrictBool = Field(
        default=False, description="Take all options that are not given from the method's published code (GPT-J's)."
    )

    @model_validator(mode="before")
    @classmethod
    def _from_code(cls, given: Any) -> Any:
        if not isinstance(given, Mapping) or given.get("published") is not True:
            return given
        return {**cls.from_code(given), **given}

    @classmethod
    def from_code(cls, given: Mapping[str, Any]) -> Mapping[str, Any]:
        """What of ``as_published`` goes with the options that are given."""
        return cls.as_published

    def given(self) -> dict[str, Any]:
        """Without what the published code says beside the others, which goes by them."""
        found = super().given()
        code = self.from_code(found) if self.published else {}
        return {name: value for name, value in found.items() if name not in code or code[name] != value}
