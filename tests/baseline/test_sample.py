"""Text from a model that was really trained: what is printed, what decides it, and what is said about arguments that cannot work."""

from __future__ import annotations

import io
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from baseline.checkpoint import read_state, read_weights
from baseline.data.manifest import TOKENIZER_FILE, DataSettings
from baseline.data.prepare import prepare
from baseline.data.shards import split_folder
from baseline.data.tokenizer import SPLIT_PATTERN, Tokenizer, encode_document
from baseline.model import GPT, build_model
from baseline.ops import baseline_ops
from baseline.sample import Sample, checkpoint_at, main, printable
from baseline.train import main as train

ROOT = Path(__file__).resolve().parents[2]
SENTENCES = ("東京の空は青い。", "Größe ist süß. ", "A smile 🙂 is free. ", "Two and two are four. ")
"""What the model learns to repeat."""
PLAIN = "A smile is free and two and two are four; quick brown foxes jump over lazy dogs. " * 40
"""All that the tokenizer learns from: to it every byte of the other characters stays a token."""
SETTINGS = DataSettings(sequence_len=64, vocab_size=300, tokenizer_characters=len(PLAIN), buffer_documents=50, refill_documents=16)
SIZE = ["--depth=2", "--aspect-ratio=32", "--head-dim=32", "--reference-batch-tokens=512", "--short-window-multiple=16"]
SIZE += [f"--set={assignment}" for assignment in ("batch_tokens=512", "num_steps=120", "rows_per_forward=8", "warmup_steps=10")]
BYTES = Tokenizer(SPLIT_PATTERN, tuple(bytes([value]) for value in range(256)))
"""A tokenizer that has learned nothing: every byte is a token."""


