"""Submissions on disk, for tests of what reads them; and real runs at a tiny size."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.environment import read_environment
from harness.launch import REPOSITORY
from harness.prepared import PreparedData
from harness.submission import Submission
from harness.track import Track, load_track
from tests.harness.tiny_runs import TinyRuns, nano_data, tiny, write_tiny_submission

MANIFEST = """\
name = "{name}"
title = "Mine"
summary = "What changed."

[[author]]
name = "somebody"
"""

WriteSubmission = Callable[..., Path]
SubmissionFolder = Callable[[dict[str, str]], Submission]


@pytest.fixture
def write_submission(tmp_path: Path) -> WriteSubmission:
    """`write_submission(**files, manifest=…, name=…)`: a folder; slot files by slot, `manifest` replaces submission.toml."""

    def write(name: str = "mine", manifest: str | bytes = MANIFEST, **slots: str | bytes) -> Path:
        folder = tmp_path / "submissions" / name
        folder.mkdir(parents=True)
        text = manifest if isinstance(manifest, bytes) else manifest.replace("{name}", name).encode()
        files = {"submission.toml": text, "README.md": b"# Mine\n", **{f"{slot}.py": content for slot, content in slots.items()}}
        for file, content in files.items():
            (folder / file).write_bytes(content if isinstance(content, bytes) else content.encode())
        return folder

    return write


@pytest.fixture(scope="session")
def tiny_track() -> Track:
    """The nano track at a few steps of a small model."""
    return tiny(load_track("nano"))


@pytest.fixture(scope="session")
def prepared_data(tmp_path_factory: pytest.TempPathFactory) -> PreparedData:
    """The nano track's rows and tokenizer, verified."""
    return nano_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def session_submission(tmp_path_factory: pytest.TempPathFactory) -> SubmissionFolder:
    """`session_submission({slot: code})`: a loaded submission with these slot files."""
    return lambda slots: write_tiny_submission(tmp_path_factory.mktemp("submissions") / "tiny", slots)


@pytest.fixture(scope="session")
def private_tmp() -> Iterator[Path]:
    """The temporary folder of this session's runs, so that what they leave there can be seen. Short: socket paths have 100 characters."""
    folder = Path(tempfile.mkdtemp(prefix="tiny-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def tiny_runs(tiny_track: Track, prepared_data: PreparedData, private_tmp: Path, tmp_path_factory: pytest.TempPathFactory) -> TinyRuns:
    """`tiny_runs.perform(submission, index)`: a real run of 6 steps on two processes."""
    return TinyRuns(tiny_track, prepared_data, read_environment(REPOSITORY), tmp_path_factory.mktemp("work"))
