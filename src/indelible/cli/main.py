"""The program: collects the commands, and ends every user mistake in one line and exit code 2."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand

from indelible.cli.terminal import say
from indelible.errors import IndelibleError, PluginWarning

USER_ERROR = 2
_QUICK = ("models", "plan", "runs")
"""Commands that load nothing heavy."""
INTERRUPTED = 130
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
        if sys.stderr.isatty() and ctx.info_name not in _QUICK:
            say(f"{ctx.command_path}: starting ...", err=True)
        return super().invoke(ctx)

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


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line: what was typed after the program's name, or (None) what the process was given.

    Returns:
        the exit code: 0, 1 when a step of a study failed, 2 after a user mistake, 130 when interrupted.
    """
    shown = warnings.showwarning
    warnings.showwarning = partial(_warn, shown)
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="indelible", standalone_mode=False)
    except IndelibleError as error:
        return _complain(str(error))
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.ENAMETOOLONG):  # what nobody asks a path before it is used
            raise
        return _complain(f"{error.filename} cannot be used: {error.strerror}. Check its name and permissions.")
    except (typer.Abort, KeyboardInterrupt):
        say("Interrupted.", err=True)
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
    finally:
        warnings.showwarning = shown
    return code if isinstance(code, int) else 0


def _warn(otherwise: Any, message: Warning | str, category: type[Warning], *where: Any) -> None:
    """What a user can mend is one line; other warnings are shown as ever."""
    if issubclass(category, PluginWarning):
        say(f"Warning: {message}", err=True)
    else:
        otherwise(message, category, *where)


def _complain(message: str) -> int:
    say(f"Error: {' '.join(message.split())}", err=True)
    return USER_ERROR
