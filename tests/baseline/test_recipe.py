"""A recipe is the baseline with a submission's slots in place; whatever is wrong with a slot is one line that names file and line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from baseline.config import ConfigError, Dial, TrainConfig
from baseline.model import GPT, build_model
from baseline.optimizer import build_optimizer
from baseline.recipe import PACKAGE, SlotError, load_recipe, load_slots
from baseline.schedule import schedule

CPU = torch.device("cpu")
DIAL = Dial(vocab_size=300, sequence_len=64, tokens_per_parameter=2.0, aspect_ratio=16, head_dim=16, reference_batch_tokens=2048)
CONFIG = TrainConfig.from_depth(3, DIAL)


@pytest.fixture(autouse=True)
def no_submission_left() -> Iterator[None]:
    yield
    for name in [name for name in sys.modules if name.split(".")[0] == PACKAGE]:
        del sys.modules[name]


def folder_with(tmp_path: Path, **slots: str) -> Path:
    folder = tmp_path / "staged"
    folder.mkdir(exist_ok=True)
    for slot, text in slots.items():
        (folder / f"{slot}.py").write_text(text)
    return folder


def refusal(tmp_path: Path, **slots: str) -> SlotError:
    """The error with which a submission of these slot files is refused when loaded."""
    with pytest.raises(SlotError) as caught:
        load_recipe(CONFIG, folder_with(tmp_path, **slots), CPU)
    assert "\n" not in str(caught.value)
    return caught.value


# ---------------------------------------------------------------------- composing


def test_without_a_submission_the_recipe_is_the_baseline() -> None:
    recipe = load_recipe(CONFIG, None, CPU)

    assert recipe.config == CONFIG
    assert (recipe.build_model, recipe.build_optimizer, recipe.schedule) == (build_model, build_optimizer, schedule)
    assert recipe.overridden == ()


def test_an_overridden_slot_is_used_and_the_others_stay(tmp_path: Path) -> None:
    half = "from baseline.contract import StepPlan\ndef schedule(step, config):\n    return StepPlan(0.5, 0.9, 1.0, config.batch_rows)\n"
    recipe = load_recipe(CONFIG, folder_with(tmp_path, schedule=half), CPU)

    assert recipe.schedule(0, CONFIG).learning_rate == 0.5
    assert recipe.build_model is build_model
    assert recipe.overridden == ("schedule",)


def test_configure_comes_before_the_ops_are_chosen(tmp_path: Path) -> None:
    configure = "def configure(config):\n    return config.with_(orthogonalization='newton_schulz')\n"
    recipe = load_recipe(CONFIG, folder_with(tmp_path, config=configure), CPU)

    assert recipe.ops.orthogonalize.__name__ == "newton_schulz"


def test_one_slot_can_build_on_another(tmp_path: Path) -> None:
    kernels = """
from dataclasses import replace
def ours(x):
    return x
def replace_ops(ops, config):
    return replace(ops, rms_norm=ours)
"""
    model = """
from submission.kernels import ours
from baseline.model import GPT
def build_model(config, ops):
    assert ops.rms_norm is ours
    return GPT(config, ops)
