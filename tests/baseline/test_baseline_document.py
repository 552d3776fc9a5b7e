"""docs/baseline.md says what the code does: every formula and every number of its worked example is computed anew here."""

from __future__ import annotations

import math
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch

from baseline.adamw import adamw_settings
from baseline.cards import peak_flops
from baseline.config import (
    CHOICES,
    EXECUTION_FIELDS,
    TrainConfig,
    learning_rate_scale_of_batch,
    learning_rate_scale_of_width,
    scaling_parameters,
)
from baseline.contract import Role, World
from baseline.data.manifest import DataSettings
from baseline.flash import FLASH_LOADERS
from baseline.loop import micro_batch
from baseline.model import GPT, build_model
from baseline.muon import shape_scale
from baseline.ops import baseline_ops
from baseline.schedule import schedule
from baseline.standalone import standalone_config
from baseline.train import parse

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "baseline.md").read_text()
PROCESSES = 8
CPU = torch.device("cpu")
Row = dict[str, str]


# ---------------------------------------------------------------------- reading the document


def tables(*columns: str) -> list[Row]:
    """The rows of all tables with exactly these columns; a cell that is one piece of code comes without its quotes."""
    rows: list[Row] = []
    for block in re.findall(r"(?:^\|.*\|\n)+", TEXT, re.MULTILINE):
        header, _, *lines = ([cell.strip() for cell in line.strip().strip("|").split("|")] for line in block.splitlines())
        if header == list(columns):
            rows += [{name: re.sub(r"^`([^`]*)`$", r"\1", cell) for name, cell in zip(header, line, strict=True)} for line in lines]
    assert rows, f"no table has the columns {columns}"
    return rows


def evaluated(formula: str, symbols: Mapping[str, float]) -> float:
    """The value of a formula as the document writes them: · ² ^ √ and thousands separators."""
    python = re.sub(r"(?<=\d),(?=\d{3})", "", formula)
    for written, meant in {"·": "*", "²": "**2", "^": "**", "√": "sqrt"}.items():
        python = python.replace(written, meant)
    functions = {"ceil": math.ceil, "floor": math.floor, "round": round, "log2": math.log2, "sqrt": math.sqrt, "cos": math.cos}
    return float(eval(python, {"__builtins__": {}}, {**functions, "pi": math.pi, **symbols}))


def shown_like(value: float, text: str) -> str:
    """`value` rounded and written as `text` is."""
    if "e" in text:
        return re.sub(r"e\+?0*", "e", f"{value:.{len(text.split('e')[0].split('.')[1])}e}")
    return f"{value:,.{len(text.partition('.')[2])}f}"


def last_place(text: str) -> float:
    """What one unit in the last place of a written number is worth."""
    mantissa, _, exponent = text.partition("e")
    return float(10 ** (int(exponent or 0) - len(mantissa.partition(".")[2])))


def check_row(row: Row, value: float, symbols: Mapping[str, float], column: str) -> None:
    """The written value is the code's; the law gives the code's value; and so do the numbers, as far as they are written out."""
    assert row[column] == shown_like(value, row[column])
    assert evaluated(row["law"], symbols) == pytest.approx(value, rel=1e-12)
    written_out = float(row[column].replace(",", ""))
    assert evaluated(row["in numbers"], {}) == pytest.approx(written_out, rel=1e-5, abs=last_place(row[column]))


# ---------------------------------------------------------------------- what the code says


@cache
def config(*options: str) -> TrainConfig:
    """What the document's own command trains, here with further options; on a card it would be bfloat16."""
    commands = re.findall(r"^    torchrun --nproc_per_node=(\d+) -m baseline.train (.*)$", TEXT, re.MULTILINE)
    assert [processes for processes, _ in commands] == [str(PROCESSES)]
    arguments = parse([*shlex.split(commands[0][1]), "--set=dtype=bfloat16", *options])
    return standalone_config(arguments, DataSettings(sequence_len=2048, vocab_size=32768), World(0, PROCESSES, CPU))


@cache
def model(*options: str) -> GPT:
    with torch.device("meta"):
        return build_model(config(*options), baseline_ops(config(*options), CPU))


def elements(name_part: str) -> int:
    return sum(parameter.numel() for name, parameter in model().named_parameters() if name_part in name)


def in_role(role: Role) -> int:
    return sum(parameter.numel() for parameter in model().roles()[role])


