"""A submission folder is read as hostile input: complete and typed, or one clear line."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.contract import SLOT_FUNCTIONS
from harness.errors import RuleViolation, SpeedrunError, UsageProblem
from harness.submission import LICENCES, LIMITS_BYTES, SLOT_FUNCTION, SLOTS, Submission, stage

REPOSITORY = Path(__file__).parents[2]
AUTHOR = '[[author]]\nname = "somebody"\n'
GOOD = f'name = "mine"\ntitle = "Mine"\nsummary = "What."\n{AUTHOR}'
CONFIG = "def configure(config):\n    return config\n"
WriteSubmission = Callable[..., Path]


def refusal(folder: Path) -> str:
    """The one line with which the folder is refused."""
    with pytest.raises(RuleViolation) as caught:
        Submission.load(folder)
    line = str(caught.value)
    assert "\n" not in line
    assert caught.value.exit_code == 3
    return line


# ---------------------------------------------------------------------- what a good folder gives


def test_a_complete_folder_loads_with_its_fields_and_defaults(write_submission: WriteSubmission) -> None:
    submission = Submission.load(write_submission(config=CONFIG))

    assert (submission.name, submission.title, submission.licence, submission.parent) == ("mine", "Mine", "MIT", "baseline")
    assert submission.slots == ("config",)
    assert submission.files["config.py"] == CONFIG.encode()
    assert submission.runs_on("any_track")


def test_every_field_of_the_manifest_is_read(write_submission: WriteSubmission) -> None:
    manifest = """
        name = "mine"
        title = "Mine"
        summary = "What."
        licence = "Apache-2.0"
        parent = "other"
        tracks = ["nano"]
        depths = [8, 24]
        [[author]]
        name = "A program"
        kind = "agent"
        url = "https://example.org/a"
        [[component]]
        name = "no_softcap"
        summary = "Logits are not capped."
        off = { softcap = 15.0 }
        [[component]]
        name = "all_of_it"
        summary = "The config."
        off_slot = "config"
    """
    submission = Submission.load(write_submission(manifest=manifest, config=CONFIG))

    assert submission.parent == "other"
    assert submission.runs_on("nano")
    assert not submission.runs_on("gpt2")
    assert submission.depths == (8, 24)
    assert submission.authors[0].kind == "agent"
    assert [c.off or c.off_slot for c in submission.components] == [{"softcap": 15.0}, "config"]


def test_slots_come_in_the_contracts_order(write_submission: WriteSubmission) -> None:
    folder = write_submission(schedule="", kernels="", config="", optimizer="", model="")

    assert Submission.load(folder).slots == SLOTS == tuple(SLOT_FUNCTIONS)


def test_slot_functions_are_those_of_the_contract() -> None:
    assert {slot: name for slot, (name, _) in SLOT_FUNCTIONS.items()} == SLOT_FUNCTION


def test_a_folder_of_another_name_loads_when_that_name_is_expected(write_submission: WriteSubmission) -> None:
    folder = write_submission().rename(write_submission(name="other").parent / "submission")

    assert Submission.load(folder, expected_name="mine").name == "mine"


@pytest.mark.parametrize("name", ["baseline", "adamw_control"])
def test_the_committed_submissions_load(name: str) -> None:
    submission = Submission.load(REPOSITORY / "submissions" / name)

    assert (submission.parent is None) == (name == "baseline")


# ---------------------------------------------------------------------- digest and staging


def test_the_digest_is_what_sha256sum_says(write_submission: WriteSubmission) -> None:
    folder = write_submission(config=CONFIG)
    listing = subprocess.run("sha256sum *", shell=True, cwd=folder, env={**os.environ, "LC_ALL": "C"}, capture_output=True, check=True)

    assert Submission.load(folder).digest == hashlib.sha256(listing.stdout).hexdigest()


@pytest.mark.parametrize("file", ["README.md", "config.py", "submission.toml"])
def test_a_change_of_any_file_changes_the_digest(write_submission: WriteSubmission, file: str) -> None:
    folder = write_submission(config=CONFIG)
    before = Submission.load(folder).digest
    (folder / file).write_bytes((folder / file).read_bytes() + b"# \n")

    assert Submission.load(folder).digest != before


def test_staging_writes_the_bytes_that_were_hashed_even_if_the_folder_changed_since(
    write_submission: WriteSubmission, tmp_path: Path
) -> None:
    folder = write_submission(config=CONFIG)
    submission = Submission.load(folder)
    (folder / "config.py").write_text("something else")

    staged = stage(submission, tmp_path / "deep" / "staged")

    assert {file.name: file.read_bytes() for file in staged.iterdir()} == submission.files
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o444 for file in staged.iterdir())


def test_staging_never_writes_into_a_folder_that_exists(write_submission: WriteSubmission, tmp_path: Path) -> None:
    with pytest.raises(FileExistsError):
        stage(Submission.load(write_submission()), tmp_path)


# ---------------------------------------------------------------------- bad folders


def test_a_missing_folder_is_a_usage_problem(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match=r"absent.*is not a submission folder; `speedrun new NAME`"):
        Submission.load(tmp_path / "absent")


def test_a_file_in_place_of_the_folder_is_a_usage_problem(write_submission: WriteSubmission) -> None:
    with pytest.raises(UsageProblem, match="name the folder, not a file in it"):
        Submission.load(write_submission() / "README.md")


@pytest.mark.parametrize("file", ["submission.toml", "README.md"])
@pytest.mark.parametrize("damage", ["missing", "empty"])
def test_manifest_and_readme_must_be_there_and_say_something(write_submission: WriteSubmission, file: str, damage: str) -> None:
    folder = write_submission()
    (folder / file).unlink() if damage == "missing" else (folder / file).write_text(" \n")

    assert f"{file}: is {damage}" in refusal(folder)


@pytest.mark.parametrize("file", ["utils.py", "Model.py", "model.pyc", "weights.bin", ".hidden"])
def test_an_unknown_file_is_refused_by_name(write_submission: WriteSubmission, file: str) -> None:
    folder = write_submission()
    (folder / file).write_text("x")

    assert f"{file}: is none of a submission's files; delete it" in refusal(folder)


@pytest.mark.parametrize("name", ["lib", "config.py"])
def test_a_subfolder_is_refused(write_submission: WriteSubmission, name: str) -> None:
    folder = write_submission()
    (folder / name).mkdir()

    assert f"{name}: is a folder" in refusal(folder)


def test_a_symbolic_link_is_refused_even_to_a_good_file(write_submission: WriteSubmission) -> None:
    folder = write_submission()
    (folder / "config.py").symlink_to(folder / "README.md")

    assert "config.py: is a symbolic link" in refusal(folder)


@pytest.mark.timeout(10)
def test_a_pipe_is_refused_without_waiting_for_it(write_submission: WriteSubmission) -> None:
    folder = write_submission()
    os.mkfifo(folder / "config.py")

    assert "config.py: is not a regular file" in refusal(folder)


@pytest.mark.parametrize("content", [b"x = '\0'", b"\x89PNG\r\n\x1a\n", "lr = 0.1  # é".encode("latin-1")])
def test_a_binary_file_is_refused(write_submission: WriteSubmission, content: bytes) -> None:
    assert "config.py: is binary; a submission is UTF-8 text only" in refusal(write_submission(config=content))


@pytest.mark.parametrize("file", ["model.py", "submission.toml", "README.md"])
def test_a_file_may_reach_its_limit_and_not_exceed_it(write_submission: WriteSubmission, file: str) -> None:
    folder = write_submission(model="")
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content + b"#" * (LIMITS_BYTES[file] - len(content)))
    Submission.load(folder)
    (folder / file).write_bytes(content + b"#" * (LIMITS_BYTES[file] - len(content) + 1))

    assert f"{file}: is larger than {LIMITS_BYTES[file]:,} bytes" in refusal(folder)


# ---------------------------------------------------------------------- bad manifests


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ('name = "mine', "is not TOML: "),
        ('name = "mine"\nname = "mine"', "is not TOML: "),
        ("x = " + "[" * 5_000, "is not TOML: "),
        ("x = " + "9" * 10_000, "is not TOML: "),
        (GOOD.replace('title = "Mine"\n', ""), "field 'title' is missing; add it"),
        (GOOD.replace(AUTHOR, ""), "field 'author' is missing"),
        (GOOD.replace('name = "somebody"', 'kind = "agent"'), "field 'author[0].name' is missing"),
        ('colour = "red"\n' + GOOD, "unknown field 'colour'; remove it"),
        ('license = "MIT"\n' + GOOD, "unknown field 'license'; did you mean 'licence'?"),
        (GOOD + 'email = "a@b"\n', "unknown field 'author[0].email'"),
        (GOOD.replace('"Mine"', "5"), "field 'title' = 5 is not allowed"),
        (GOOD.replace('"Mine"', '""'), "field 'title' = '' is not allowed; use one line"),
        (GOOD.replace(AUTHOR, "author = 'me'\n"), "field 'author' = 'me' is not allowed"),
        (GOOD + 'url = "javascript:alert(1)"\n', "field 'author[0].url' = 'javascript:alert(1)' is not allowed; use an https:// address"),
        (GOOD + 'kind = "robot"\n', """field 'author[0].kind' = 'robot' is not allowed; use "person" or "agent\""""),
        (GOOD.replace('"mine"', '"My Name"'), "field 'name' = 'My Name' is not allowed; use lower-case letters"),
        (GOOD.replace('"mine"', '"other"'), "field 'name' = 'other' differs from the folder's name 'mine'; make them equal"),
        ('licence = "Proprietary"\n' + GOOD, "field 'licence' = 'Proprietary' is not accepted; use one of MIT"),
        ('parent = "mine"\n' + GOOD, "field 'parent' = 'mine' is the submission itself"),
        ('tracks = "nano"\n' + GOOD, "field 'tracks' = 'nano' is not allowed"),
        ('tracks = ["nano", "nano"]\n' + GOOD, "field 'tracks' names a track twice"),
        ("depths = [24, 8]\n" + GOOD, "field 'depths' = [24, 8] is not a range"),
        ("depths = [0, 8]\n" + GOOD, "field 'depths' = [0, 8] is not a range"),
        ("depths = [8]\n" + GOOD, "field 'depths"),
    ],
)
def test_a_bad_manifest_is_one_line_with_file_field_and_mend(write_submission: WriteSubmission, manifest: str, said: str) -> None:
    line = refusal(write_submission(manifest=manifest))

    assert "submission.toml: " in line
    assert said in line


