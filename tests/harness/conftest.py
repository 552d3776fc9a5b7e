"""Submissions on disk, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

MANIFEST = """\
name = "{name}"
title = "Mine"
summary = "What changed."

[[author]]
name = "somebody"
"""

WriteSubmission = Callable[..., Path]


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
