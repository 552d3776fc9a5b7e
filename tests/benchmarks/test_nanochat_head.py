"""What the comparison with nanochat takes from a clone, and how it refuses one that it cannot use."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from baseline.config import Dial, TrainConfig
from benchmarks.nanochat_head import NanochatError, nanochat_name, open_clone, option_defaults
from benchmarks.nanochat_head import build_model as build_nanochat_model
from benchmarks.side_by_side import BaselineTrainer
from tests.benchmarks.nanochat_clone import clone_folder, float32_clone, needs_clone

TINY = TrainConfig.from_depth(3, Dial(256, 64, 8.0, aspect_ratio=32, head_dim=32, max_batch_tokens=128))


def test_a_folder_that_is_no_clone_is_refused_with_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(NanochatError, match=r"nanochat/gpt\.py"):
        open_clone(tmp_path, "float32")


def test_option_defaults_are_read_from_the_scripts_text() -> None:
    script = """
parser.add_argument("--matrix-lr", type=float, default=0.02)
parser.add_argument("--eval-tokens", type=int, default=80*512)
parser.add_argument("--total-batch-size", type=int, default=-1)
parser.add_argument("--fp8", action="store_true")
"""
    found = option_defaults(ast.parse(script).body)
    assert found == {"matrix_lr": 0.02, "eval_tokens": 40_960, "total_batch_size": -1, "fp8": False}


def test_no_two_of_our_parameters_are_the_same_one_of_nanochats() -> None:
    names = [name for name, _ in BaselineTrainer.unwritten(TINY).named_parameters()]
    assert len({nanochat_name(name) for name in names}) == len(names)


@needs_clone
def test_every_parameter_of_nanochat_is_one_of_ours_of_the_same_shape() -> None:
    theirs = build_nanochat_model(float32_clone(), TINY, torch.device("meta"), seed=0)
    ours = {nanochat_name(name): p.shape for name, p in BaselineTrainer.unwritten(TINY).named_parameters()}
    assert ours == {name: p.shape for name, p in theirs.named_parameters()}


@needs_clone
def test_a_second_import_may_compute_in_another_dtype() -> None:
    dtypes = [open_clone(clone_folder(), dtype).gpt.COMPUTE_DTYPE for dtype in ("float32", "bfloat16")]
    assert dtypes == [torch.float32, torch.bfloat16]
