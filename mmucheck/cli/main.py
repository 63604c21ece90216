"""The command group, and the one place where errors become exit codes."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Sequence

import click

from mmucheck import __version__
from mmucheck.cli import common
from mmucheck.cli.certify import certify, verify_certificate
from mmucheck.cli.check import check
from mmucheck.cli.cost import cost
from mmucheck.cli.explain import explain
from mmucheck.cli.hunks import hunks
from mmucheck.cli.matrix import matrix


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
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
    3 inconclusive or bounded, 4 internal error, 130 interrupted.
    """


for _command in (check, explain, matrix, cost, hunks, certify, verify_certificate):
    cli.add_command(_command)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; never raises."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    gc.set_threshold(50_000, 20, 20)  # trees and terms live as long as the run: looking for garbage among them only costs time
    try:
        code = cli.main(arguments if arguments is None else list(arguments), "mmucheck", standalone_mode=False)
    except (click.Abort, KeyboardInterrupt):
        click.echo("mmucheck: interrupted", err=True)
        return common.INTERRUPTED
    except click.ClickException as error:
        error.show()
        return common.BAD_INPUT
    except Exception as error:
        return common.failure(error)
    return code if isinstance(code, int) else common.AS_EXPECTED