def code_values() -> dict[str, float]:
    """Every symbol of the document, from the code."""
    c, counts, dial = config(), model().parameter_counts(), config().dial
    growth = scaling_parameters(c.depth, dial) / scaling_parameters(12, dial)
    work = model().flops_per_token() * c.batch_tokens * c.num_steps
    peak = peak_flops("NVIDIA H100 80GB HBM3")
    assert peak is not None
    return {
        "L": c.depth,
        "r": dial.tokens_per_parameter,
        "a": dial.aspect_ratio,
        "h": c.head_dim,
        "V": c.padded_vocab_size,
        "T": c.sequence_len,
        "B_ref": dial.reference_batch_tokens,
        "m": dial.short_window_multiple,
        "W": PROCESSES,
        "b": c.rows_per_forward,
        "C": c.width,
        "H": c.num_heads,
        "w": min(window for window in c.windows() if window > 0),
        "full": c.windows().count(-1),
        "short": len(c.windows()) - c.windows().count(-1),
        "attention": elements("attention.") - elements("value_gate"),
        "mlp": elements("mlp."),
        "gates": elements("value_gate"),
        "lm_head": counts["lm_head"],
        "P": counts["scaling"],
        "embedding": counts["embedding"],
        "values": counts["value_embedding"],
        "scalars": counts["other"],
        "total": counts["total"],
        "P_12": scaling_parameters(12, dial),
        "D": dial.tokens_per_parameter * counts["scaling"],
        "D_ref": dial.tokens_per_parameter * scaling_parameters(12, dial),
        "growth": growth,
        "ideal": dial.reference_batch_tokens * growth**0.383,
        "B": c.batch_tokens,
        "N": c.num_steps,
        "trained": c.batch_tokens * c.num_steps,
        "rows": c.batch_rows,
        "mine": c.batch_rows // PROCESSES,
        "micro": micro_batch(c.batch_rows, c.rows_per_forward, PROCESSES)[0],
        "row_count": schedule(0, c).batch_rows * c.num_steps,
        "weight_bytes": sum(parameter.nbytes for parameter in model().parameters()),
        "s_B": learning_rate_scale_of_batch(c.batch_tokens, dial),
        "s_C": learning_rate_scale_of_width(c.width),
        "decay": c.matrix_weight_decay,
        "down": sum(schedule(step, c).learning_rate < 1 for step in range(c.warmup_steps, c.num_steps)) + 1,
        "start": next(step for step in range(c.warmup_steps, c.num_steps) if schedule(step + 1, c).learning_rate < 1),
        "K": sum(c.sequence_len if window < 0 else window for window in c.windows()),
        "F": model().flops_per_token(),
        "work": work,
        "limit_s": work / (PROCESSES * peak),
    }


VALUES = code_values()
WORKED = tables("symbol", "meaning", "law", "in numbers", "value")


# ---------------------------------------------------------------------- the worked example


def test_every_symbol_of_the_code_stands_in_the_document_once() -> None:
    given = tables("symbol", "meaning", "value", "where it comes from")
    assert sorted(row["symbol"] for row in [*given, *WORKED]) == sorted(VALUES)


@pytest.mark.parametrize("row", tables("symbol", "meaning", "value", "where it comes from"), ids=lambda row: row["symbol"])
def test_what_is_given(row: Row) -> None:
    assert row["value"] == shown_like(VALUES[row["symbol"]], row["value"])


@pytest.mark.parametrize("row", WORKED, ids=lambda row: row["symbol"])
def test_a_worked_row(row: Row) -> None:
    earlier = {name: VALUES[name] for name in VALUES if name != row["symbol"]}
    check_row(row, VALUES[row["symbol"]], earlier, "value")


def learning_rate_groups() -> dict[str, tuple[float, int, float, tuple[str, ...]]]:
    """Group -> (rate, parameters, weight decay, betas as the document writes them)."""
    c = config()
    groups: dict[str, tuple[float, int, float, tuple[str, ...]]] = {}
    for role in ("lm_head", "embedding", "value_embedding", "resid_scale", "x0_scale", "gate"):
        adamw = adamw_settings(role, c)
        groups[role] = (adamw.learning_rate, in_role(role), adamw.weight_decay, (f"{adamw.beta1}", f"{adamw.beta2}"))
    for shapes in (("1536 × 1536", "12 × 12"), ("6144 × 1536",), ("1536 × 6144",)):
        sizes = [tuple(map(int, shape.split(" × "))) for shape in shapes]
        count = sum(p.numel() for p in model().roles()["matrix"] if tuple(p.shape) in sizes)
        scales = {shape_scale(*size) for size in sizes}
        assert len(scales) == 1, "one rate for the whole group"
        groups["Muon: " + ", ".join(shapes)] = (c.matrix_lr * scales.pop(), count, c.matrix_weight_decay, ("", ""))
    return groups


def test_learning_rates_of_every_group() -> None:
    rows = tables("group", "parameters", "law", "in numbers", "rate", "β₁", "β₂", "decay")
    groups = learning_rate_groups()
    assert [row["group"] for row in rows if row["group"] not in groups] == []
    assert len(rows) == len(groups)
    assert sum(int(row["parameters"].replace(",", "")) for row in rows) == VALUES["total"]
    for row in rows:
        rate, parameters, decay, betas = groups[row["group"]]
        check_row(row, rate, VALUES, "rate")
        assert row["parameters"] == f"{parameters:,}"
        assert (row["β₁"], row["β₂"]) == betas
        assert row["decay"] == shown_like(decay, row["decay"])


