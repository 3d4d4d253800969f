"""``indelible report``: write a run's report anew from its tables, or put two runs on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from indelible.cli.terminal import say
from indelible.errors import ConfigError

EXAMPLES = ("Example: `indelible report runs/quick`",)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN [OTHER]", help="A run folder, e.g. runs/quick, or two.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Of two runs: the page to write. By default comparison.html in OTHER."),
    ] = None,
    claims: Annotated[
        Path | None, typer.Option(help="YAML file of claims to judge beside the built-in ones and the study's own.")
    ] = None,
) -> None:
    """Write report.html, summary.json, figures/ and tables/ again: of a finished study, or of what is finished of one.

    With two runs, write one page that compares them arm by arm.
    """
    from indelible.claims.claim import read_claims
    from indelible.report.folder import REPORT, write_comparison
    from indelible.report.results import changed_since
    from indelible.study.reporting import report_run

    if len(runs) > 2:
        raise ConfigError(f"{len(runs)} runs are given.", "Give one to report on, or two to compare.")
    if len(runs) == 2:
        if claims is not None:
            raise ConfigError(f"--claims {claims} is for one run.", "Give one run, or leave it out.")
        say(f"Comparison: {write_comparison(runs[0], runs[1], out or runs[1] / 'comparison.html')}")
        return
    if out is not None:
        raise ConfigError(f"--out {out} is for two runs; one run's report belongs in its folder.", "Leave it out.")
    changed = changed_since(runs[0])
    run = report_run(runs[0], () if claims is None else read_claims(claims))
    if run.unfinished:
        say(run.unfinished)
    if changed:
        say(f"Written anew, as it was no longer as it was written: {', '.join(changed)}", err=True)
    say(f"Report: {runs[0] / REPORT}")
