"""Models in Hugging Face's format as the evaluator sees them: a folder, a GGUF file, or a name on the hub. Needs the extra `hf`.

Nothing here imports torch: the model itself runs in `pretrained_server`'s process.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.errors import MachineLacks, UsageProblem

DOCUMENT_START = "<|endoftext|>"
"""Where a vocabulary has it, it is what documents begin with in pretraining, whatever a chat template calls BOS."""
INSTALL = "pip install 'speedrun[hf]'"
WHAT_IT_CAN_BE = "name a checkpoint step_NNNNNN, a folder in Hugging Face's format, a .gguf file, or a model on the hub"
HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
HUB_FILES = ("*.json", "*.txt", "*.model", "*.safetensors")
"""Of a model's repository: config, tokenizer and weights, each in one format only."""


@dataclass(frozen=True, slots=True)
class PretrainedTokenizer:
    """A tokenizer of `transformers`. Fulfils `core.tokenizer.Tokenizer`."""

    name: str
    """Folder."""
    gguf: str | None
    bos_id: int
    digest: str
    splits_before_spaces: bool = field(default=False, init=False)
    """Nothing is known of its pattern."""
    _loaded: list[Any] = field(default_factory=list, init=False, repr=False, compare=False)

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.int32]]:
        if not texts:
            return []
        if not self._loaded:
            self._loaded.append(_load_tokenizer(self.name, self.gguf))
        encoded = self._loaded[0](list(texts), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        return [np.array(ids, np.int32) for ids in encoded]

    def __reduce__(self) -> tuple[Any, ...]:
        """Workers load it anew."""
        return PretrainedTokenizer, (self.name, self.gguf, self.bos_id, self.digest)


@dataclass(frozen=True, slots=True)
class PretrainedModel:
    """What is to be known of a model before its process runs."""

    name: str
    """Folder."""
    gguf: str | None
    """Name of a file in it."""
    vocab_size: int
    max_length: int | None
    """Most tokens of a row."""
    tokenizer: PretrainedTokenizer

    @property
    def loaded_bytes(self) -> int:
        """At most so large is the model in float32: what is stored has at least 4 bits a weight in GGUF files, and 16 elsewhere."""
        if self.gguf:
            return 8 * Path(self.name, self.gguf).stat().st_size
        return 2 * sum(file.stat().st_size for file in Path(self.name).glob("*.safetensors"))

    @property
    def command(self) -> tuple[str, ...]:
        """The server's module and its arguments."""
        file = ("--gguf", self.gguf) if self.gguf else ()
        return ("harness.evaluate.pretrained_server", "--model", self.name, *file, "--vocab-size", str(self.vocab_size))


def open_pretrained(name: str) -> PretrainedModel:
    """The model at a folder, in a `.gguf` file, or of that name on the hub, which is downloaded unless it has been before.

    Raises MachineLacks without the extra or where the hub does not answer, UsageProblem for what is no language model.
    """
    path = Path(name)
    folder, gguf = (path.resolve().parent, path.name) if path.suffix == ".gguf" and path.is_file() else (path.resolve(), None)
    if not folder.is_dir():
        folder = _downloaded(name)
    try:
        config = _transformers().AutoConfig.from_pretrained(folder, **({"gguf_file": gguf} if gguf else {}))
        tokenizer = _load_tokenizer(str(folder), gguf)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageProblem(f"holds no model that can be read: {reason}", where=str(folder), mend=WHAT_IT_CAN_BE) from None
    return PretrainedModel(
        name=str(folder),
        gguf=gguf,
        vocab_size=int(config.vocab_size),
        max_length=getattr(config, "max_position_embeddings", None),
        tokenizer=PretrainedTokenizer(str(folder), gguf, _document_start(tokenizer), _digest(tokenizer)),
    )


def _downloaded(name: str) -> Path:
    """The folder of the hub's files of that name. Raises UsageProblem for a name that no model can have, MachineLacks without the files."""
    if not HUB_NAME.fullmatch(name):
        raise UsageProblem("is neither a file nor a folder", where=name, mend=WHAT_IT_CAN_BE)
    _transformers()
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # whatever the network does, the model is not here
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise MachineLacks(f"could not be fetched from the hub: {reason}", where=name, mend=WHAT_IT_CAN_BE) from None


def _document_start(tokenizer: Any) -> int:
    ids = tokenizer.get_vocab()
    found = ids.get(DOCUMENT_START, tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id)
    if found is None:
        raise UsageProblem("the tokenizer has no token that begins a document", where=str(tokenizer.name_or_path))
    return int(found)


def _digest(tokenizer: Any) -> str:
    """SHA-256 over everything that decides the ids: the fast tokenizer's own description, and the start of documents."""
    description = tokenizer.backend_tokenizer.to_str()
    return hashlib.sha256(f"{_document_start(tokenizer)}\n{description}".encode()).hexdigest()


def _load_tokenizer(name: str, gguf: str | None) -> Any:
    return _transformers().AutoTokenizer.from_pretrained(name, **({"gguf_file": gguf} if gguf else {}))


def _transformers() -> Any:
    try:
        import transformers
    except ImportError:
        raise MachineLacks("models in Hugging Face's format need the package transformers", mend=INSTALL) from None
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    return transformers
