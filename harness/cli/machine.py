"""`speedrun doctor`: what this machine can run, and what is missing."""

from __future__ import annotations

from dataclasses import asdict

import click
from rich.console import Console
from rich.table import Table

from harness.cli.options import json_option, print_json
from harness.environment import describe_machine
from harness.errors import MachineLacks
from harness.launch import REPOSITORY

MARKS = {"ok": "[green]ok[/]", "limited": "[yellow]limited[/]", "missing": "[red]missing[/]"}


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Say what this machine can run, and what is missing. Exit code 4 where nothing can be trained."""
    checks = describe_machine(REPOSITORY)
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        table = Table("", "found", "to mend", box=None, pad_edge=False)
        for check in checks:
            table.add_row(f"{MARKS[check.state]} {check.name}", check.detail, check.mend)
        Console().print(table)
    torch = next(check for check in checks if check.name == "torch")
    if torch.state == "missing":
        raise MachineLacks("torch is not installed, and nothing trains without it", mend=torch.mend)
