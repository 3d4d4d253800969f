"""The program: collects the commands, and ends every user mistake in one line and exit code 2."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from indelible.cli.commands.apply import apply
from indelible.cli.commands.compose import compose
from indelible.cli.commands.edit import edit
from indelible.cli.commands.explain import explain
from indelible.cli.commands.facts import FORMAT_HELP, facts
from indelible.cli.commands.locate import locate
from indelible.cli.commands.models import models
from indelible.cli.commands.plan import plan
from indelible.cli.commands.report import report
from indelible.cli.commands.revert import revert
from indelible.cli.commands.study import study
from indelible.cli.commands.verify import verify
from indelible.errors import IndelibleError

USER_ERROR = 2
INTERRUPTED = 130

app = typer.Typer(
    name="indelible",
    help="Do your model edits survive fine-tuning? Edit facts, fine-tune, and measure what is retained.",
    epilog="Start with: indelible study quick",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)
_NEW_LINES = "\n\n"
app.command(
    epilog=_NEW_LINES.join(
        (
            "Examples:",
            "`indelible study quick` runs the built-in study into runs/quick",
            "`indelible study my.yaml --dry-run` shows the steps, and which are already done",
            "`indelible study quick --set tuning.steps=20 --set arms.memit.mask=edited-weights --out runs/try`",
            "`indelible study quick --json > summary.json`",
        )
    )
)(study)
app.command(epilog="Example: `indelible report runs/quick`")(report)
app.command(
    epilog=_NEW_LINES.join(
        (
            "Examples:",
            "`indelible edit smollm2-135m --facts my.jsonl --editor memit -o deltas/mine`",
            "`indelible edit smollm2-135m --facts counterfact.jsonl --limit 24 --editor pmet --paraphrases 3 -o d`",
            "`indelible edit gpt2 --facts my.csv --editor rome --set layer=5 --bystanders 0 -o d`",
            "`indelible edit gpt2 --facts my.csv --column true_object=was --column new_object=is --editor rome -o d`",
            *FORMAT_HELP,
        )
    )
)(edit)
app.command(epilog="Example: `indelible apply smollm2-135m deltas/mine -o edited`")(apply)
app.command(epilog="Example: `indelible revert edited deltas/mine -o original`")(revert)
app.command(epilog="Example: `indelible verify my-fine-tuned-model deltas/mine`")(verify)
app.command(
    epilog=_NEW_LINES.join(
        (
            "Examples:",
            "`indelible explain edited my-fine-tuned-model --edit deltas/mine --mask-forecast`",
            "`indelible explain smollm2-135m my-fine-tuned-model --edit deltas/mine --json > explained.json`",
        )
    )
)(explain)
app.command(epilog="Example: `indelible compose smollm2-135m deltas/a deltas/b -o deltas/both`")(compose)
app.command(
    epilog=_NEW_LINES.join(
        (
            "Examples:",
            "`indelible locate smollm2-135m` traces built-in facts that the model knows into traces/",
            "`indelible locate gpt2 --facts my.jsonl --kind mlp --samples 10 -o traces/gpt2`",
        )
    )
)(locate)
app.command(
    epilog=_NEW_LINES.join(
        (
            "Examples:",
            "`indelible plan --gap 0.1` for a gap of ten points",
            "`indelible plan --gap 0.05 --from runs/quick` with the rates and the spread of a finished run",
        )
    )
)(plan)
app.command(epilog="Example: `indelible models`")(models)
app.command(
    epilog=_NEW_LINES.join(
        (
            "Examples:",
            "`indelible facts --known-by smollm2-135m` asks the model every fact",
            "`indelible facts --file my.jsonl` checks a file of your own",
            *FORMAT_HELP,
        )
    )
)(facts)


def _version(asked: bool) -> None:
    if asked:
        from indelible import __version__

        typer.echo(f"indelible {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        arguments: what was typed after the program's name; None takes it from the process.

    Returns:
        the exit code: 0 when all went well, 1 when a step of a study failed, 2 after a user mistake, 130 when
        interrupted.
    """
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="indelible", standalone_mode=False)
    except IndelibleError as error:
        return _complain(str(error))
    except (typer.Abort, KeyboardInterrupt):
        print("Interrupted.", file=sys.stderr)  # noqa: T201
        return INTERRUPTED
    except Exception as error:
        # What is wrong with the words on the command line comes as click's usage errors; which copy of click they
        # come from differs between versions of typer, but not what they offer.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().rstrip(".")
        command = getattr(getattr(error, "ctx", None), "command_path", "indelible")
        # Without a command there is no message: the help, which has been printed, says it all.
        return _complain(f"{message}. See `{command} --help`.") if message else USER_ERROR
    return code if isinstance(code, int) else 0


def _complain(message: str) -> int:
    print(f"Error: {' '.join(message.split())}", file=sys.stderr)  # noqa: T201
    return USER_ERROR
