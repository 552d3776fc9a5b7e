"""The freeze of the baseline: any difference refuses a run and names the file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from harness.errors import MachineLacks
from harness.frozen import BASELINE, pin_tracks, require_frozen, trainer_files, write_list
from harness.launch import REPOSITORY
from harness.rules.imports import OPEN_BASELINE
from harness.track import TRACKS_FOLDER, load_track, track_names

FILES = {
    "__init__.py": "",
    "train.py": "import json\nimport baseline.model\nfrom baseline.data import rows\n\ndef alone():\n    import baseline.standalone\n",
    "model.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from baseline.generate import Cache\n",
    "generate.py": "cache()\n",
    "standalone.py": "alone()\n",
    "data/__init__.py": "",
    "data/rows.py": "rows()\n",
    "data/packing.py": "pack()\n",
}
FROZEN = {"__init__.py", "train.py", "model.py", "generate.py", "data/__init__.py", "data/rows.py"}


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    """A small baseline."""
    for name, content in FILES.items():
        (tmp_path / "baseline" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "baseline" / name).write_text(content)
    return tmp_path / "baseline"


def test_a_baseline_that_was_just_frozen_passes(baseline: Path) -> None:
    require_frozen(write_list(baseline), baseline)


def test_what_the_entry_points_import_is_frozen_and_what_they_load_later_or_never_is_not(baseline: Path) -> None:
    assert set(trainer_files(baseline)) == FROZEN


def test_the_digest_depends_on_names_and_contents_alone(baseline: Path, tmp_path: Path) -> None:
    digest = write_list(baseline)
    copy = shutil.copytree(baseline, tmp_path / "elsewhere" / "baseline")
    assert write_list(copy) == digest
    (copy / "train.py").rename(copy / "serve.py")
    assert write_list(copy) != digest


def test_a_changed_file_is_named(baseline: Path) -> None:
    digest = write_list(baseline)
    (baseline / "model.py").write_text("model()\n")
    with pytest.raises(MachineLacks, match=r"^baseline/model.py: was changed since the baseline was frozen"):
        require_frozen(digest, baseline)


def test_an_added_file_is_named(baseline: Path) -> None:
    digest = write_list(baseline)
    (baseline / "serve.py").write_text("")
    with pytest.raises(MachineLacks, match=r"^baseline/serve.py: was added since the baseline was frozen"):
        require_frozen(digest, baseline)


@pytest.mark.parametrize("rival", ["model", "data/rows", "model" + EXTENSION_SUFFIXES[0]])
def test_what_python_would_load_in_place_of_a_frozen_module_is_named(rival: str, baseline: Path) -> None:
    digest = write_list(baseline)
    (baseline / rival).mkdir()
    with pytest.raises(MachineLacks, match=rf"^baseline/{rival}: was added since the baseline was frozen"):
        require_frozen(digest, baseline)


def test_a_missing_file_is_named(baseline: Path) -> None:
    digest = write_list(baseline)
    (baseline / "data" / "rows.py").unlink()
    with pytest.raises(MachineLacks, match=r"^baseline/data/rows.py: is missing since the baseline was frozen"):
        require_frozen(digest, baseline)


def test_a_list_that_was_edited_along_with_a_file_is_not_the_one_that_the_track_pins(baseline: Path) -> None:
    pinned = write_list(baseline)
    (baseline / "model.py").write_text("faster()\n")
    write_list(baseline)
    with pytest.raises(MachineLacks, match=r"^baseline/frozen.toml: the track pins another baseline"):
        require_frozen(pinned, baseline)


@pytest.mark.parametrize("content", [None, "no TOML", "[other]\n"])
def test_a_list_that_cannot_be_read_is_named(content: str | None, baseline: Path) -> None:
    if content is not None:
        (baseline / "frozen.toml").write_text(content)
    with pytest.raises(MachineLacks, match=r"^baseline/frozen.toml: cannot be read"):
        require_frozen("0" * 64, baseline)


def test_preparation_is_pinned_by_its_output_and_not_frozen(baseline: Path) -> None:
    digest = write_list(baseline)
    (baseline / "data" / "packing.py").write_text("pack_better()\n")
    require_frozen(digest, baseline)


def test_pinning_changes_one_line_of_each_track(tmp_path: Path) -> None:
    for path in TRACKS_FOLDER.glob("*.toml"):
        shutil.copy(path, tmp_path)
    pin_tracks("f" * 64, tmp_path)
    for name in track_names():
        before, after = ((folder / f"{name}.toml").read_text().splitlines() for folder in (TRACKS_FOLDER, tmp_path))
        changed = [new for old, new in zip(before, after, strict=True) if old != new]
        assert changed == [f'baseline_digest = "{"f" * 64}"']


@pytest.mark.parametrize("name", track_names())
def test_the_baseline_of_this_repository_is_the_one_that_its_tracks_pin(name: str) -> None:
    require_frozen(load_track(name).baseline_digest)


def test_every_file_that_a_run_loads_is_frozen_and_so_is_what_a_slot_may_import() -> None:
    code = (
        "import sys, baseline.train, baseline.serve, baseline.inspection; "
        "print(*(m.__file__ for n, m in sys.modules.items() if n.split('.')[0] == 'baseline'))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    loaded = {Path(file).relative_to(BASELINE).as_posix() for file in done.stdout.split()}
    assert "loop.py" in loaded
    assert loaded | {f"{name}.py" for name in OPEN_BASELINE} == set(trainer_files())
