"""The output folder: replaced at once, and never somebody's files."""

from __future__ import annotations

import pytest

from leaderboard.site.archive import SiteError
from leaderboard.site.folder import replace_folder

OLD = {"index.json": b"1", "static/board.css": b"old", "gone.html": b"old"}
NEW = {"index.json": b"2", "static/board.css": b"new", "data/deep/er.json": b"new"}


def content(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_earlier_build_is_replaced_whole(tmp_path):
    replace_folder(tmp_path / "a" / "site", OLD)
    replace_folder(tmp_path / "a" / "site", NEW)
    assert content(tmp_path / "a" / "site") == NEW
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["site"]


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "site").mkdir()
    replace_folder(tmp_path / "site", NEW)
    assert content(tmp_path / "site") == NEW


def test_a_build_that_fails_leaves_the_old_site(tmp_path):
    replace_folder(tmp_path / "site", OLD)
    with pytest.raises(SiteError, match="cannot be written"):
        replace_folder(tmp_path / "site", {**NEW, "index.json/x": b"a file cannot be a folder"})
    assert content(tmp_path / "site") == OLD
    assert [path.name for path in tmp_path.iterdir()] == ["site"]


@pytest.mark.parametrize("foreign", ["thesis.tex", ".git/HEAD"])
def test_somebodys_files_are_refused(tmp_path, foreign):
    path = tmp_path / "site" / foreign
    path.parent.mkdir(parents=True)
    path.write_bytes(b"mine")
    with pytest.raises(SiteError, match="holds something that is not a site"):
        replace_folder(tmp_path / "site", NEW)
    assert content(tmp_path / "site") == {foreign: b"mine"}


def test_a_checkout_is_refused_even_when_it_holds_a_site(tmp_path):
    replace_folder(tmp_path / "site", OLD)
    (tmp_path / "site" / ".git").mkdir()
    with pytest.raises(SiteError, match="not a site"):
        replace_folder(tmp_path / "site", NEW)


def test_a_file_or_a_link_in_its_place_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(SiteError, match="--out"):
            replace_folder(tmp_path / name, NEW)


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(SiteError, match="cannot be written"):
        replace_folder(tmp_path / "file" / "site", NEW)