@pytest.mark.parametrize(
    ("component", "said"),
    [
        ("", "component 'part' needs exactly one of 'off' and 'off_slot'"),
        ('off_slot = "config"\noff = { softcap = 0.0 }', "component 'part' needs exactly one of 'off' and 'off_slot'"),
        ('off_slot = "model"', "off_slot = 'model' is a slot that this submission does not override"),
        ('off_slot = "loop"', "field 'component[0].off_slot' = 'loop' is not allowed; use one of config, model"),
        ("off = { softcaps = 0.0 }", "component 'part', off: TrainConfig has no field 'softcaps'; did you mean 'softcap'?"),
        ("off = { vocab_size = 256 }", "component 'part', off: vocab_size is the track's alone"),
        ('off = { softcap = "none" }', "component 'part', off: softcap = 'none'; it must be a number"),
        ("off = { softcap = nan }", "component 'part', off: softcap = nan; it must be finite"),
        ('off = { activation = "tanh" }', "activation = 'tanh'; it must be one of 'relu_squared', 'gelu'"),
        ("off = { softcap = 0.0 }\n[[component]]\nname = 'part'\nsummary = 'x'\noff = {depth = 1}", "component 'part' is declared twice"),
    ],
)
def test_a_bad_component_is_one_line(write_submission: WriteSubmission, component: str, said: str) -> None:
    manifest = f'{GOOD}[[component]]\nname = "part"\nsummary = "A part."\n{component}\n'

    assert said in refusal(write_submission(manifest=manifest, config=CONFIG))


def test_only_the_baseline_is_called_baseline(write_submission: WriteSubmission) -> None:
    assert "the baseline has no parent and no slot files" in refusal(write_submission(name="baseline", config=CONFIG))


@pytest.mark.parametrize("licence", LICENCES)
def test_each_listed_licence_is_accepted(write_submission: WriteSubmission, licence: str) -> None:
    assert Submission.load(write_submission(manifest=f'licence = "{licence}"\n{GOOD}')).licence == licence


@given(content=st.binary(max_size=300) | st.text(max_size=300).map(lambda text: (GOOD + text).encode("utf-8", "replace")))
def test_whatever_the_manifest_holds_it_loads_or_is_refused_in_one_printable_line(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.mktemp("any") / "mine"
    folder.mkdir()
    (folder / "README.md").write_text("x")
    (folder / "submission.toml").write_bytes(content)
    try:
        said = Submission.load(folder).name
    except SpeedrunError as error:
        said = str(error)

    assert said
    assert said.isprintable()
