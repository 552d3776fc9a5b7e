"""The commands that train nothing: `new`, `check`, `explain`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape
from rich.syntax import Syntax
from rich.table import Table

from harness.check import check as check_submission
from harness.check import explain as explain_report
from harness.check import load_parent
from harness.cli.options import SUBMISSIONS, json_option, print_json, track_option
from harness.scaffold import new_submission
from harness.submission import Submission
from harness.track import load_track

PATH = click.Path(path_type=Path)


@click.command()
@click.argument("name")
@json_option
def new(name: str, as_json: bool) -> None:
    """Make submissions/NAME, an untouched copy of the baseline to change."""
    folder = new_submission(name, SUBMISSIONS)
    if as_json:
        print_json({"folder": folder})
        return
    shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    click.echo(f"{shown} is ready. Next: change a slot, then\n  speedrun check {shown}\n  speedrun submit {shown}")


@click.command()
@click.argument("path", type=PATH)
@track_option
@json_option
def check(path: Path, track_name: str, as_json: bool) -> None:
    """Check PATH against rules and contract, without training."""
    report = check_submission(Submission.load(path), load_track(track_name))
    if as_json:
        print_json({"ok": report.ok, "refusals": report.refusals, "warnings": report.warnings, "digest": report.submission.digest})
    else:
        for line in report.warnings:
            click.echo(f"warning: {line}")
        for line in report.refusals:
            click.echo(f"refused: {line}")
        if report.ok:
            slots = ", ".join(report.submission.slots) or "no slot: it is the baseline"
            click.echo(f"{report.submission.name} keeps the rules and the contract of {track_name}. It overrides {slots}.")
    if error := report.error():
        raise error


@click.command()
@click.argument("path", type=PATH)
@track_option
@json_option
def explain(path: Path, track_name: str, as_json: bool) -> None:
    """Show what PATH overrides: slots, config, hyper-parameters, and the diff against its parent."""
    track = load_track(track_name)
    submission = Submission.load(path)
    report = check_submission(submission, track)
    if error := report.error():
        raise error
    explanation = explain_report(report, track, load_parent(submission))
    if as_json:
        values = {name: getattr(explanation, name) for name in explanation.__slots__ if name not in ("differences", "components")}
        components = [component.model_dump() for component in explanation.components]
        print_json({**values, "components": components, "differences": [asdict(difference) for difference in explanation.differences]})
        return
    console = Console()
    console.print(f"[bold]{escape(submission.title)}[/] ({submission.name}, parent {explanation.parent or 'none'})")
    console.print(
        f"slots: {', '.join(explanation.slots) or 'none'}; {explanation.diff_lines} lines changed; {explanation.parameters:,} parameters"
    )
    if explanation.components:
        table = Table("component", "what it is", title="Components")
        for component in explanation.components:
            table.add_row(component.name, component.summary)
        console.print(table)
    table = Table("field", track.title, submission.name, title="Resolved config; changed values are bold")
    for name, value in explanation.hyperparameters.items():
        before = explanation.config_changes.get(name, (value, value))[0]
        table.add_row(name, before, value, style="bold" if name in explanation.config_changes else "dim")
    console.print(table)
    for difference in explanation.differences:
        console.print(f"[bold]{difference.slot}[/]")
        console.print(Syntax(difference.diff, "diff"))
