"""What is read off this machine, and what `speedrun doctor` says of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from harness.environment import (
    accelerators,
    cpu_model,
    describe_machine,
    git_dirty,
    installed_versions,
    read_environment,
    usable_cores,
)
from harness.record import Environment


def git(folder: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True, capture_output=True)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init")
    (tmp_path / "file.txt").write_text("one\n")
    git(tmp_path, "add", "file.txt")
    git(tmp_path, "commit", "-m", "first")
    return tmp_path


def fake_nvidia_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver tool that prints what a real one printed, put in front on the PATH."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


# ---------------------------------------------------------------------- the record


def test_the_environment_holds_the_facts_of_this_machine(repository: Path) -> None:
    environment = read_environment(repository)
    assert environment.cpu_cores == usable_cores() >= 1
    assert environment.memory_bytes > 2**28
    assert environment.packages["numpy"] == installed_versions(["numpy"])["numpy"]
    assert environment.python == ".".join(map(str, sys.version_info[:3]))
    assert Environment.model_validate_json(environment.model_dump_json()) == environment


def test_the_host_name_is_recorded_only_as_a_digest(repository: Path) -> None:
    digest = read_environment(repository).hostname_digest
    assert len(digest) == 16
    assert digest == read_environment(repository).hostname_digest
    assert set(digest) <= set("0123456789abcdef")


def test_reading_the_environment_does_not_import_torch() -> None:
    """It runs in the process that holds the clock, beside the training processes."""
    code = "import sys, pathlib, harness.environment as e; e.read_environment(pathlib.Path('.')); print('torch' in sys.modules)"
    printed = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert printed.strip() == "False"


def test_the_commit_is_recorded_and_only_tracked_changes_make_it_dirty(repository: Path) -> None:
    commit = read_environment(repository).git_commit
    assert commit is not None
    assert len(commit) == 40
    (repository / "untracked.txt").write_text("a submission\n")
    assert git_dirty(repository) is False
    (repository / "file.txt").write_text("two\n")
    assert git_dirty(repository) is True


def test_outside_a_repository_there_is_no_commit(tmp_path: Path) -> None:
    environment = read_environment(tmp_path)
    assert (environment.git_commit, environment.git_dirty) == (None, None)


def test_the_processor_is_the_first_model_name_of_cpuinfo(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel\t\t: 17\nmodel name\t: Some CPU @ 2.60GHz\n\nprocessor\t: 1\nmodel name\t: Other\n")
    assert cpu_model(cpuinfo) == "Some CPU @ 2.60GHz"


def test_a_processor_without_a_name_is_called_by_its_architecture(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 50.00\n")
    assert cpu_model(cpuinfo)


def test_packages_that_are_not_installed_are_left_out() -> None:
    assert list(installed_versions(["numpy", "no-such-distribution"])) == ["numpy"]


# ---------------------------------------------------------------------- accelerators


def test_each_gpu_is_a_line_with_memory_and_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "echo 'NVIDIA H100 80GB HBM3, 81559 MiB, 575.57.08'\n" * 2, monkeypatch)
    assert accelerators() == ["NVIDIA H100 80GB HBM3, 81559 MiB, driver 575.57.08"] * 2


def test_a_driver_that_answers_with_an_error_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "echo 'NVIDIA-SMI has failed because it could not talk to the driver'; exit 9", monkeypatch)
    assert accelerators() == []


def test_a_driver_without_devices_counts_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "echo 'No devices were found'", monkeypatch)
    assert accelerators() == []


# ---------------------------------------------------------------------- doctor


def test_doctor_covers_every_part_and_says_how_to_mend_what_is_not_ok(repository: Path) -> None:
    checks = describe_machine(repository)
    assert [check.name for check in checks] == [
        "python",
        "processors",
        "memory",
        "disk",
        "torch",
        "gpu",
        "triton",
        "sandbox",
    ]
    assert all(check.detail for check in checks)
    assert all(bool(check.mend) == (check.state != "ok") for check in checks)


def test_doctor_counts_the_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_nvidia_smi(tmp_path, "echo 'NVIDIA H100 80GB HBM3, 81559 MiB, 575.57.08'\n" * 8, monkeypatch)
    gpu = next(check for check in describe_machine(tmp_path) if check.name == "gpu")
    assert (gpu.state, gpu.detail) == ("ok", "8 × NVIDIA H100 80GB HBM3, 81559 MiB, driver 575.57.08")
