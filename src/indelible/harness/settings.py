"""Which tasks of lm-evaluation-harness are asked, and how: options alone, read where the harness is not installed."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class HarnessSettings(BaseModel):
    """Options of one look at a model with the harness."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tasks: tuple[str, ...] = Field(min_length=1, description="tasks or groups, e.g. [lambada_openai, arc_easy]")
    include_path: str | None = Field(None, min_length=1, description="folder with tasks of one's own")
    limit: int | None = Field(None, gt=0, description="documents of each task; None: all")
    shots: int | None = Field(None, ge=0, description="examples before each document; None: as the task says")
    batch_size: int = Field(8, gt=0, description="texts read at a time")

    def behind(self) -> dict[str, Any]:
        """What figures hang on beside the options: the harness's version, and what stands in the tasks' folder."""
        whole = hashlib.sha256()
        folder = Path(self.include_path or ".")
        for file in sorted(folder.rglob("*")) if self.include_path else ():
            if file.is_file() and file.suffix in (".yaml", ".yml", ".py", ".json", ".jsonl", ".csv", ".parquet"):
                whole.update(f"{file.relative_to(folder).as_posix()} ".encode())
                whole.update(hashlib.sha256(file.read_bytes()).digest())
        return {"lm_eval": version("lm_eval"), "files": whole.hexdigest()}
