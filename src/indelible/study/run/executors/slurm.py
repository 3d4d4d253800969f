"""A study on a SLURM cluster: the scripts that sbatch takes, and the settings that they run.

One is a single job over all its machines, on which Ray does the steps; the other an array of tasks that know nothing of
each other, where no machine can reach another, whose finished steps the last job puts together.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from indelible.files import disk_errors, whole_file
from indelible.study.design.settings import StudyConfig


@dataclass(frozen=True)
class Scripts:
    """What was written: for Ray, for an array and what puts its parts together, and the settings of all of them."""

    ray: Path
    array: Path
    gather: Path
    settings: Path

    @property
    def how(self) -> tuple[str, ...]:
        """How each is submitted."""
        array, gather = (shlex.quote(str(path)) for path in (self.array, self.gather))
        return (
            f"sbatch {shlex.quote(str(self.ray))}",
            f"sbatch --dependency=afterany:$(sbatch --parsable {array}) {gather}",
        )


def write_scripts(config: StudyConfig, folder: Path, parts: int, *, update: bool = False) -> Scripts:
    """Write the scripts and the settings beside the run folder, which all machines have to see.

    Args:
        parts: tasks of the array.
        update: as for ``run_study``.

    Raises:
        StoreError: the place may not be written.
    """
    folder = folder.absolute()
    ends = (".sbatch", "-array.sbatch", "-gather.sbatch", ".sbatch.yaml")  # NAME.yaml may be the user's own
    scripts = Scripts(*(folder.with_name(folder.name + end) for end in ends))
    study = shlex.join(["indelible", "study", str(scripts.settings), *["--update"] * update, "--out"])
    own, slurm = shlex.quote(str(folder)), config.slurm
    each = "".join(f" --each {key}={value:g}" for key, value in slurm.each.model_dump(exclude_unset=True).items())
    ray = (
        # sed reads to the end: of a pipe that is closed early, pipefail makes an error
        'head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)',
        "port=$((20000 + SLURM_JOB_ID % 20000))  # jobs that share a machine must not meet",
        f"rm -f {own}/summary.json  # made again at the end, and looked for there",
        f'srun ray symmetric-run --address "$head:$port" --min-nodes {slurm.nodes} \\',
        f"  --num-cpus {slurm.cpus} --num-gpus {slurm.gpus} -- {study} {own} --on auto{each}",
        f"test -f {own}/summary.json  # ray symmetric-run ends well even where its cluster did not start",
    )
    task = f"{own}-parts/$SLURM_ARRAY_TASK_ID"
    array = (f'{study} {task} --part "$SLURM_ARRAY_TASK_ID/{parts}"',)
    gather = (
        f'taken=(); for part in {own}-parts/*; do taken+=(--take "$part"); done',
        f'{study} {own} "${{taken[@]}}"',
    )
    written = {
        scripts.settings: config.to_yaml(),
        scripts.ray: _script(config, folder, ray, slurm.nodes),
        scripts.array: _script(config, folder, array, 1, f"--array=1-{parts}"),
        scripts.gather: _script(config, folder, gather, 1),
    }
    with disk_errors(folder.parent):
        folder.parent.mkdir(parents=True, exist_ok=True)
    for path, text in written.items():
        with whole_file(path) as unfinished:
            unfinished.write_text(text, encoding="utf-8")
    return scripts


def _script(config: StudyConfig, folder: Path, commands: tuple[str, ...], nodes: int, *more: str) -> str:
    options = _options(config, folder, nodes)
    head = "\n".join(f"#SBATCH {option}" for option in (*options, *more, *config.slurm.sbatch))
    body = "\n".join(("set -euo pipefail", f"cd {shlex.quote(str(Path.cwd()))}", *config.slurm.setup, *commands))
    return f"#!/bin/bash\n{head}\n{body}\n"


def _options(config: StudyConfig, folder: Path, nodes: int) -> Iterator[str]:
    slurm = config.slurm
    yield f"--job-name={shlex.quote(config.name)}"
    # sbatch cuts these lines at white space and comment signs outside quotes, and fills % in.
    yield f"--output={shlex.quote(folder.name.replace('%', '%%') + '-%j.log')}"
    yield f"--nodes={nodes}"
    yield "--ntasks-per-node=1"
    yield f"--cpus-per-task={slurm.cpus}"
    if slurm.gpus:
        yield f"--gpus-per-node={slurm.gpus}"
    asked = {"mem": slurm.memory, "time": slurm.time, "partition": slurm.partition, "account": slurm.account}
    yield from (f"--{name}={shlex.quote(value)}" for name, value in asked.items() if value is not None)
