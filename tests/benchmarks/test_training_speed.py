"""The speed comparisons with nanochat: what their tables say, and that a contest that cannot be held is reported and not lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import cpu_train, gpu_train
from benchmarks.gpu_train import CONTESTS, in_own_process, missing
from tests.benchmarks.nanochat_clone import clone_folder, needs_clone


def entry(name: str, seconds: list[float]) -> dict[str, Any]:
    speed = {"median": 1000 / sorted(seconds)[1], "low": 0.0, "high": 0.0}
    shared = {"attention": "sdpa", "peak_memory_gib": None, "mfu": 0.4}
    return {"name": name, "seconds_per_step": seconds, "tokens_per_s": speed, **shared}


def test_the_cpu_table_ends_with_the_ratio() -> None:
    lines = cpu_train.table({"baseline": [1.0, 1.0, 1.0], "nanochat": [1.5, 1.5, 1.5]}, tokens=4096).splitlines()
    assert "4,096" in lines[1]
    assert lines[-1].startswith("baseline / nanochat 1.500")


def test_the_gpu_table_compares_with_the_first_that_was_measured() -> None:
    results = {"d12": [{"name": "a", "skipped": "OutOfMemoryError"}, entry("b", [1.0, 1.0, 1.0]), entry("c", [2.0, 2.0, 2.0])]}
    text = gpu_train.table(results)
    assert "skipped: OutOfMemoryError" in text
    assert text.splitlines()[-2].endswith("1.000")
    assert text.splitlines()[-1].endswith("0.500")


def test_a_contest_without_time_is_skipped_with_the_reason() -> None:
    results = in_own_process(CONTESTS[0], Path("nowhere"), dry=True, left_s=1.0)
    assert [result["name"] for result in results] == [c.name for c in CONTESTS[0].contestants]
    assert all("1 s were left" in result["skipped"] for result in results)


def test_contestants_that_sent_nothing_get_the_reason_of_their_process() -> None:
    contest = CONTESTS[0]
    first, *others = contest.contestants
    assert missing(contest, [{"name": first.name}], "killed") == [{"name": c.name, "skipped": "killed"} for c in others]


def test_a_contestant_that_cannot_run_says_why_and_the_others_still_do(tmp_path: Path) -> None:
    results = {result["name"]: result for result in in_own_process(CONTESTS[0], tmp_path, dry=True, left_s=1e3)}
    assert results["baseline auto"]["tokens_per_s"]["median"] > 0
    assert "no clone of nanochat" in results["nanochat auto"]["skipped"]


@needs_clone
def test_a_dry_run_measures_both_in_8_bits_too(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "benchmarks.gpu_train", "--nanochat", str(clone_folder()), "--dry-run"]
    subprocess.run([*command, "--contests", "d12-fp8", "--results", str(tmp_path)], check=True)
    results = json.loads((tmp_path / "gpu_train.json").read_text())["contests"]["d12-fp8"]
    assert {result["name"]: result["attention"] for result in results} == {"baseline auto": "sdpa", "nanochat auto": "sdpa"}
