"""Arms with every default filled in, made and checked once by the rooms that the settings belong to.

Nothing after this point meets a mapping that was written by hand; what a step's key is made from is dumped from these
again (see run.step).
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from indelible.edits.deltas.delta import Edit
from indelible.edits.deltas.manifest import with_suffix
from indelible.edits.editor import EDITORS, Editor
from indelible.errors import ConfigError, EditError, IndelibleError, suggest
from indelible.exam.kind import further_kinds
from indelible.files import read_bytes
from indelible.harness.figures import Harness
from indelible.models.load import default_device
from indelible.numbers.measures import FACTORS
from indelible.study.design.settings import NO_EDITOR, ArmSettings, Options, Protocol, StudyConfig
from indelible.tuning.freezing.mask import NONE, about_edit, check_mask
from indelible.tuning.objective import OBJECTIVES, own_options, tuning_settings
from indelible.tuning.own_data.sources import data_version
from indelible.tuning.protection import Protection, check_under, protections_from
from indelible.tuning.settings import DEFAULT_OBJECTIVE, TuningSettings
from indelible.tuning.train import check_settings, with_precision
from indelible.tuning.training.sharing import check_unprotected
from indelible.tuning.tuners.tuner import QLORA
from indelible.validation import validated


@dataclass(frozen=True)
class Arm:
    """One way of editing and tuning, complete.

    See ``settings.ArmSettings``. ``editor`` is None for the control; ``tuning`` has its precision decided; ``data`` is
    the version of the file or hub dataset that the arm is tuned on, None where that is a built-in task. ``delta`` is
    the file of an edit that was made before, and its digest.
    """

    name: str
    editor: Editor | None
    tuning: TuningSettings
    mask: str = NONE
    protections: tuple[Protection, ...] = ()
    paraphrases: int = 0
    protocol: Protocol = "batch"
    explain: bool = False
    data: str | None = None
    delta: tuple[str, str] | None = None

    @property
    def isolated(self) -> bool:
        """Whether each fact is edited in a copy of the model of its own."""
        return self.protocol != "batch"

    @property
    def quantised(self) -> bool:
        """Whether the model is quantised in all that is asked of the arm, as it is when it is tuned."""
        return self.tuning.tuner == QLORA

    @property
    def reads_bystanders(self) -> bool:
        """Whether its editor or a protection wants facts that are neither edited nor asked."""
        edits_by_text = self.editor is not None and self.editor.uses_text
        return edits_by_text or any(one.needs_others for one in self.protections)

    @property
    def factors(self) -> dict[str, Any]:
        """What tables call the arm by."""
        editor = NO_EDITOR if self.editor is None else self.editor.name
        protect = "+".join(map(str, self.protections)) or NONE
        own = (editor, self.paraphrases, self.tuning.objective, self.tuning.tuner, self.mask, protect)
        return dict(zip(FACTORS, own, strict=True))


def resolve_arms(config: StudyConfig) -> tuple[Arm, ...]:
    """Every arm of the study, complete.

    Raises:
        ConfigError: an unknown editor, mask, objective, kind of question or option, a value that cannot be used, or trl
            missing where an arm needs it.
    """
    for name in config.editors:
        _check("editor", name, EDITORS.names(), "editors")
        validated(EDITORS.get(name), config.editors[name], f"editors.{name}")
    for name in config.exam.also:
        _check("kind of question", name, further_kinds(), "exam.also")
    used = {_objective(config, arm.tuning) for arm in config.arms} & set(OBJECTIVES.names())
    _tuning(config, {}, used, "tuning")
    arms = tuple(_resolve(arm, config, used) for arm in config.arms)
    for harness in {arm.tuning.lm_eval for arm in arms if arm.tuning.lm_eval is not None}:
        Harness.of(harness)  # once each, for finding tasks takes seconds
    return arms


def _objective(config: StudyConfig, own: Options) -> str:
    return str({**config.tuning, **own}.get("objective", DEFAULT_OBJECTIVE))


def _tuning(config: StudyConfig, own: Options, used: Collection[str], path: str) -> TuningSettings:
    """An arm's settings over the study's, without those options of the study that only other arms' objectives have."""
    objective = _objective(config, own)
    shared = own_options(config.tuning, objective, used) if objective in OBJECTIVES.names() else config.tuning
    return tuning_settings({**shared, **own}, path)