@dataclass(frozen=True)
class Trained:
    """A finished training: the folder it left, and what it was trained with."""

    out: Path
    data: Path

    @property
    def tokenizer(self) -> Path:
        return self.data / TOKENIZER_FILE

    def sample(self, *options: str, checkpoint: Path | None = None) -> int:
        return main([str(checkpoint or self.out), f"--tokenizer={self.tokenizer}", *options])

    def process(self, *options: str, stdout: int = subprocess.PIPE, encoding: str = "utf-8") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "baseline.sample", str(self.out), f"--tokenizer={self.tokenizer}", *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONIOENCODING": encoding}
        return subprocess.run(command, cwd=ROOT, env=environment, stdout=stdout, stderr=subprocess.PIPE, timeout=60, check=False)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows and tokenizer, prepared from documents of one or two of the sentences."""
    folder = tmp_path_factory.mktemp("data")
    rng = random.Random(0)
    documents = [PLAIN, *("".join(rng.choices(SENTENCES, k=rng.randint(1, 2))) for _ in range(600))]
    for shard in range(2):
        lines = [json.dumps({"text": text}) + "\n" for text in documents[shard::2]]
        (folder / f"shard_{shard:05d}.jsonl").write_text("".join(lines))
    prepare(split_folder(folder), folder / "prepared", SETTINGS)
    return folder / "prepared"


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """120 steps of 512 tokens; checkpoints after steps 60 and 120."""
    out = tmp_path_factory.mktemp("run")
    assert train([f"--rows={data / 'train'}", f"--out={out}", "--save-every=60", *SIZE]) == 0
    return Trained(out, data)


def values(printed: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(printed)
    return found


# ---------------------------------------------------------------------- which tokens


def naive_tokens(checkpoint: Path, prompt: list[int], count: int) -> list[int]:
    """The likeliest continuation, the whole sequence read anew for every token."""
    config = read_state(checkpoint)["config"]
    model: GPT = build_model(config, baseline_ops(config, torch.device("cpu")))
    read_weights(model, checkpoint / "weights.safetensors")
    tokens = list(prompt)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


@pytest.mark.parametrize("prompt", ["", "東京の", "Two and"])
def test_temperature_zero_equals_the_naive_forward_token_by_token(
    trained: Trained, prompt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained.sample(f"--prompt={prompt}", "--max-tokens=70", "--temperature=0", "--json") == 0
    drawn = values(capsys.readouterr().out)["samples"][0]
    tokenizer = Tokenizer.load(trained.tokenizer)
    beginning = encode_document(tokenizer.encoding(), tokenizer.bos_id, prompt).tolist()
    expected = naive_tokens(trained.out / "step_000120", beginning, len(drawn["tokens"]) + drawn["ended"])
    assert drawn["tokens"] == (expected[:-1] if drawn["ended"] else expected)
    assert drawn["ended"] == (expected[-1] == tokenizer.bos_id)


def test_the_model_continues_what_it_has_learned(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained.sample("--prompt=東京の空", "--max-tokens=60", "--temperature=0", "--json") == 0
    assert values(capsys.readouterr().out)["samples"][0]["text"].startswith("は青い。")


def test_the_seed_decides(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    def drawn(seed: int) -> Any:
        assert trained.sample("--json", "--samples=3", "--max-tokens=12", "--temperature=1.5", f"--seed={seed}") == 0
        return values(capsys.readouterr().out)["samples"]

    assert drawn(5) == drawn(5)
    assert drawn(5) != drawn(6)


def test_one_likeliest_token_is_the_same_at_any_temperature(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    texts = []
    for options in (["--temperature=0"], ["--temperature=3", "--top-k=1"]):
        assert trained.sample("--prompt=A smile", "--max-tokens=20", "--json", *options) == 0
        texts.append(values(capsys.readouterr().out)["samples"][0]["text"])
    assert texts[0] == texts[1]


def test_a_sample_ends_where_the_document_ends(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    """The longest document has 48 tokens."""
    assert trained.sample("--samples=4", "--max-tokens=400", "--json") == 0
    printed = values(capsys.readouterr().out)
    bos = Tokenizer.load(trained.tokenizer).bos_id
    for drawn in printed["samples"]:
        assert drawn["ended"]
        assert bos not in drawn["tokens"]
    assert printed["tokens"] == sum(len(drawn["tokens"]) for drawn in printed["samples"])


# ---------------------------------------------------------------------- what is printed


class Pieces(io.StringIO):
    """Standard output that remembers what was written before each flush."""

    def __init__(self) -> None:
        super().__init__()
        self.flushed: list[str] = []

    def flush(self) -> None:
        self.flushed.append(self.getvalue())


def test_one_sample_appears_as_it_grows_in_whole_characters(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--prompt=東京の", "--max-tokens=40", "--temperature=0"]
    with redirect_stdout(Pieces()) as out:
        assert trained.sample(*options) == 0
    assert trained.sample(*options, "--json") == 0
    drawn = values(capsys.readouterr().out)["samples"][0]
    assert out.getvalue() == "東京の" + drawn["text"] + "\n"
    assert out.flushed[0] == "東京の", "the prompt comes before the first token"
    assert len(out.flushed) >= len(drawn["tokens"])
    assert len(set(out.flushed)) > 10, "in many pieces"
    assert not any("\ufffd" in piece for piece in out.flushed)


def test_several_samples_stand_under_headings(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained.sample("--prompt=Two", "--samples=2", "--max-tokens=8") == 0
    shown = capsys.readouterr()
    first, second = shown.out.split("--- sample 2 of 2 ---\n")
    assert first.startswith("--- sample 1 of 2 ---\nTwo")
    assert second.startswith("Two")
    assert "tokens/s, seed 0, " in shown.err
    assert "step_000120" in shown.err


def test_json_says_what_was_asked_and_how_fast_it_went(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained.sample("--prompt=Two", "--samples=2", "--max-tokens=8", "--seed=3", "--top-k=9", "--json") == 0
    shown = capsys.readouterr()
    printed = values(shown.out)
    assert {name: printed[name] for name in ("prompt", "seed", "top_k", "temperature")} == {
        "prompt": "Two",
        "seed": 3,
        "top_k": 9,
        "temperature": 0.8,
    }
    assert len(printed["samples"]) == 2
    assert printed["tokens_per_s"] > 0
    assert shown.err == ""


def sample_of(tokens: bytes) -> tuple[Sample, list[str]]:
    grown = Sample(BYTES.encoding(), BYTES.bos_id)
    return grown, [grown.add(token) for token in tokens]


@given(st.text())
def test_characters_appear_whole_however_many_tokens_they_take(text: str) -> None:
    grown, pieces = sample_of(text.encode())
    assert "".join(pieces) == grown.text == text
    assert all(piece == "" or piece in text for piece in pieces)


def test_bytes_that_are_no_text_are_marked_and_a_cut_character_is_left_out() -> None:
    assert sample_of(b"a\xffb")[0].text == "a\ufffdb"
    assert sample_of("a🙂".encode()[:-1])[0].text == "a"


def test_a_terminal_does_not_obey_the_model() -> None:
    assert printable("a\x1b[2Jb\rc\x9bd\x7f") == r"a\x1b[2Jb\rc\x9bd\x7f"
    assert printable("naïve\n\t東京 🙂\u200d\xa0") == "naïve\n\t東京 🙂\u200d\xa0"


# ---------------------------------------------------------------------- from where


def test_a_folder_of_checkpoints_stands_for_its_newest(trained: Trained, tmp_path: Path) -> None:
    assert checkpoint_at(trained.out) == trained.out / "step_000120"
    assert checkpoint_at(trained.out / "step_000060") == trained.out / "step_000060"


def test_of_several_tokenizers_the_one_that_fits_is_used(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "bytes.json"
    BYTES.save(other)
    assert trained.sample(f"--tokenizer={other}", "--max-tokens=3") == 0
    assert trained.sample(f"--tokenizer={trained.tokenizer}", "--max-tokens=3") == 0, "the same one twice is no conflict"


def test_how_it_was_trained_does_not_matter(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A checkpoint of a card, with 8-bit products and a compiled model, on this CPU."""
    (tmp_path / "weights.safetensors").hardlink_to(trained.out / "step_000120" / "weights.safetensors")
    state = values((trained.out / "step_000120" / "state.json").read_text())
    state["config"] |= {"fp8": True, "compile": True, "dtype": "bfloat16", "attention_backend": "flash"}
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert trained.sample("--prompt=東京の空", "--max-tokens=12", "--temperature=0", checkpoint=tmp_path) == 0
    assert capsys.readouterr().out.startswith("東京の空は青")


