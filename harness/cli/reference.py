"""Prints docs/commands.md: the help text of every command, so that the reference cannot go stale."""

from __future__ import annotations

from collections.abc import Iterator

import click

from harness.cli.main import main

WIDTH = 100


def reference() -> str:
    """The whole document."""
    head = "# Commands\n\nGenerated: `python -m harness.cli.reference > docs/commands.md`.\n"
    return head + "".join(f"\n## {name}\n\n```\n{text.rstrip()}\n```\n" for name, text in helps(main, "speedrun"))


def helps(group: click.Group, prefix: str) -> Iterator[tuple[str, str]]:
    """(full name, help text) of every command below a group, sorted."""
    for name, command in sorted(group.commands.items()):
        full = f"{prefix} {name}"
        if isinstance(command, click.Group):
            yield from helps(command, full)
        else:
            with click.Context(command, info_name=full, terminal_width=WIDTH, max_content_width=WIDTH) as context:
                yield full, command.get_help(context)


if __name__ == "__main__":
    click.echo(reference(), nl=False)
