"""Where a user's own training data are and what their columns mean, as a study or a caller says it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from indelible.errors import UnknownNameError

FIELDS = ("prompt", "answer", "text", "label", "chosen", "rejected", "group")
"""What columns can be mapped to."""


class DataSettings(BaseModel):
    """A user's own training data.

    Unknown fields in ``columns`` raise UnknownNameError; anything else that is wrong raises pydantic's ValidationError.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str = Field(
        min_length=1, description="a .jsonl, .json, .csv, .tsv or .parquet file, or the id of a data set on the hub"
    )
    columns: dict[str, str] | None = Field(
        None,
        description="field (prompt, answer, text, label, chosen, rejected, group) -> column, or several: a+b; None: "
        "guess by well-known names",
    )
    split: str | None = Field(None, min_length=1, description="of a hub data set; None: train")
    config: str | None = Field(None, min_length=1, description="of a hub data set that has several")
    labels: tuple[str, ...] | None = Field(
        None, description="classify: the label words; labels that are numbers count into them; None: as in the data"
    )

    @field_validator("columns")
    @classmethod
    def _known_fields(cls, columns: dict[str, str] | None) -> dict[str, str] | None:
        for field in columns or ():
            if field not in FIELDS:
                raise UnknownNameError("field of an example", field, FIELDS)
        return columns

    @field_validator("labels")
    @classmethod
    def _several_labels(cls, labels: tuple[str, ...] | None) -> tuple[str, ...] | None:
        if labels is not None and (len(set(labels)) < max(2, len(labels)) or not all(map(str.strip, labels))):
            raise ValueError(f"two or more different label words are needed, not {labels!r}")
        return labels