SUBMISSION = {
    "config": "def configure(config):\n    return config.with_(num_kv_heads=config.num_kv_heads // 2)\n",
    "model": """\
import torch
from baseline.model import GPT


class Louder(GPT):
    def __init__(self, config, ops):
        super().__init__(config, ops)
        self.loudness = torch.nn.Parameter(torch.ones(1))

    def head(self, x, targets):
        return super().head(x * self.loudness, targets)

    def init_weights(self, generator):
        super().init_weights(generator)
        torch.nn.init.ones_(self.loudness)


def build_model(config, ops):
    return Louder(config, ops)
""",
}


@pytest.fixture(scope="module")
def by_submission(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Path]:
    """Five steps of a model with a parameter of its own, and half the key/value heads: applied twice, `configure` would leave none."""
    folder, out = tmp_path_factory.mktemp("submission"), tmp_path_factory.mktemp("run")
    for slot, text in SUBMISSION.items():
        (folder / f"{slot}.py").write_text(text)
    options = [f"--rows={data / 'train'}", f"--out={out}", f"--submission={folder}", "--stop-after=5", *SIZE]
    assert train(options) == 0
    return Trained(out, data), folder


def test_a_submissions_checkpoint_speaks_with_its_slots(by_submission: tuple[Trained, Path], capsys: pytest.CaptureFixture[str]) -> None:
    run, folder = by_submission
    assert run.sample(f"--submission={folder}", "--max-tokens=5", "--json") == 0
    assert len(values(capsys.readouterr().out)["samples"][0]["tokens"]) == 5


