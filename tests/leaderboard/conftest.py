"""Databases and a built site that the tests of this room share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from leaderboard.database import Database
from leaderboard.merged import MergedDatabase
from leaderboard.site.build import build_site
from tests.leaderboard import samples
from tests.leaderboard.html_reader import Document, read_page

COMMITTED = Path(__file__).parents[2] / "leaderboard"


@pytest.fixture
def db(tmp_path: Path) -> Database:
    """An empty database."""
    return Database(tmp_path / "db")


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """A database of samples, to be read only."""
    db = Database(tmp_path_factory.mktemp("results") / "db")
    samples.fill(db)
    return db


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """The committed findings and history; not the committed records, which grow."""
    root = tmp_path_factory.mktemp("archive") / "db"
    for room in ("findings", "history"):
        shutil.copytree(COMMITTED / room, root / room)
    return Database(root)


@pytest.fixture(scope="session")
def results(filled: Database, archive: Database) -> MergedDatabase:
    """The samples over the archive."""
    return MergedDatabase([filled, archive])


@pytest.fixture(scope="session")
def site(results: MergedDatabase, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of `results`, to be read only."""
    out = tmp_path_factory.mktemp("built") / "site"
    report = build_site(results, samples.TRACKS, samples.RULES, out)
    assert report.files == sum(path.is_file() for path in out.rglob("*"))
    assert report.pages == len(list(out.glob("*.html")))
    return out


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[str, Document]:
    """Its pages by name, read strictly."""
    return {path.name: read_page(path) for path in sorted(site.glob("*.html"))}
