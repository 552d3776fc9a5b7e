"""The command group: its commands, and the one place where errors become one line and an exit code."""

from __future__ import annotations

import signal
import sys
from typing import Any

import click

from baseline.data.errors import DataError
from harness.cli.board import board
from harness.cli.data import data
from harness.cli.evaluate import evaluate
from harness.cli.machine import doctor
from harness.cli.running import calibrate, run, submit, verify
from harness.cli.sample import sample
from harness.cli.submissions import check, explain, new
from harness.errors import SpeedrunError, one_line
from leaderboard.documents import DatabaseError

LACKS = 4
INTERRUPTED = 5


class OneLineErrors(click.Group):
    """Turns expected errors into `speedrun: …` on stderr and their exit code; `--debug` keeps the traceback."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except SpeedrunError as error:
            return _leave(context, str(error), error.exit_code, error)
        except (DataError, DatabaseError) as error:
            return _leave(context, one_line(str(error)), LACKS, error)
        except PermissionError as error:
            return _leave(context, f"{error.filename or 'this machine'}: not permitted; choose another folder", LACKS, error)
        except OSError as error:
            return _leave(context, one_line(f"{error.filename or 'this machine'}: {error.strerror or error}"), LACKS, error)
        except KeyboardInterrupt as error:
            return _leave(context, "interrupted", INTERRUPTED, error)


def _leave(context: click.Context, line: str, code: int, error: BaseException) -> None:
    if context.params.get("debug"):
        raise error
    click.echo(f"speedrun: {line}", err=True)
    context.exit(code)


@click.group(cls=OneLineErrors, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show a traceback instead of one line.")
@click.version_option(package_name="speedrun")
def main(debug: bool) -> None:
    """Race a small change against a frozen baseline, prove it, and publish it on a board that anyone can audit."""
    for stop in (signal.SIGTERM, signal.SIGINT):  # SIGINT too: a shell starts background jobs with it ignored
        signal.signal(stop, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


for command in (new, check, explain, run, submit, verify, calibrate, sample, board, data, doctor, evaluate):
    main.add_command(command)

if __name__ == "__main__":
    sys.exit(main())
