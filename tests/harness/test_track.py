"""Track files: the three that there are, and one clear line for each way to break one."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageProblem
from harness.track import TRACKS_FOLDER, load_track, track_names

NANO = (TRACKS_FOLDER / "nano.toml").read_text()

BROKEN: dict[str, tuple[str, str, str | None, str]] = {
    "a section that is missing": ("", "price", None, "price: Field required"),
    "a field that is missing": ("task", "depth", None, "task.depth: Field required"),
    "a field that nobody knows": ("task", "deptj", "5", "task.deptj: Extra inputs are not permitted"),
    "text for a number": ("task", "depth", '"four"', "task.depth: Input should be a valid integer"),
    "a model without layers": ("task", "depth", "0", "task.depth: Input should be greater than or equal to 1"),
    "heads without width": ("task", "head_dim", "-32", "task.head_dim: Input should be greater than or equal to 1"),
    "an odd head": ("task", "head_dim", "33", "task: head_dim = 33; rotary embeddings need an even head_dim"),
    "no tokens": ("task", "tokens_per_parameter", "0.0", "task.tokens_per_parameter: Input should be greater than 0"),
    "endless tokens": ("task", "tokens_per_parameter", "inf", "task.tokens_per_parameter: Input should be a finite number"),
    "fewer tokens than a batch": ("task", "tokens_per_parameter", "1e-6", "task: num_steps = 0; it must be a positive"),
    "a config field nobody knows": ("task.config", "softcaps", "1.0", "task.config: TrainConfig has no field 'softcaps'; did you mean"),
    "a config field of another type": ("task.config", "warmup_steps", "1.5", "task.config: warmup_steps = 1.5; it must be a whole number"),
    "a config value out of range": ("task.config", "rows_per_forward", "0", "task: rows_per_forward = 0; it must be a positive"),
    "an unknown device": ("launch", "device", '"tpu"', "launch.device: Input should be 'cpu' or 'cuda'"),
    "no process": ("launch", "processes", "0", "launch.processes: Input should be greater than or equal to 1"),
    "a vocabulary beyond 16 bits": ("data", "vocab_size", "70000", "data.vocab_size: Input should be less than or equal to 65536"),
    "nothing to score": ("data", "val_rows", "0", "data.val_rows: Input should be greater than or equal to 1"),
    "a target that is no number": ("target", "value", "nan", "target.value: Input should be a finite number"),
    "no spread": ("target", "sigma", "0.0", "target.sigma: Input should be greater than 0"),
    "an unknown metric": ("target", "metric", '"bpb"', "target.metric: Input should be 'val_bpb' or 'core'"),
    "a limit below zero": ("limits", "silence_s", "-1.0", "limits.silence_s: Input should be greater than 0"),
    "no memory": ("limits", "memory_bytes", "0", "limits.memory_bytes: Input should be greater than or equal to 1"),
    "a price of nothing": ("price", "usd_per_hour", "0.0", "price.usd_per_hour: Input should be greater than 0"),
    "no pairs": ("", "pairs", "0", "pairs: Input should be greater than or equal to 1"),
    "a digest that is none": ("", "baseline_digest", '"abc"', "baseline_digest: String should match pattern"),
    "another name than the file's": ("", "name", '"mine"', "name: 'mine' differs from the file's name; make them equal"),
    "no looks": ("ruleset", "looks", "[]", "ruleset.looks: "),
    "an error rate above 1": ("ruleset", "validity_alpha", "1.5", "ruleset.validity_alpha: Input should be less than 1"),
    "no TOML": ("task", "depth", "four", "not valid TOML ("),
}
"""What is wrong: section, field, its new value (None: taken away), and what the error says."""


def changed(section: str, field: str, value: str | None) -> str:
    """The nano track's text with one field changed, added or taken away; at the top level also a section taken away."""
    head, table, rest = NANO.partition(f"[{section}]\n") if section else ("", "", NANO)
    body, following, tail = rest.partition("\n[")
    lines = [line for line in body.splitlines() if not line.startswith(f"{field} = ")]
    if value is not None:
        lines.insert(0, f"{field} = {value}")
    elif not section:
        before, _, after = (following + tail).partition(f"\n[{field}]")
        return "\n".join(lines) + before + "\n[" + after.partition("\n[")[2]
    return head + table + "\n".join(lines) + following + tail


@pytest.mark.parametrize(("section", "field", "value", "saying"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_file_gives_one_line_with_file_and_field(section: str, field: str, value: str | None, saying: str, tmp_path: Path) -> None:
    (tmp_path / "nano.toml").write_text(changed(section, field, value))
    with pytest.raises(UsageProblem) as problem:
        load_track("nano", tmp_path)
    assert str(problem.value).startswith(f"nano.toml: {saying}")
    assert "\n" not in str(problem.value)


def test_bytes_that_are_no_text_give_one_line(tmp_path: Path) -> None:
    (tmp_path / "nano.toml").write_bytes(b"name = \xff\n")
    with pytest.raises(UsageProblem, match=r"^nano.toml: not valid TOML"):
        load_track("nano", tmp_path)


@pytest.mark.parametrize("name", ["mini", "../nano", ""])
def test_an_unknown_track_lists_those_there_are(name: str) -> None:
    with pytest.raises(UsageProblem, match="choose one of: gpt2, gpu1, nano"):
        load_track(name)


@pytest.mark.parametrize("name", track_names())
def test_every_track_of_the_repository_loads_and_gives_a_config(name: str) -> None:
    track = load_track(name)
    config = track.base_config()
    assert (config.vocab_size, config.sequence_len) == (track.data.vocab_size, track.data.sequence_len)
    assert config.batch_rows % track.launch.processes == 0
    assert track.reference_price().usd_per_hour == track.price.usd_per_hour


def test_the_digest_changes_with_what_decides_and_not_with_how_it_is_presented() -> None:
    track = load_track("nano")
    presented = track.model_copy(update={"title": "Other", "description": "Other", "pairs": 9})
    decided = track.model_copy(update={"limits": track.limits.model_copy(update={"run_s": 1.0})})
    assert presented.digest == track.digest != decided.digest
