"""The embedded corpus: exact packages, every definition, one normalisation, one order."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from baseline.data import docstrings
from baseline.data.errors import DataError
from baseline.data.integrity import Prepared
from baseline.data.prepare import prepare_docstrings
from baseline.data.shards import Shard, read_documents

REPOSITORY = Path(__file__).parents[2]


def install(site: Path, name: str, version: str, files: dict[str, str]) -> None:
    """Lay out a package as pip leaves it: its files, and a dist-info with the list of them."""
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
    info = site / f"{name}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in files))


def long_text(word: str) -> str:
    return (word + " ") * 60 + "end"


@pytest.fixture
def site(tmp_path: Path) -> Callable[..., Path]:
    """A site-packages folder with both pinned packages, some files of which may be given."""

    def make(folder: str = "site", *, pandas: str = "3.1.1", scipy: str = "1.17.1", **files: str) -> Path:
        root = tmp_path / folder
        sources = {f"pandas/{name}.py": text for name, text in files.items()} or {"pandas/__init__.py": ""}
        install(root, "pandas", pandas, sources)
        install(root, "scipy", scipy, {"scipy/__init__.py": f'"""{long_text("scipy")}"""'})
        return root

    return make


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The nano track's data, made from nothing."""
    return prepare_docstrings(tmp_path_factory.mktemp("nano"))


def texts_of(shards: Iterable[Shard]) -> list[str]:
    return [text for shard in shards for batch in read_documents(shard) for text in batch.texts]


class TestTheCorpus:
    def test_it_is_the_pinned_one(self, prepared: Prepared) -> None:
        split = docstrings.write_shards(prepared.folder / "documents")
        texts = texts_of((*split.train, *split.val))
        assert docstrings.digest_of(texts) == docstrings.CORPUS_SHA256
        assert len(texts) == len(set(texts)) == 5002
        assert sum(len(text.encode()) for text in texts) == 7_755_260
        assert min(len(text) for text in texts) > docstrings.MIN_CHARACTERS
        assert len(texts_of(split.val)) == 300

    def test_it_is_packed_into_the_same_rows_everywhere(self, prepared: Prepared) -> None:
        assert (prepared.train.rows, prepared.val.rows) == (3596, 232)
        assert prepared.train.rows_sha256.startswith("a8169a67a6")
        assert prepared.val.rows_sha256.startswith("1ddf7cc02b")

    def test_only_a_damaged_copy_is_written_again(self, prepared: Prepared, tmp_path: Path) -> None:
        folder = Path(shutil.copytree(prepared.folder / "documents", tmp_path / "documents"))
        before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
        split = docstrings.write_shards(folder)
        assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before

        victim = split.train[1].path
        whole = victim.read_bytes()
        victim.write_bytes(whole[: len(whole) // 2])
        assert docstrings.write_shards(folder) == split
        assert victim.read_bytes() == whole

    def test_extraction_does_not_import_the_packages(self, site: Callable[..., Path]) -> None:
        program = """
import sys
from pathlib import Path
from baseline.data.docstrings import extract
extract(Path(sys.argv[1]))
print("pandas" in sys.modules, "scipy" in sys.modules)
"""
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        result = subprocess.run([sys.executable, "-c", program, str(site())], capture_output=True, text=True, env=environment, check=True)
        assert result.stdout.split() == ["False", "False"]


class TestDefinitions:
    def test_modules_classes_functions_and_nested_ones_count(self) -> None:
        source = '''
"""module"""
class Outer:
    """outer"""
    def method(self):
        """method"""
        async def inner():
            """inner"""
if True:
    try:
        def guarded():
            """guarded"""
    except ImportError:
        def fallback():
            """fallback"""
x = "not a docstring"
def plain():
    """not kept, """ "joined"
    return "nor this"
'''
        found = set(docstrings.docstrings_of(source.encode(), "m.py"))
        assert found == {"module", "outer", "method", "inner", "guarded", "fallback", "not kept, joined"}

    def test_the_order_depends_on_the_texts_alone(self, site: Callable[..., Path]) -> None:
        one, two = (f'"""{long_text(word)}"""' for word in ("alpha", "beta"))
        first = docstrings.extract(site("first", a=one, b=two))
        second = docstrings.extract(site("second", a=two, b=one))
        assert len(first) == 3
        assert first == second

    def test_a_text_that_occurs_twice_is_one_document(self, site: Callable[..., Path]) -> None:
        text = f'"""{long_text("twice")}"""'
        assert docstrings.extract(site(a=text, b=text)).count(long_text("twice")) == 1

    def test_tests_and_short_texts_are_left_out(self, site: Callable[..., Path]) -> None:
        root = site(**{"a": '"""short"""', "tests/test_a": f'"""{long_text("tested")}"""'})
        assert docstrings.extract(root) == [long_text("scipy")]


class TestNormalisation:
    @pytest.mark.parametrize(
        ("raw", "clean"),
        [
            ("One line.", "One line."),
            ("\n    Summary.\n\n        Indented.\n    Back.\n    ", "Summary.\n\n    Indented.\nBack."),
            ("  First line has its own indentation.\n    Second.\n", "First line has its own indentation.\nSecond."),
            ("A.\n\tTab is eight blanks.\n        Same depth.", "A.\nTab is eight blanks.\nSame depth."),
            ("A.  \n    trailing   \n", "A.\ntrailing"),
            ("", ""),
        ],
    )
    def test_common_indentation_and_outer_blanks_go(self, raw: str, clean: str) -> None:
        assert docstrings.normalise(raw) == clean

    def test_line_ends_do_not_matter(self) -> None:
        source = b'"""One.\n\n   Two.\n"""\n'
        assert list(docstrings.docstrings_of(source.replace(b"\n", b"\r\n"), "m.py")) == list(docstrings.docstrings_of(source, "m.py"))


class TestErrors:
    def test_another_version_is_named_with_the_one_that_is_needed(self, site: Callable[..., Path]) -> None:
        with pytest.raises(
            DataError, match=r"pandas 3\.1\.1 is needed and 2\.2\.0 is installed.*pip install pandas==3\.1\.1 scipy==1\.17\.1"
        ):
            docstrings.extract(site(pandas="2.2.0"))

    def test_missing_packages_are_all_named(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"pandas 3\.1\.1 is needed and is not installed; scipy 1\.17\.1 is needed and is not installed"
        ):
            docstrings.extract(tmp_path)

    def test_an_edited_package_is_noticed(self, site: Callable[..., Path], tmp_path: Path) -> None:
        with pytest.raises(DataError, match="an installed file has been changed"):
            docstrings.write_shards(tmp_path / "out", site())

    def test_a_file_that_the_package_lists_but_lacks_is_named(self, site: Callable[..., Path]) -> None:
        root = site(a='"""x"""')
        (root / "pandas/a.py").unlink()
        with pytest.raises(DataError, match=r"a\.py cannot be read"):
            docstrings.extract(root)
