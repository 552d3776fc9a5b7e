"""`speedrun data` for public shards: brought, pinned, damaged, foreign or missing; the real command in a copy of the code, offline."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.cli.data import prepare_with_bars
from harness.errors import MachineLacks, UsageProblem
from harness.track import load_track

ROOT = Path(__file__).resolve().parents[2]
SHARDS = ["shard_00000.parquet", "shard_00001.parquet", "shard_06542.parquet"]
SMALL = {"train_shards": 2, "vocab_size": 300, "sequence_len": 64, "val_rows": 20}
"""What the copy's track gpu1 says in its [data] section."""


@dataclass(frozen=True)
class Checkout:
    """A copy of the code with a small gpu1 track, offline."""

    root: Path

    def speedrun(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(self.root), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}
        offline = {"HF_ENDPOINT": "http://127.0.0.1:9", "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        program = "import sys; from harness.cli import main; sys.exit(main())"
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            cwd=self.root,
            env={**environment, **offline},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def answers(self, *arguments: str) -> dict[str, Any]:
        done = self.speedrun(*arguments, "--json")
        assert done.returncode == 0, done.stderr
        values: dict[str, Any] = json.loads(done.stdout)
        return values

    def refuses(self, *arguments: str, saying: str, code: int = 4) -> None:
        done = self.speedrun(*arguments)
        lines = [line for line in done.stderr.splitlines() if line.startswith("speedrun: ")]
        assert (done.returncode, len(lines)) == (code, 1), done.stderr
        assert saying in lines[0]

    def set_data(self, **fields: object) -> None:
        """Set fields in the [data] section of the track gpu1."""
        path = self.root / "harness" / "tracks" / "gpu1.toml"
        head, _, rest = path.read_text().partition("[data]\n")
        body, _, tail = rest.partition("\n[")
        lines = [line for line in body.splitlines() if line.partition(" = ")[0] not in fields]
        lines += [f"{name} = {json.dumps(value)}" for name, value in fields.items()]
        path.write_text(f"{head}[data]\n" + "\n".join(lines) + f"\n\n[{tail}")

    @property
    def data(self) -> Path:
        return self.root / "data"


def write_shards(folder: Path, names: list[str], seed: int = 0) -> Path:
    """Parquet shards of 300 short documents each."""
    folder.mkdir()
    rng = random.Random(seed)
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 8))) for _ in range(300)]
    for name in names:
        texts = [" ".join(rng.choices(words, k=rng.randint(5, 60))) for _ in range(300)]
        pq.write_table(pa.table({"text": texts}), folder / name, compression="zstd", row_group_size=100)
    return folder


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy without data, from which each test takes its own."""
    root = tmp_path_factory.mktemp("checkout")
    for room in ("baseline", "harness", "kernels", "leaderboard", "submissions"):
        shutil.copytree(ROOT / room, root / room, ignore=shutil.ignore_patterns("__pycache__", "records", "findings"))
    checkout = Checkout(root)
    checkout.set_data(**SMALL)
    return checkout


@pytest.fixture(scope="module")
def prepared(bare: Checkout, tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A copy in which gpu1 was prepared from a folder of shards."""
    root = tmp_path_factory.mktemp("prepared") / "repository"
    shutil.copytree(bare.root, root)
    checkout = Checkout(root)
    write_shards(root / "stick", SHARDS)
    done = checkout.speedrun("data", "prepare", "--track", "gpu1", "--from", "stick")
    assert done.returncode == 0, done.stderr
    assert "runs on these rows are not recorded" in done.stdout
    return checkout


def copy_of(checkout: Checkout, folder: Path) -> Checkout:
    return Checkout(Path(shutil.copytree(checkout.root, folder / "repository")))


