"""The command group, and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

import click

from mmucheck import __version__
from mmucheck.cli import common, signals

_COMMANDS = {
    "check": "check", "explain": "explain", "matrix": "matrix", "cost": "cost", "hunks": "hunks", "certify": "certify",
    "verify-certificate": "verify",
}  # fmt: skip
"""Each command's module below mmucheck.cli: only the one asked for is loaded."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"mmucheck.cli.{_COMMANDS[cmd_name]}")
        command = getattr(module, cmd_name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="mmucheck")
def cli() -> None:
    """Decide whether Linux mmu_notifier calls stand where they must.

    \b
    mmucheck check specs/                         decide every check below a directory
    mmucheck check specs/cow.mmu::cow::after      decide one
    mmucheck explain specs/cow.mmu::cow::after    the trace, or what was proved
    mmucheck matrix --protocol v3_17              all paths against all devices

    \b
    Exit codes: 0 all as expected, 1 an unexpected verdict, 2 bad input or usage,
    3 inconclusive or bounded, 4 internal error, 130 interrupted, 143 terminated.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises."""
    if sys.stdout is None or sys.stderr is None:  # closed by who called: the exit code is all that is wanted
        nowhere = open(os.devnull, "w")  # noqa: SIM115
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    gc.set_threshold(200_000, 20, 20)  # trees and terms live as long as the run: looking for garbage among them only costs time
    try:
        with signals.handled():
            code = cli.main(arguments if arguments is None else list(arguments), "mmucheck", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt) as stop:
        click.echo("mmucheck: interrupted", err=True)
        return signals.code_of(stop)
    except click.ClickException as error:
        error.show()
        return common.BAD_INPUT
    except Exception as error:
        return common.failure(error)
    return code if isinstance(code, int) else common.AS_EXPECTED


def script() -> NoReturn:
    """The command: ``main`` with its code. Formulas are not taken apart at the end, which would take a tenth of a short run."""
    code = main()
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        if "multiprocessing" not in sys.modules:  # it has things of its own to end
            os._exit(code)
    sys.exit(code)
