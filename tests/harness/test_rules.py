"""The static rules refuse what they say, allow what they say, and never execute what they read."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from baseline.contract import SLOT_FUNCTIONS
from harness.rules import RULES, SourceFile, check_rules, check_source
from harness.rules.document import DOCUMENT, INTRODUCTION, render
from harness.rules.imports import ALLOWED_PACKAGES, OPEN_BASELINE, REASONS
from harness.rules.registry import Example
from harness.rules.shape import PARAMETERS
from harness.submission import Submission
from harness.track import load_track, track_names

REPOSITORY = Path(__file__).parents[2]
WriteSubmission = Callable[..., Path]
ALLOWED = [pytest.param(id, e, id=f"{id}-{i}") for id, rule in RULES.items() for i, e in enumerate(rule.allowed)]
REFUSED = [pytest.param(id, e, id=f"{id}-{i}") for id, rule in RULES.items() for i, e in enumerate(rule.refused)]


def broken(code: str, file: str = "model.py") -> set[str]:
    """Ids of the rules that a slot file breaks, apart from R01, which a fragment always does."""
    return {finding.rule for finding in check_source(SourceFile(file, code))} - {"R01"}


# ---------------------------------------------------------------------- the rules' own examples


@pytest.mark.parametrize(("id", "example"), ALLOWED)
def test_a_rule_allows_its_examples(id: str, example: Example) -> None:
    assert [f for f in check_source(SourceFile(example.file, example.code)) if f.rule == id] == []


@pytest.mark.parametrize(("id", "example"), REFUSED)
def test_a_rule_refuses_its_examples_with_file_line_and_mend(id: str, example: Example) -> None:
    findings = [f for f in check_source(SourceFile(example.file, example.code)) if f.rule == id]

    assert findings
    for finding in findings:
        assert finding.file == example.file
        assert 1 <= finding.line <= example.code.count("\n") + 1
        assert "\n" not in finding.message


def test_rules_are_numbered_without_gaps_and_each_has_both_kinds_of_examples() -> None:
    assert sorted(RULES) == [f"R{number:02}" for number in range(1, len(RULES) + 1)]
    assert all(rule.allowed and rule.refused and rule.paragraph for rule in RULES.values())


def test_only_private_torch_is_a_mere_warning() -> None:
    assert {id for id, rule in RULES.items() if rule.severity == "warn"} == {"R12"}


# ---------------------------------------------------------------------- ways around, closed


@pytest.mark.parametrize(
    ("code", "rule"),
    [
        ("def f():\n    import os\n", "R02"),
        ("import torch.utils as u\nu.os\n", "R02"),
        ("from functools import sys as s\n", "R02"),
        ("from dataclasses import dataclass, sys\n", "R02"),
        ("import baseline.model as m\nm.GPT.forward = None\n", "R03"),
        ("from baseline import model\n(a, model.GPT.forward) = 1, 2\n", "R03"),
        ("import torch\nfor torch.x in (1,):\n    pass\n", "R03"),
        ("import torch\nwith f() as torch.x:\n    pass\n", "R03"),
        ("import torch\ntorch.x += 1\n", "R03"),
        ("import torch\n[0 for torch.x in (1,)]\n", "R03"),
        ("from baseline.model import GPT\nG = GPT\ndef f():\n    G.forward = None\n", "R03"),
        ("import torch\ntorch.__dict__['relu'] = None\n", "R03"),
        ("import torch\ntorch.nn.Module.__call__ = None\n", "R03"),
        ("e = [eval][0]\n", "R04"),
        ("class A:\n    x = open\n", "R04"),
        ("f = lambda: __import__\n", "R04"),
        ("def f(g):\n    return g.gi_frame.f_back\n", "R04"),
        ("import torch\nn = 'os'\ngetattr(torch, n)\n", "R04"),
        ("x = '''" + "a\n" * 600 + "'''\n", "R05"),
        ("import torch\nfrom torch import set_num_threads as quiet\nquiet(1)\n", "R07"),
        ("import torch\no = {}\ntorch.compile(f, **o)\n", "R07"),
        ("from torch import load as fetch\n", "R09"),
        ("import torch as t\nt.jit.load('x')\n", "R09"),
        ("from torch import Generator as G\nG()\n", "R10"),
    ],
)
def test_a_way_around_a_rule_is_closed(code: str, rule: str) -> None:
    assert rule in broken(code)


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ndef f(generator: torch.Generator) -> None:\n    torch.randn(3, generator=generator)\n",
        "import torch.distributed as dist\ndef f(x):\n    dist.reduce_scatter_tensor(x, x)\n",
        "import torch\nclass A(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.x = 1\n",
        "from baseline.model import GPT\nclass A(GPT):\n    scale = 2.0\n",
        "from functools import partial\nfrom baseline.ops import linear\nfast = partial(linear)\n",
        "import torch\n@torch.library.custom_op('mine::f', mutates_args=())\ndef f(x: torch.Tensor) -> torch.Tensor:\n    return x\n",
        "import torch\nif torch.cuda.is_available():\n    FAST = True\nelse:\n    FAST = False\n",
        "def compile_plan(config):\n    return config.compile\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from baseline.contract import Ops\n",
    ],
)
def test_ordinary_code_breaks_no_rule(code: str) -> None:
    assert broken(code) == set()


@pytest.mark.parametrize("slot", ["model", "schedule"])
def test_a_copy_of_the_baselines_own_file_is_a_legal_slot(slot: str) -> None:
    text = (REPOSITORY / "baseline" / f"{slot}.py").read_text()

    assert [str(f) for f in check_source(SourceFile(f"{slot}.py", text))] == []


# ---------------------------------------------------------------------- whole submissions


def test_findings_of_a_submission_name_file_line_and_rule(write_submission: WriteSubmission) -> None:
    folder = write_submission(
        config="import os\n\ndef configure(config):\n    return config\n", schedule="def schedule(step, config):\n    open('x')\n"
    )

    found = [str(finding) for finding in check_rules(Submission.load(folder))]

    assert found[0].startswith("config.py:1: R02: os may not be imported: ")
    assert found[1] == "schedule.py:2: R04: open reads or writes outside the program; write what is meant"
    assert len(found) == 2


def test_a_syntax_error_is_one_finding_with_its_line(write_submission: WriteSubmission) -> None:
    folder = write_submission(model="import torch\n\ndef build_model(config, ops:\n")

    (finding,) = check_rules(Submission.load(folder))

    assert (finding.rule, finding.file, finding.line) == ("R01", "model.py", 3)


@pytest.mark.parametrize("code", ["(" * 60_000, "-" * 60_000 + "1", "x" + ".a" * 30_000, "lambda:" * 9_000 + "0"])
def test_code_nested_to_break_the_parser_is_one_finding(code: str) -> None:
    assert [f.rule for f in check_source(SourceFile("model.py", code))] == ["R01"]


def test_checking_never_executes(write_submission: WriteSubmission, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    check_rules(Submission.load(write_submission(config=f"open({str(trace)!r}, 'w')\n")))

    assert not trace.exists()


@given(code=st.text(alphabet=st.sampled_from("ab.=()[]{}:,'\"\n \t@*#0x√\u202e"), max_size=120))
def test_any_text_is_judged_without_an_error(code: str) -> None:
    for finding in check_source(SourceFile("config.py", code)):
        assert finding.line >= 1


@pytest.mark.parametrize("name", ["baseline", "adamw_control"])
def test_the_committed_submissions_keep_all_rules(name: str) -> None:
    assert check_rules(Submission.load(REPOSITORY / "submissions" / name)) == []


# ---------------------------------------------------------------------- agreement with the rest of the project


def test_parameters_are_those_of_the_contract() -> None:
    assert {slot: parameters for slot, (_, parameters) in SLOT_FUNCTIONS.items()} == PARAMETERS


def test_open_modules_exist_and_a_reason_is_never_given_for_an_allowed_package() -> None:
    assert [name for name in OPEN_BASELINE if not (REPOSITORY / "baseline" / f"{name}.py").is_file()] == []
    assert set(ALLOWED_PACKAGES).isdisjoint(REASONS)


def test_rules_md_is_what_the_code_renders() -> None:
    assert DOCUMENT.read_text(encoding="utf-8") == render(), "RULES.md is stale: python -m harness.rules.document"


def test_every_rule_has_its_section_in_the_document() -> None:
    text = render()

    assert re.findall(r"^### (R\d\d) ·", text, re.MULTILINE) == sorted(RULES)
    assert all(character.isprintable() for character in text if character != "\n")


@pytest.mark.parametrize("name", track_names())
def test_the_introductions_numbers_are_those_of_the_tracks(name: str) -> None:
    rules, text = load_track(name).ruleset, INTRODUCTION.read_text(encoding="utf-8").replace("\n", " ")

    assert f"at least {rules.validity_bound:g}" in text
    assert f"at {rules.looks[0]}, {rules.looks[1]} and {rules.looks[2]} runs or pairs" in text
    assert f"{100 * rules.superiority_level:g} %" in text
    assert f"at most once in {1 / rules.validity_alpha:.0f} times" in text
    assert f"at most once in {1 / rules.superiority_alpha:.0f}" in text