def _resolve(arm: ArmSettings, config: StudyConfig, used: Collection[str]) -> Arm:
    here = f"arms.{arm.name}"
    tuning = _tuning(config, arm.tuning, used, f"{here}.tuning")
    if config.as_published and len(tuning.dose) > 1:
        raise ConfigError(
            f"'{here}.tuning' has several doses, but points of a curve are judged otherwise than as_published.",
            "Give the largest alone, or leave as_published out.",
        )
    try:
        mask = check_mask(arm.mask)
        data = None if tuning.data is None else data_version(tuning.data)
    except IndelibleError as error:
        raise ConfigError(f"{error.what.removesuffix('.')} in {here!r}.", error.fix) from None
    _check("editor", arm.editor, [*EDITORS.names(), NO_EDITOR], here)
    editor, delta = None, None
    if arm.editor == NO_EDITOR:
        _check_control(arm, here)
    elif arm.delta is not None:
        editor, delta = _taken(arm, arm.delta, here)
    else:
        options = {**config.editors.get(arm.editor, {}), **arm.options}
        editor = validated(EDITORS.get(arm.editor), options, f"{here}.options")
    if editor is not None and about_edit(mask) and not (editor.depths or editor.changes_weights):
        raise ConfigError(
            f"'{here}.mask' is {mask!r}, but an edit by {editor.name!r} lies in no layer of the model.",
            "Name layers (layers:0-5), leave the mask out, or choose another editor.",
        )
    if arm.protocol == "task-vector" and tuning.tuner == QLORA:
        raise ConfigError(
            f"'{here}.protocol' is 'task-vector', but over a quantised base no weight is tuned (tuner: qlora).",
            "Tune with lora, or use the protocol isolated.",
        )
    if tuning.tuner == QLORA and editor is not None and editor.depths and not editor.changes_weights:
        raise ConfigError(
            f"'{here}.editor' is {editor.name!r}, which recognises states of the plain model: over a quantised base"
            " they are others (tuner: qlora).",
            "Tune with lora, or choose another editor.",
        )
    try:
        check_settings(tuning)
    except ConfigError as error:
        raise ConfigError(f"'{here}.tuning': {error.what}", error.fix) from None
    return Arm(
        arm.name,
        editor,
        with_precision(tuning, default_device()),
        mask,
        _protections(arm, config, editor, tuning.tuner, here),
        arm.paraphrases,
        arm.protocol,
        _explained(arm, config, tuning.tuner, here),
        data,
        delta,
    )


def _taken(arm: ArmSettings, delta: str, here: str) -> tuple[Editor, tuple[str, str]]:
    """The editor of an edit that was made before, and its file with its digest."""
    file = with_suffix(Path(delta))
    made = Edit.load(file).manifest.made[-1]
    for key, value, was in (
        ("editor", arm.editor, made.editor),
        ("paraphrases", arm.paraphrases, made.paraphrases),
        ("protocol", arm.protocol, "batch"),
        ("options", arm.options or made.options, made.options),
    ):
        if value != was:
            raise ConfigError(f"'{here}.{key}' is {value!r}, but of {file} it is {was!r}.", "Write it as it is.")
    editor = validated(EDITORS.get(made.editor), made.options, f"{here}.delta")
    return editor, (str(file), hashlib.sha256(read_bytes(file, "delta", EditError)).hexdigest())


def _protections(
    arm: ArmSettings, config: StudyConfig, editor: Editor | None, tuner: str, here: str
) -> tuple[Protection, ...]:
    """What keeps the arm's edits."""
    found = protections_from(arm.protect, f"{here}.protect")
    check_unprotected(found)
    check_under(found, tuner, f"{here}.protect")
    for one in found:
        if one.needs_others and not config.facts.bystanders:
            raise ConfigError(
                f"'{here}.protect' replays other facts, but the study has none ('facts.bystanders' is 0).",
                "Set facts.bystanders, or replay the edits.",
            )
        if one.in_layers and editor is not None and not editor.depths:
            raise ConfigError(
                f"'{here}.protect' is {one.name!r}, but an edit by {editor.name!r} lies in no layer of the model.",
                "Choose another protection, or another editor.",
            )
        if one.mends and editor is not None and not editor.changes_weights:
            raise ConfigError(
                f"'{here}.protect' is {one.name!r}, but an edit by {editor.name!r} changes no weights.",
                "Choose another protection, or another editor.",
            )
    if found and arm.protocol == "task-vector":
        raise ConfigError(
            f"'{here}.protect' is set, but the arm's training sees no edit (protocol: task-vector).",
            "Remove it, or use the protocol isolated.",
        )
    return found


def _explained(arm: ArmSettings, config: StudyConfig, tuner: str, here: str) -> bool:
    """Whether the arm's losses are to be explained; what holds for the whole study leaves out where they cannot be."""
    if arm.protocol != "batch" and arm.explain:
        raise ConfigError(
            f"'{here}.explain' is set, but the arm has a copy for every edit (protocol: {arm.protocol}).",
            "Remove it, or edit in one batch.",
        )
    if tuner == QLORA and arm.explain:
        raise ConfigError(
            f"'{here}.explain' is set, but mixtures of weights cannot be made of quantised ones (tuner: qlora).",
            "Remove it, or tune with lora.",
        )
    can_be = arm.editor != NO_EDITOR and arm.protocol == "batch" and tuner != QLORA
    return can_be and (config.explain if arm.explain is None else arm.explain)


def _check(kind: str, name: str, known: Iterable[str], where: str) -> None:
    if name not in (names := list(known)):
        raise ConfigError(f"Unknown {kind} {name!r} in {where!r}.", suggest(name, names))


def _check_control(arm: ArmSettings, here: str) -> None:
    for key, value, plain in (
        ("paraphrases", arm.paraphrases, 0),
        ("options", arm.options, {}),
        ("delta", arm.delta, None),
        ("protocol", arm.protocol, "batch"),
        ("protect", protections_from(arm.protect, f"{here}.protect"), ()),
        ("explain", bool(arm.explain), False),
    ):
        if value != plain:
            raise ConfigError(
                f"'{here}.{key}' is set, but the arm edits nothing (editor: none).",
                "Remove it, or choose an editor; beside a grid, write the control out under 'arms'.",
            )
    if about_edit(arm.mask):
        raise ConfigError(
            f"'{here}.mask' is {arm.mask!r}, which goes by an edit, but the arm edits nothing (editor: none).",
            "Remove it, choose an editor, or name layers (layers:0-5).",
        )