def test_a_submissions_checkpoint_without_its_slots_says_what_is_missing(
    by_submission: tuple[Trained, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert by_submission[0].sample() == 4
    assert "--submission DIR" in capsys.readouterr().err


def test_a_submission_that_fails_is_named(by_submission: tuple[Trained, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "model.py").write_text(SUBMISSION["model"].replace("x * self.loudness", "x / 0 if 1 / 0 else x"))
    assert by_submission[0].sample(f"--submission={tmp_path}") == 3
    assert "model.py: line 11: ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(("given", "prompt"), [("東京の空\n", "東京の空"), ("two\n\n", "two\n"), ("two", "two"), ("", "")])
def test_the_prompt_may_come_from_standard_input(
    trained: Trained, given: str, prompt: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given.encode())))
    assert trained.sample("--prompt=-", "--max-tokens=1", "--json") == 0
    assert values(capsys.readouterr().out)["prompt"] == prompt


def test_standard_input_that_is_no_text_is_one_line(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe")))
    assert trained.sample("--prompt=-") == 2
    assert "--prompt: not UTF-8 text (invalid start byte)" in capsys.readouterr().err


# ---------------------------------------------------------------------- as a process


def test_a_terminal_without_the_characters_gets_question_marks(trained: Trained) -> None:
    done = trained.process("--prompt=東京 two", "--max-tokens=1", encoding="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b"?? two")


def test_a_reader_that_leaves_early_is_no_error(trained: Trained) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = trained.process(stdout=writing)
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, b"")


# ---------------------------------------------------------------------- errors


REFUSED: dict[str, tuple[list[str], int, str]] = {
    "no sample": (["--samples=0"], 2, "--samples: 0; it must be at least 1"),
    "fewer than no tokens": (["--max-tokens=-1"], 2, "--max-tokens: -1"),
    "temperature below zero": (["--temperature=-1"], 2, "--temperature: -1.0"),
    "temperature that is no number": (["--temperature=nan"], 2, "--temperature: nan"),
    "no token to draw from": (["--top-k=0"], 2, "--top-k: 0"),
    "seed out of range": (["--seed=18446744073709551616"], 2, "--seed 18446744073709551616: it must be"),
    "prompt that is no text": (["--prompt=\udcff"], 2, "--prompt: not UTF-8 text"),
    "no such submission": (["--submission=nowhere"], 2, "nowhere is no folder"),
    "no such tokenizer": (["--tokenizer=nowhere"], 2, "--tokenizer nowhere: there is no such file"),
    "more tokens than memory": (["--max-tokens=100000000000000"], 4, "not enough memory for 1 × 100,000,000,000,000 tokens"),
}


@pytest.mark.parametrize(("options", "status", "saying"), REFUSED.values(), ids=REFUSED.keys())
def test_an_argument_that_cannot_work_is_one_line(
    trained: Trained, options: list[str], status: int, saying: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trained.sample(*options) == status
    line = capsys.readouterr().err
    assert line.startswith(f"baseline.sample: {saying}"), line
    assert line.count("\n") == 1


def test_a_folder_without_checkpoints_is_named(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trained.sample(checkpoint=tmp_path) == 2
    assert f"{tmp_path} holds no checkpoint" in capsys.readouterr().err


def test_without_a_tokenizer_that_fits_the_option_is_named(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(trained.out)]) == 2
    assert "the model knows 300 tokens, and there is no tokenizer here" in capsys.readouterr().err
    BYTES.save(tmp_path / "bytes.json")
    assert main([str(trained.out), f"--tokenizer={tmp_path / 'bytes.json'}"]) == 2
    line = capsys.readouterr().err
    assert "bytes.json has 265; name the one it was trained with: --tokenizer FILE" in line


def test_two_tokenizers_that_fit_are_a_question(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = Tokenizer.load(trained.tokenizer)
    Tokenizer(own.pattern, (*own.tokens[:-1], b"quaint")).save(tmp_path / "other.json")
    assert trained.sample(f"--tokenizer={tmp_path / 'other.json'}") == 2
    assert "several tokenizers have 300 tokens" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["state.json", "weights.safetensors"])
def test_a_damaged_file_of_the_checkpoint_is_named(trained: Trained, tmp_path: Path, file: str, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (trained.out / "step_000120").glob("*s*"):
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content[: len(content) // 2] if path.name == file else content)
    assert trained.sample(checkpoint=tmp_path) == 4
    line = capsys.readouterr().err
    assert f"{tmp_path / file}: not a" in line
    assert line.count("\n") == 1


def test_a_damaged_tokenizer_is_named(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "tokenizer.json").write_bytes(trained.tokenizer.read_bytes().replace(b'"format": 1', b'"format": 2'))
    assert main([str(trained.out), f"--tokenizer={tmp_path / 'tokenizer.json'}"]) == 4
    assert "tokenizer.json is damaged" in capsys.readouterr().err
