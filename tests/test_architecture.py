"""What holds for the repository as a whole: the arrows between rooms, the lock, the size of files, the promises of the README."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from importlinter.cli import lint_imports

from harness.cli import main

ROOT = Path(__file__).resolve().parent.parent
LONGEST_FILE_LINES = 450
VAGUE_NAMES = {"utils", "util", "helpers", "helper", "common", "misc", "stuff"}


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [ROOT / line for line in listed.stdout.splitlines() if (ROOT / line).is_file()]


def commands(group: click.Group = main, prefix: str = "speedrun") -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    for name, command in sorted(group.commands.items()):
        found += commands(command, f"{prefix} {name}") if isinstance(command, click.Group) else [(f"{prefix} {name}", command)]
    return found


def test_imports_between_rooms_go_one_way() -> None:
    assert lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True) == 0


def test_the_lock_has_exact_pins_and_nothing_else() -> None:
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[A-Za-z0-9_.+!-]+", line), line


def test_the_lock_pins_what_the_project_and_its_tests_require() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["dev"]]
    names = {re.split(r"[>=<; ]", requirement)[0].lower().replace("_", "-") for requirement in required}
    locked = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / "requirements.lock").read_text().splitlines()}
    assert sorted(names - locked) == []


def test_files_are_short_and_named_for_what_they_hold() -> None:
    python = [path for path in tracked_files() if path.suffix == ".py"]
    long = {path.relative_to(ROOT).as_posix(): n for path in python if (n := len(path.read_text().splitlines())) > LONGEST_FILE_LINES}
    assert long == {}
    assert [path for path in python if path.stem in VAGUE_NAMES] == []


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_has_help_json_and_a_line_in_the_command_reference(name: str, command: click.Command) -> None:
    assert command.help, f"{name} has no help"
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"{name} {parameter.opts[0]} has no help"
    assert "--json" in {option for parameter in command.params for option in parameter.opts}
    assert f"## {name}\n" in (ROOT / "docs" / "commands.md").read_text()


def test_the_command_reference_is_up_to_date() -> None:
    written = subprocess.run([sys.executable, "-m", "harness.cli.reference"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert written == (ROOT / "docs" / "commands.md").read_text(), "run `python -m harness.cli.reference > docs/commands.md`"


def test_the_training_process_needs_neither_package_that_holds_the_text() -> None:
    """The sandbox can then hide both. A fresh interpreter imports everything a rank runs."""
    code = (
        "import sys, importlib\n"
        "for name in ('train', 'serve', 'inspection', 'standalone'): importlib.import_module(f'baseline.{name}')\n"
        "print(sorted({'pandas', 'scipy', 'pyarrow', 'rustbpe', 'tiktoken', 'harness', 'leaderboard'} & set(sys.modules)))\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert shown.strip() == "[]"


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_everything_that_a_document_links_to_is_there(document: str) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / document).read_text())
    assert links
    assert [link for link in links if not link.startswith("https://") and not (ROOT / link).exists()] == []


def test_the_readme_opens_with_the_two_commands() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.index("make speedrun") < readme.index("make test") < readme.index("## Enter in five minutes")
    makefile = (ROOT / "Makefile").read_text()
    assert "\nspeedrun:" in makefile
    assert "\ntest:" in makefile
