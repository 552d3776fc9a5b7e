"""The inspection tries a recipe out without training it, and says in one line what does not keep the contract."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from baseline import inspection
from baseline.agreement import disagreements
from baseline.behaviour import small_config
from baseline.config import Dial, TrainConfig
from baseline.inspection import Request, inspect
from baseline.model import build_model
from baseline.ops import baseline_ops
from baseline.recipe import PACKAGE

CPU = torch.device("cpu")
DIAL = Dial(vocab_size=300, sequence_len=64, tokens_per_parameter=2.0, aspect_ratio=16, head_dim=16, reference_batch_tokens=2048)
CONFIG = TrainConfig.from_depth(3, replace(DIAL, short_window_multiple=16), rows_per_forward=4)

MODEL = """
from baseline.model import GPT
class Mine(GPT):
{body}
def build_model(config, ops):
    return Mine(config, ops)
"""
OPTIMIZER = """
from baseline.optimizer import MuonAdamW
class Mine(MuonAdamW):
{body}
def build_optimizer(model, config, ops, world):
    return Mine(model, config, ops, world)
"""
KERNELS = """
from dataclasses import replace
import torch
from baseline.attention import masked_attention
from baseline.ops import cross_entropy, linear
def replace_ops(ops, config):
    return replace(ops, {op}=ours)
{body}
"""


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


def problems(tmp_path: Path, track: TrainConfig = CONFIG, depths: tuple[int, ...] = (), **slots: str) -> list[str]:
    """What the inspection says of these slot files, as `file: message`."""
    report = inspect(Request(track, folder_with(tmp_path, **slots), depths, tolerance=0.01, processes=2), CPU)
    assert report.ok == (not report.problems)
    return [f"{problem.file}: {problem.message}" for problem in report.problems]


# ---------------------------------------------------------------------- what passes


def test_the_baseline_passes_its_own_inspection() -> None:
    report = inspect(Request(CONFIG, None, depths=(2, 5), processes=2), CPU)

    assert report.problems == []
    assert report.config == CONFIG.to_dict()
    assert report.parameters == sum(p.numel() for p in build_model(CONFIG, baseline_ops(CONFIG, CPU)).parameters())


@pytest.mark.parametrize("gpu_only", ["compile", "fp8"])
def test_what_only_saves_time_does_not_keep_a_laptop_from_inspecting(gpu_only: str) -> None:
    track = CONFIG.with_(**{gpu_only: True}, dtype="bfloat16", attention_backend="flash")

    assert inspect(Request(track, None), CPU).problems == []


def test_the_small_copy_keeps_depth_components_and_grouping() -> None:
    dial = replace(DIAL, vocab_size=32_768, sequence_len=2_048, head_dim=128, aspect_ratio=64)
    large = TrainConfig.from_depth(24, dial, num_kv_heads=6, smear=False)
    small = small_config(large)

    assert (small.depth, small.head_dim, small.smear) == (24, 128, False)
    assert small.num_heads // small.num_kv_heads == large.num_heads // large.num_kv_heads
    assert small.width == 256


# ---------------------------------------------------------------------- models

BAD_MODELS = {
    "it must be the mean loss, a float32 scalar": """
    def head(self, x, targets):
        return super().head(x, targets) if targets is None else x.mean(-1)
""",
    "the loss before the first step is nan": """
    def head(self, x, targets):
        return super().head(x, targets) * (1.0 if targets is None else float("nan"))
""",
    "not within 0.5 of ln(300) = 5.704": """
    def head(self, x, targets):
        return super().head(x, targets) * (1.0 if targets is None else 0.5)
""",
    "it must be logits (2, 64, 300) torch.float32": """
    def head(self, x, targets):
        return x if targets is None else super().head(x, targets)
""",
    "does not require grad": """
    def head(self, x, targets):
        return super().head(x, targets).detach()
""",
    "roles(): lm_head is missing": """
    def roles(self):
        return {role: parameters for role, parameters in super().roles().items() if role != "lm_head"}
""",
    "lm_head is already listed": """
    def roles(self):
        return {**super().roles(), "gate": [*super().roles()["gate"], self.lm_head]}
""",
    "'head' is no role; use one of matrix": """
    def roles(self):
        return {role.removeprefix("lm_"): parameters for role, parameters in super().roles().items()}