"""
    recipe = load_recipe(CONFIG, folder_with(tmp_path, kernels=kernels, model=model), CPU)

    assert isinstance(recipe.build_model(recipe.config, recipe.ops), GPT)


def test_a_second_submission_replaces_the_first_one_in_the_same_process(tmp_path: Path) -> None:
    for number in (1, 2):
        (tmp_path / str(number)).mkdir()
        text = f"def configure(config):\n    return config.with_(num_steps={number})\n"
        folder = folder_with(tmp_path / str(number), config=text)
        assert load_recipe(CONFIG, folder, CPU).config.num_steps == number


def test_loading_leaves_nothing_in_the_folder(tmp_path: Path) -> None:
    folder = folder_with(tmp_path, config="def configure(config):\n    return config\n")
    load_recipe(CONFIG, folder, CPU)

    assert [file.name for file in folder.iterdir()] == ["config.py"]


# ---------------------------------------------------------------------- what is refused on loading


@pytest.mark.parametrize(
    ("slot", "text", "said"),
    [
        ("model", "def build_model(config, ops:\n", "model.py: line 1: '(' was never closed"),
        ("model", "x = 1\n", "model.py: the function build_model is missing; write `def build_model(config, ops)`"),
        ("model", "build_model = 5\n", "model.py: build_model must be a function, not int"),
        ("model", "def build_model(config):\n    pass\n", "model.py: build_model takes (config); write `def build_model(config, ops)`"),
        ("model", "import no_such_package\n", "model.py: line 1: ModuleNotFoundError: No module named 'no_such_package'"),
        ("model", "x = 1\ny = x / 0\n", "model.py: line 2: ZeroDivisionError: division by zero"),
        ("model", "raise SystemExit(0)\n", "model.py: line 1: SystemExit: 0"),
        ("optimizer", "def build_optimizer(model, config, ops):\n    pass\n", "write `def build_optimizer(model, config, ops, world)`"),
        ("schedule", "def schedule(config, step):\n    pass\n", "schedule takes (config, step); write `def schedule(step, config)`"),
        ("kernels", "def replace_ops(ops, config):\n    return None\n", "kernels.py: replace_ops must return an Ops, not None"),
        (
            "kernels",
            "from dataclasses import replace\ndef replace_ops(ops, config):\n    return replace(ops, linear=3)\n",
            "kernels.py: replace_ops: linear must be a function, not int",
        ),
    ],
)  # fmt: skip
def test_a_bad_slot_is_one_line(tmp_path: Path, slot: str, text: str, said: str) -> None:
    error = refusal(tmp_path, **{slot: text})

    assert said in str(error)
    assert error.slot == slot


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "configure must return a TrainConfig, not None"),
        ("config.with_(warmup=3)", "line 3: ConfigError: TrainConfig has no field 'warmup'"),
        ("config.with_(vocab_size=256)", "vocab_size = 256 differs from the track's 300; leave it as it is"),
        ("config.with_(sequence_len=32)", "sequence_len = 32 differs from the track's 64"),
        ("config.with_(dial=replace(config.dial, vocab_size=256))", "dial.vocab_size = 256 differs from the track's 300"),
        ("config.with_(softcap=float('nan'))", "softcap = nan; it must be finite"),
        ("config.with_(matrix_lr=float('nan'))", "matrix_lr = nan; it must be a finite number"),
        ("replace(config, matrix_lr=-1.0)", "matrix_lr = -1.0; it must be a finite number, at least 0"),
        ("config.with_(softcap='15')", "softcap = '15'; it must be a number"),
        ("config.with_(smear=1)", "smear = 1; it must be True or False"),
        ("config.with_(width=100)", "width must equal num_heads · head_dim"),
    ],
)
def test_a_configure_that_returns_what_cannot_be_trained_is_one_line(tmp_path: Path, returned: str, said: str) -> None:
    error = refusal(tmp_path, config=f"from dataclasses import replace\ndef configure(config):\n    return {returned}\n")

    assert str(error).startswith("config.py: ")
    assert said in str(error)


def test_the_line_named_is_the_innermost_one_of_the_submission(tmp_path: Path) -> None:
    helper = "def ours(x):\n    return x.nonsense\n"
    text = "from submission.kernels import ours\ndef configure(config):\n    return ours(config)\n"
    error = refusal(tmp_path, kernels=f"{helper}def replace_ops(ops, config):\n    return ops\n", config=text)

    assert str(error).startswith("kernels.py: line 2: AttributeError")


def test_a_package_that_this_machine_lacks_is_told_apart(tmp_path: Path) -> None:
    error = refusal(tmp_path, kernels="import no_such_package.language\n")

    assert error.missing_package == "no_such_package"


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("None", "schedule must return a StepPlan, not None"),
        ("StepPlan(float('nan'), 0.9, 1.0, 8)", "learning_rate = nan; it must be a finite number"),
        ("StepPlan(1.0, float('inf'), 1.0, 8)", "momentum = inf; it must be a finite number"),
        ("StepPlan(1.0, 0.9, '1', 8)", "weight_decay = '1'; it must be a finite number"),
        ("StepPlan(1.0, 0.9, 1.0, 0)", "batch_rows = 0; it must be a positive whole number"),
        ("StepPlan(1.0, 0.9, 1.0, 8.0)", "batch_rows = 8.0; it must be a positive whole number"),
    ],
)
def test_a_bad_plan_is_refused_whenever_the_schedule_is_asked(tmp_path: Path, returned: str, said: str) -> None:
    text = f"from baseline.contract import StepPlan\ndef schedule(step, config):\n    return {returned}\n"
    recipe = load_recipe(CONFIG, folder_with(tmp_path, schedule=text), CPU)

    with pytest.raises(SlotError, match="schedule") as caught:
        recipe.schedule(0, recipe.config)
    assert said in str(caught.value)


def test_load_slots_reports_what_is_overridden(tmp_path: Path) -> None:
    slots = load_slots(folder_with(tmp_path, schedule="def schedule(step, config): ...\n", config="def configure(config): ...\n"))

    assert tuple(slots.functions) == ("config", "schedule")


def test_a_folder_that_is_not_there_does_not_pass_for_the_baseline(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="absent is no folder; name the one that holds the slot files"):
        load_recipe(CONFIG, tmp_path / "absent", CPU)
