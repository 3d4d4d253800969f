"""What lm-evaluation-harness (EleutherAI) finds of a model as it stands: downstream figures beside an objective's own.

The harness's cache is not used: it answers for a model with the scores of another
(findings/lm_eval_cache_any_model.sh).
"""

from __future__ import annotations

import contextlib
import copy
import importlib.util
import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from indelible.errors import ConfigError
from indelible.harness.settings import HarnessSettings
from indelible.models.trace import evaluation_mode

PREFIX = "lm_eval/"
_LOGGERS = ("lm_eval", "lm-eval")


@dataclass(frozen=True)
class Harness:
    """Tasks that were found, ready to be asked of one model after another."""

    settings: HarnessSettings
    manager: Any

    @classmethod
    def of(cls, settings: HarnessSettings) -> Self:
        """Find the tasks, before anything heavy is done: first in one's own folder, then among all that there are.

        Raises:
            ConfigError: if the harness is not installed, or has no such task.
        """
        if importlib.util.find_spec("lm_eval") is None:
            raise ConfigError(
                "Tasks of lm-evaluation-harness are asked for, and it is not installed.",
                "Install it: pip install 'indelible[lm-eval]'.",
            )
        own = settings.include_path
        if own is not None and not Path(own).is_dir():
            raise ConfigError(f"There is no folder of tasks {own!r}.", "Check include_path.")
        from lm_eval.tasks import TaskManager  # slow to import, and an extra

        missing: list[str] = []
        with _quietly():
            for defaults in (False, True) if own is not None else (True,):
                manager = TaskManager(include_path=own, include_defaults=defaults)
                missing = [name for name in settings.tasks if name not in manager.all_tasks]
                if not missing:
                    return cls(settings, manager)
        raise ConfigError(
            f"lm-evaluation-harness has no task {missing[0]!r}.",
            "`lm_eval ls tasks` lists them; one's own need include_path.",
        )

    def figures(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, float]:
        """Every figure of the tasks, by ``lm_eval/<task>/<metric>``, without those of their spread.

        The model is asked in evaluation mode, in the precision of its weights, and left as it was. The harness seeds
        the global generators of random numbers; keeping them is the caller's.
        """
        import lm_eval  # slow to import, and an extra
        from lm_eval.models.huggingface import HFLM

        asked = self.settings
        with _quietly(), evaluation_mode(model):
            # it gives the tokenizer a padding token
            reader = HFLM(pretrained=model, tokenizer=copy.deepcopy(tokenizer), batch_size=asked.batch_size)
            found: Any = lm_eval.simple_evaluate(
                model=reader,
                tasks=list(asked.tasks),
                task_manager=self.manager,
                num_fewshot=asked.shots,
                limit=asked.limit,
                bootstrap_iters=0,
                log_samples=False,
            )
        return _flat(found["results"])


def _flat(results: dict[str, dict[str, Any]]) -> dict[str, float]:
    """Figures by name; the harness names one ``metric,filter``, and a filter that does nothing "none"."""
    figures = {}
    for task, values in results.items():
        for key, value in values.items():
            metric, comma, kept = key.partition(",")
            if comma and isinstance(value, int | float) and not metric.endswith("_stderr"):
                figures[f"{PREFIX}{task}/{metric}{'' if kept == 'none' else f',{kept}'}"] = float(value)
    return figures


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """The harness says nothing but errors, and draws no bars."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
