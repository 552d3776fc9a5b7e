"""What `speedrun eval CHECKPOINT` names, as something to evaluate: a checkpoint of the baseline's trainer, or a pretrained model."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from baseline.config import ConfigError, TrainConfig
from baseline.data.errors import DataError
from baseline.data.tokenizer import Tokenizer
from harness.errors import UsageProblem
from harness.evaluate.core.tokenizer import TiktokenTokenizer
from harness.evaluate.core_run import Subject
from harness.evaluate.crew import usable_cards
from harness.evaluate.model_server import ServedModel
from harness.evaluate.pretrained import open_pretrained
from harness.evaluate.probes import TOLERANCE

STATE, WEIGHTS = "state.json", "weights.safetensors"
"""Names that `baseline.checkpoint` gives its files."""
PRETRAINED_TOLERANCE = {"float32": 1e-2, "bfloat16": 2.0}
"""Wider than `probes.TOLERANCE`: the logits of these models are not capped, and their code is nobody's entry."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint of the baseline's trainer."""

    folder: Path
    config: TrainConfig
    step: int

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS

    @property
    def loaded_bytes(self) -> int:
        """Size of the model in memory."""
        return self.weights.stat().st_size if self.weights.is_file() else 0

    def served(self, submission: Path | None, scratch: Path) -> ServedModel:
        """How to serve it; writes its config into `scratch`. It is served with whatever attention runs here."""
        config = scratch / "config.json"
        config.write_text(json.dumps(self.config.with_(attention_backend="auto").to_dict()))
        entry = None if submission is None else submission.resolve()
        model = ServedModel.trained(config, entry, self.weights.resolve(), self.config.vocab_size)
        return ServedModel((*model.command, "--configured"), model.vocab_size)


def find_checkpoint(name: str) -> Checkpoint | None:
    """The checkpoint in the folder `name`, or the newest in its `step_NNNNNN`; None where there is none.

    Raises UsageProblem for one that cannot be read.
    """
    folder = Path(name)
    whole = [folder / STATE] if (folder / STATE).is_file() else sorted(folder.glob(f"step_*/{STATE}"))
    if not whole:
        return None
    try:
        state = json.loads(whole[-1].read_text())
        return Checkpoint(whole[-1].parent, TrainConfig.from_dict(state["config"]), int(state["step"]))
    except (OSError, ValueError, KeyError, TypeError, ConfigError) as error:
        raise UsageProblem(f"is no checkpoint's state ({error})", where=str(whole[-1]), mend="name a folder step_NNNNNN") from None


def open_subject(name: str, tokenizers: Sequence[Path], submission: Path | None, scratch: Path) -> tuple[Subject, int]:
    """(what to evaluate, bytes of the model in memory). One of the `tokenizers` must fit a checkpoint; pretrained models bring theirs.

    Raises UsageProblem and MachineLacks.
    """
    checkpoint = find_checkpoint(name)
    if checkpoint is None:
        if submission is not None:
            raise UsageProblem("is no checkpoint of a training, so no submission goes with it", where=name, mend="leave out --submission")
        pretrained = open_pretrained(name)
        served = ServedModel(pretrained.command, pretrained.vocab_size)
        tolerance = PRETRAINED_TOLERANCE["bfloat16" if usable_cards() else "float32"]
        return Subject(served, pretrained.tokenizer, tolerance, pretrained.max_length), pretrained.loaded_bytes
    tokenizer = fitting_tokenizer(tokenizers, checkpoint.config.vocab_size)
    core_tokenizer = TiktokenTokenizer(tokenizer.encoding(), tokenizer.bos_id)
    tolerance = TOLERANCE[checkpoint.config.dtype]
    return Subject(checkpoint.served(submission, scratch), core_tokenizer, tolerance, None), checkpoint.loaded_bytes


def fitting_tokenizer(files: Sequence[Path], vocab_size: int) -> Tokenizer:
    """The one tokenizer among the files that has `vocab_size` tokens. Raises UsageProblem for none, or for several that differ."""
    try:
        loaded = [Tokenizer.load(file) for file in files]
    except (OSError, DataError) as error:
        raise UsageProblem(str(error), where="--tokenizer") from None
    fitting = {tokenizer.digest: tokenizer for tokenizer in loaded if tokenizer.vocab_size == vocab_size}
    if len(fitting) != 1:
        found = "several tokenizers here have" if fitting else "no tokenizer here has"
        raise UsageProblem(
            f"{found} the model's {vocab_size:,} tokens", where="--tokenizer", mend="name the file of the one it was trained with"
        )
    return next(iter(fitting.values()))