""",
    "flops_per_token() gives nan": """
    def flops_per_token(self):
        return float("nan")
""",
    "init_weights leaves embedding unwritten": """
    def init_weights(self, generator):
        pass
""",
    "init_weights gives the same weights for every seed": """
    def init_weights(self, generator):
        super().init_weights(generator.manual_seed(1))
""",
    "init_weights writes other values into lm_head for the same seed": """
    calls = 0
    def init_weights(self, generator):
        super().init_weights(generator)
        Mine.calls += 1
        self.lm_head.data += Mine.calls
""",
    "a token must not see those after it": """
    def trunk(self, x, tokens, cache=None):
        return super().trunk(x, tokens, cache) + x.mean(1, keepdim=True)
""",
    "line 6: AttributeError: 'Tensor' object has no attribute 'nonsense'": """
    def embed(self, tokens, cache=None):
        return tokens.nonsense
""",
}


@pytest.mark.parametrize("said", BAD_MODELS)
def test_a_model_that_breaks_the_contract_is_one_problem(tmp_path: Path, said: str) -> None:
    (problem,) = problems(tmp_path, model=MODEL.format(body=BAD_MODELS[said]))

    assert problem.startswith("model.py: ")
    assert said in problem


def test_a_model_without_the_contracts_methods_is_one_problem(tmp_path: Path) -> None:
    text = "import torch\ndef build_model(config, ops):\n    return torch.nn.Linear(2, 2)\n"

    assert problems(tmp_path, model=text) == ["model.py: the model has no method init_weights; see Model in baseline/contract.py"]


# ---------------------------------------------------------------------- optimizers

BAD_OPTIMIZERS = {
    "a step in the middle of the run changes no parameter": """
    def step(self, plan):
        pass
""",
    "a step makes blocks.0": """
    def step(self, plan):
        super().step(plan)
        for parameter in self.groups[0].parameters.values():
            parameter.data.fill_(float("nan"))
""",
    "zero_grad leaves the gradient of embedding": """
    def zero_grad(self):
        pass
""",
    "KeyError": """
    def state_dict(self):
        return {}
""",
    "the optimizer has no method zero_grad": """
    zero_grad = None
""",
}


@pytest.mark.parametrize("said", BAD_OPTIMIZERS)
def test_an_optimizer_that_breaks_the_contract_is_one_problem(tmp_path: Path, said: str) -> None:
    (problem,) = problems(tmp_path, optimizer=OPTIMIZER.format(body=BAD_OPTIMIZERS[said]))

    assert problem.startswith("optimizer.py: ")
    assert said in problem


# ---------------------------------------------------------------------- schedules


def test_a_schedule_that_fails_always_is_one_problem(tmp_path: Path) -> None:
    text = "from baseline.contract import StepPlan\ndef schedule(step, config):\n    return StepPlan(1.0, 0.9, 1.0, -8)\n"

    assert problems(tmp_path, schedule=text) == ["schedule.py: schedule: batch_rows = -8; it must be a positive whole number"]


def test_a_schedule_that_fails_late_is_found(tmp_path: Path) -> None:
    text = """
from baseline.contract import StepPlan
def schedule(step, config):
    return StepPlan(1.0, 0.9, 1.0, 8) if step < config.num_steps - 1 else None