class TestShardsFromAFolder:
    def test_they_are_copied_locked_and_packed_as_the_track_says(self, prepared: Checkout) -> None:
        assert {path.name for path in (prepared.data / "shards" / "climbmix").glob("*.parquet")} == set(SHARDS)
        status = prepared.answers("data", "status", "--track", "gpu1")
        assert status["train"]["row_length"] == 65
        assert status["train"]["shards"] == 2
        assert status["origin"]["kind"] == "folder"
        assert status["counts"] is False

    def test_the_second_time_nothing_is_needed_but_the_rows(self, prepared: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(prepared, tmp_path)
        shutil.rmtree(checkout.data / "shards")
        shutil.rmtree(checkout.root / "stick")
        again = checkout.answers("data", "prepare", "--track", "gpu1")
        assert again["train"] == prepared.answers("data", "status", "--track", "gpu1")["train"]

    def test_rows_that_the_track_pins_count_wherever_their_shards_came_from(self, prepared: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(prepared, tmp_path)
        known = checkout.answers("data", "status", "--track", "gpu1")
        checkout.set_data(
            shards_digest=known["origin"]["shards_digest"],
            corpus_digest=known["train"]["corpus_sha256"],
            tokenizer_digest=known["tokenizer_sha256"],
            train_rows_digest=known["train"]["rows_sha256"],
            val_rows_digest=known["val"]["rows_sha256"],
        )
        assert checkout.answers("data", "status", "--track", "gpu1")["counts"] is True
        shutil.rmtree(checkout.data / "gpu1")
        assert checkout.answers("data", "prepare", "--track", "gpu1")["counts"] is True

    def test_shards_other_than_the_pinned_ones_are_refused_before_they_are_read(self, bare: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(bare, tmp_path)
        checkout.set_data(shards_digest="0" * 64)
        write_shards(checkout.root / "stick", SHARDS)
        checkout.refuses("data", "prepare", "--track", "gpu1", "--from", "stick", saying="holds other shards than the track pins")
        assert not (checkout.data / "gpu1").exists()

    def test_a_flipped_byte_in_a_locked_shard_is_found_and_the_shard_named(self, prepared: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(prepared, tmp_path)
        shutil.rmtree(checkout.data / "gpu1")
        for folder in (checkout.data / "shards" / "climbmix", checkout.root / "stick"):
            shard = bytearray((folder / SHARDS[1]).read_bytes())
            shard[len(shard) // 2] ^= 1
            (folder / SHARDS[1]).write_bytes(shard)
        checkout.refuses("data", "prepare", "--track", "gpu1", "--from", "stick", saying="shard_00001.parquet is not the locked shard")

    def test_a_missing_shard_is_named(self, bare: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(bare, tmp_path)
        write_shards(checkout.root / "stick", [SHARDS[0], SHARDS[2]])
        checkout.refuses("data", "prepare", "--track", "gpu1", "--from", "stick", saying="stick lacks shard_00001.parquet")


class TestOtherText:
    def test_it_is_packed_but_never_passes_for_the_tracks(self, bare: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(bare, tmp_path)
        folder = write_shards(checkout.root / "mine", ["a.parquet"])
        (folder / "b.txt").write_text("Some words of mine. " * 400)
        done = checkout.speedrun("data", "prepare", "--track", "gpu1", "--from", "mine")
        assert "made from other text than the track's; runs on these rows are not recorded" in done.stdout, done.stderr
        assert checkout.answers("data", "status", "--track", "gpu1")["origin"]["kind"] == "foreign"

    def test_a_track_that_pins_its_text_refuses_it(self, bare: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(bare, tmp_path)
        checkout.set_data(corpus_digest="0" * 64)
        write_shards(checkout.root / "mine", ["a.parquet", "b.parquet"])
        checkout.refuses("data", "prepare", "--track", "gpu1", "--from", "mine", saying="it is not the text that the track pins")

    def test_rows_without_their_origin_are_of_unknown_origin(self, prepared: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(prepared, tmp_path)
        (checkout.data / "gpu1" / "origin.json").unlink()
        assert "text of unknown origin; runs on these rows are not recorded" in checkout.speedrun("data", "status").stdout

    def test_the_embedded_text_has_no_other_source(self, bare: Checkout) -> None:
        (bare.root / "empty").mkdir(exist_ok=True)
        bare.refuses("data", "prepare", "--track", "nano", "--from", "empty", code=2, saying="track nano: its text is embedded")


class TestWithoutData:
    def test_offline_one_line_says_what_is_missing_and_how_to_bring_it(self, bare: Checkout) -> None:
        bare.refuses(
            "data",
            "prepare",
            "--track",
            "gpu1",
            saying="3 shards (shard_00000.parquet … shard_06542.parquet) of karpathy/climbmix-400b-shuffle are missing",
        )

    def test_status_lists_every_track_and_how_to_make_what_is_missing(self, bare: Checkout) -> None:
        output = bare.speedrun("data", "status").stdout
        assert "gpu1: not prepared; `speedrun data prepare --track gpu1` does it (0 of 3 shards are here)" in output
        assert "gpt2: not prepared" in output
        assert "nano: not prepared; `speedrun data prepare --track nano` does it" in output
        assert bare.answers("data", "status")["gpu1"] == {"prepared": False, "shards_here": 0, "shards_needed": 3}

    def test_a_run_does_not_download_but_says_how_to_prepare(self, bare: Checkout) -> None:
        track = load_track("gpu1", bare.root / "harness" / "tracks")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("harness.cli.data.DATA", bare.data)
            with pytest.raises(MachineLacks, match=r"the rows of track gpu1 are not here; `speedrun data prepare --track gpu1` makes it"):
                prepare_with_bars(track)


class TestRuns:
    def test_a_recorded_run_refuses_rows_that_nobody_vouches_for_and_a_trial_takes_them(
        self, prepared: Checkout, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("harness.cli.data.DATA", prepared.data)
        track = load_track("gpu1", prepared.root / "harness" / "tracks")
        with pytest.raises(MachineLacks, match="a folder that nobody has vouched for, so no run on them is recorded"):
            prepare_with_bars(track)
        assert prepare_with_bars(track, recorded=False).train.rows > 0

    def test_damage_is_found_when_the_data_is_opened(self, prepared: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(prepared, tmp_path)
        rows = bytearray((checkout.data / "gpu1" / "val" / "rows.bin").read_bytes())
        rows[5] ^= 1
        (checkout.data / "gpu1" / "val" / "rows.bin").write_bytes(rows)
        checkout.refuses("data", "status", saying="gpu1/val/rows.bin is damaged")

    def test_rows_of_other_settings_are_refused(self, prepared: Checkout, tmp_path: Path) -> None:
        checkout = copy_of(prepared, tmp_path)
        checkout.set_data(sequence_len=128)
        checkout.refuses("data", "status", "--track", "gpu1", saying="the rows have sequence_len 64 and vocab_size 300")


class TestTrackFile:
    @pytest.mark.parametrize(
        ("track", "line", "saying"),
        [
            ("gpu1", "", "data: train_shards is missing: say how many shards of climbmix are trained on"),
            ("gpu1", "train_shards = 0", "data.train_shards: Input should be greater than or equal to 1"),
            ("gpu1", 'train_shards = 2\nrevision = "main"', "data.revision: String should match pattern"),
            ("nano", "train_shards = 2", "data: train_shards, revision and shards_digest belong to a public corpus"),
        ],
    )
    def test_shards_belong_to_public_corpora(self, track: str, line: str, saying: str, tmp_path: Path) -> None:
        text = (ROOT / "harness" / "tracks" / f"{track}.toml").read_text()
        kept = [row for row in text.splitlines() if not row.startswith("train_shards")]
        (tmp_path / f"{track}.toml").write_text("\n".join(kept).replace("[data]", f"[data]\n{line}"))
        with pytest.raises(UsageProblem) as problem:
            load_track(track, tmp_path)
        assert saying in str(problem.value)
