"""The program: all commands, collected for the help and for whoever types one."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

from indelible.cli.terminal import say
from indelible.errors import ConfigError, Stopped
from indelible.launched import processes

USER_ERROR, INTERRUPTED = 2, 130
_QUICK = ("models", "plan", "runs")
"""Commands that load nothing heavy."""
_COMMANDS = (
    *("commands.study", "commands.report", "deltas.edit", "deltas.apply", "deltas.revert", "deltas.verify"),
    *("deltas.audit", "deltas.diff", "deltas.export", "deltas.push", "commands.advise", "deltas.repair"),
    *(
        "commands.explain",
        "deltas.compose",
        "commands.locate",
        "commands.plan",
        "commands.runs",
        "commands.models",
        "commands.facts",
        "commands.lm_eval",
    ),
)
"""In the order of the help; each is the function of its module's name."""

app = typer.Typer(
    name="indelible",
    help="Do your model edits survive fine-tuning? Edit facts, fine-tune, and measure what is retained.",
    epilog="Start with: indelible study quick",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class _Command(TyperCommand):
    """A command whose help ends with its examples and the names that it knows, plug-ins' included."""

    def invoke(self, ctx: Any) -> Any:
        """Say something at once: what most commands load first takes seconds."""
        if processes() > 1 and ctx.info_name != "study":
            raise ConfigError(
                f"{ctx.command_path} is done by one process, and {processes()} were launched.",
                "Start it without `accelerate launch`, which is for a study.",
            )
        if sys.stderr.isatty() and ctx.info_name not in _QUICK:
            say(f"{ctx.command_path}: starting ...", err=True)
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:  # typer would end in silence
            raise Stopped from None

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Look names up now: nobody else needs them."""
        module = sys.modules[self.callback.__module__]
        paragraphs = (*module.EXAMPLES, *getattr(module, "names", tuple)())
        self.epilog = "\n\n".join(paragraphs)
        super().format_help(ctx, formatter)


for _place in _COMMANDS:
    app.command(cls=_Command)(getattr(import_module(f"indelible.cli.{_place}"), _place.partition(".")[2]))


def _version(asked: bool) -> None:
    if asked:
        from indelible import __version__

        say(f"indelible {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def run(arguments: Sequence[str] | None) -> int:
    """Do what was typed after the program's name; returns the exit code.

    Raises:
        IndelibleError: after a user mistake.
        Stopped: after Ctrl-C.
    """
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="indelible", standalone_mode=False)
    except typer.Abort:
        raise Stopped from None
    except Exception as error:
        # What is wrong with the words on the command line comes as click's usage errors; which copy of click they
        # come from differs between versions of typer, but not what they offer.
        if not hasattr(error, "format_message"):
            raise
        message = error.format_message().rstrip(".")
        command = getattr(getattr(error, "ctx", None), "command_path", "indelible")
        if not message:  # without a command: the help, which has been printed, says it all
            return USER_ERROR
        raise ConfigError(f"{message}.", f"See `{command} --help`.") from None
    if code == INTERRUPTED:  # what typer makes of Ctrl-C outside of a command, such as while words are parsed
        raise Stopped
    return code if isinstance(code, int) else 0