"""
    assert problems(tmp_path, schedule=text) == ["schedule.py: schedule must return a StepPlan, not None"]


@pytest.mark.parametrize(
    ("rows", "rows_per_forward", "said"),
    [(3, 1, "a batch of 3 rows cannot be split over 2 processes"), (12, 4, "rows_per_forward = 4 does not divide the 6 rows")],
)
def test_a_batch_that_does_not_divide_is_found_before_a_node_is_rented(tmp_path: Path, rows: int, rows_per_forward: int, said: str) -> None:
    changes = f"batch_tokens={rows} * config.sequence_len, rows_per_forward={rows_per_forward}"
    (problem,) = problems(tmp_path, config=f"def configure(config):\n    return config.with_({changes})\n")

    assert problem.startswith("config.py: at step 0: ")
    assert said in problem


# ---------------------------------------------------------------------- ops

BAD_OPS = [
    ("rms_norm", "def ours(x):\n    return x", "rms_norm: output is off by"),
    ("linear", "def ours(x, w):\n    return linear(x.detach(), w) + 0 * x.sum()", "linear: gradient of input 0 is off by 1 "),
    ("linear", "def ours(x, w):\n    return linear(x, w) * float('nan')", "linear: output is off by nan"),
    ("attention", "def ours(q, k, v, window):\n    return masked_attention(q, k, v, -1)", "attention: output is off by"),
    ("relu_squared_mlp", "def ours(x, up, down):\n    return torch.relu(x @ up.T) @ down.T", "relu_squared_mlp: output is off"),
    ("cross_entropy", "def ours(h, w, t, v, s):\n    return cross_entropy(h, w, t, v, 0.0)", "cross_entropy: output is off"),
    ("cross_entropy", "def ours(h, w, t, v, s):\n    return h.sum(-1)", "cross_entropy gives shape (512,), not ()"),
    ("orthogonalize", "def ours(x):\n    return x / x.norm(dim=(-2, -1), keepdim=True)", "orthogonalize: off the polar factor"),
]


@pytest.mark.parametrize(("op", "body", "said"), BAD_OPS)
def test_an_op_with_other_mathematics_is_found(tmp_path: Path, op: str, body: str, said: str) -> None:
    found = problems(tmp_path, kernels=KERNELS.format(op=op, body=body))

    assert found[0].startswith("kernels.py: ")
    assert said in found[0]


@pytest.mark.parametrize(("factor", "passes"), [(1.005, True), (1.02, False)])
def test_ops_must_keep_the_tolerance(tmp_path: Path, factor: float, passes: bool) -> None:
    body = f"def ours(x, w):\n    return linear(x, w) * {factor}\n"

    assert (problems(tmp_path, kernels=KERNELS.format(op="linear", body=body)) == []) == passes


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.02)])
def test_the_baselines_own_ops_agree_with_their_references(dtype: str, tolerance: float) -> None:
    config = CONFIG.with_(dtype=dtype)

    assert disagreements(baseline_ops(config, CPU), config, CPU, tolerance) == []


# ---------------------------------------------------------------------- depths, blame, command


def test_a_claimed_depth_is_built(tmp_path: Path) -> None:
    body = """
    def __init__(self, config, ops):
        assert config.depth < 6, "too deep for me"
        super().__init__(config, ops)
"""
    assert problems(tmp_path, depths=(2, 5), model=MODEL.format(body=body)) == []
    (problem,) = problems(tmp_path, depths=(2, 7), model=MODEL.format(body=body))
    assert problem == "model.py: at the claimed depth 7: line 6: AssertionError: too deep for me"


def test_a_configure_that_fixes_the_depth_cannot_claim_others(tmp_path: Path) -> None:
    text = "def configure(config):\n    return config.at_depth(4)\n"
    (problem,) = problems(tmp_path, depths=(4, 5), config=text)

    assert problem.startswith("config.py: configure sets depth 4, though submission.toml claims depth 5; ")


def test_a_config_on_which_the_baseline_fails_is_blamed_on_the_config(tmp_path: Path) -> None:
    text = "def configure(config):\n    return config.with_(embedding_lr=1e300, lm_head_lr=1e300)\n"
    (problem,) = problems(tmp_path, config=text)

    assert problem.startswith("config.py (seen in the baseline's optimizer): a step makes embedding not finite")


def test_independent_problems_are_all_reported(tmp_path: Path) -> None:
    text = "def schedule(step, config):\n    return None\n"
    found = problems(tmp_path, schedule=text, model=MODEL.format(body=BAD_MODELS["flops_per_token() gives nan"]))

    assert [line.split(":")[0] for line in found] == ["schedule.py", "model.py"]


def test_the_command_writes_its_report_and_exits_with_0_or_3(tmp_path: Path) -> None:
    config, out = tmp_path / "config.json", tmp_path / "report.json"
    config.write_text(json.dumps(CONFIG.to_dict()))
    arguments = ["--config-json", str(config), "--json-out", str(out)]

    assert inspection.main(arguments) == 0
    assert json.loads(out.read_text())["ok"] is True
    assert inspection.main([*arguments, "--submission", str(folder_with(tmp_path, model="x = 1\n"))]) == 3
    (problem,) = json.loads(out.read_text())["problems"]
    assert (problem["slot"], problem["file"]) == ("model", "model.py")