@pytest.mark.parametrize(
    "row", tables("step", "rate ×", "rate of the square matrices", "μ", "decay ×", "Muon's decay"), ids=lambda row: row["step"]
)
def test_the_schedule(row: Row) -> None:
    c = config()
    plan = schedule(int(row["step"].replace(",", "")), c)
    expected = {
        "rate ×": plan.learning_rate,
        "rate of the square matrices": c.matrix_lr * plan.learning_rate,
        "μ": plan.momentum,
        "decay ×": plan.weight_decay,
        "Muon's decay": c.matrix_weight_decay * plan.weight_decay,
    }
    assert {name: row[name] for name in expected} == {name: shown_like(value, row[name]) for name, value in expected.items()}


def test_the_laws_of_the_schedule_hold_at_every_step() -> None:
    rows = tables("quantity", "while", "law")
    names = [name for name in (row["quantity"] for row in rows) if name]
    assert [name.split(",")[0] for name in names] == ["learning rate", "Muon's momentum μ", "Muon's weight decay"]
    for t in range(config().num_steps):
        symbols = {**VALUES, "t": t, "q": (t - VALUES["start"]) / VALUES["down"]}
        plan = schedule(t, config())
        laws = [evaluated(row["law"], symbols) for row in rows if evaluated(row["while"], symbols)]
        assert laws == pytest.approx([plan.learning_rate, plan.momentum, plan.weight_decay], abs=1e-12)


# ---------------------------------------------------------------------- flags, fields, backends, sources


def test_every_flag_stands_in_the_document_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help", "--control", "--config", "--witness"}
    arguments = vars(parse(["--rows=x", "--out=x"]))
    written: list[str] = []
    for row in tables("flag", "default", "meaning"):
        flags = re.findall(r"--[a-z-]+", row["flag"])
        written += flags
        defaults = [arguments[flag.removeprefix("--").replace("-", "_")] for flag in flags if flag not in ("--rows", "--out")]
        assert row["default"] == ", ".join(str(default) for default in defaults if default not in (None, [], False))
    assert sorted(written) == sorted(known)


SWITCHES = tables("field", "value", "what goes", "parameters")


@pytest.mark.parametrize("row", SWITCHES, ids=lambda row: row["field"])
def test_a_part_that_is_switched_off_takes_its_parameters_along(row: Row) -> None:
    option = f"--set={row['field']}={row['value']}"
    assert getattr(config(option), row["field"]) != getattr(config(), row["field"])
    lost = model().parameter_counts()["total"] - model(option).parameter_counts()["total"]
    assert row["parameters"] == f"{lost:,}"
    assert config(option).num_steps == config().num_steps


def test_every_part_that_can_be_switched_off_stands_in_the_document() -> None:
    kinds = get_type_hints(TrainConfig)
    switches = {field.name for field in fields(TrainConfig) if kinds[field.name] is bool or field.name in CHOICES}
    numbers = {"window_pattern", "qk_scale", "softcap"}
    assert {row["field"] for row in SWITCHES} == (switches | numbers) - set(EXECUTION_FIELDS)


def test_the_backends_stand_in_the_order_in_which_they_are_tried() -> None:
    names = [name for row in tables("backend", "needs", "notes") for name in row["backend"].replace("`", "").split(", ")]
    assert names == [*FLASH_LOADERS, "flex", "sdpa", "masked"]
    assert {name.split("-")[0] for name in names} == set(CHOICES["attention_backend"]) - {"auto"}


def test_every_paper_that_the_code_names_is_named() -> None:
    cited = {paper for path in (ROOT / "baseline").glob("*.py") for paper in re.findall(r"arXiv (\d{4}\.\d{5})", path.read_text())}
    assert cited - set(re.findall(r"arXiv (\d{4}\.\d{5})", TEXT)) == set()


def test_what_the_document_links_to_is_there() -> None:
    links: list[str] = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []


# ---------------------------------------------------------------------- the checks themselves


WRONG: dict[str, Callable[[Row], Any]] = {
    "value": lambda row: row.update(value="1,537"),
    "law": lambda row: row.update(law="a·L + h"),
    "numbers": lambda row: row.update({"in numbers": "64·25"}),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_cell_is_noticed(spoil: Callable[[Row], Any]) -> None:
    row = dict(next(row for row in WORKED if row["symbol"] == "C"))
    check_row(row, VALUES["C"], VALUES, "value")
    spoil(row)
    with pytest.raises(AssertionError):
        check_row(row, VALUES["C"], VALUES, "value")
