"""Reading rows by position: the same global batches at any world size, every row once per epoch."""

from __future__ import annotations

import array
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from baseline.data.errors import DataError
from baseline.data.rows import RowFile, RowReader, epoch_order, positions

CPU = torch.device("cpu")


def row_file(rows: int, row_length: int = 5) -> RowFile:
    """Rows whose first token is their number."""
    return RowFile((np.arange(rows)[:, None] + 1000 * np.arange(row_length)).astype("<u2"))


def reading_order(rows: int, epochs: int) -> list[int]:
    return [int(row) for epoch in range(epochs) for row in epoch_order(epoch, rows)]


@given(
    world=st.integers(1, 8),
    accumulation=st.integers(1, 8),
    rows=st.integers(1, 4),
    size=st.integers(1, 60),
    cursor=st.integers(0, 200),
)
@settings(max_examples=150, deadline=None)
def test_ranks_and_micro_steps_together_read_the_next_rows_of_the_order(
    world: int, accumulation: int, rows: int, size: int, cursor: int
) -> None:
    file = row_file(size)
    batch_rows = world * accumulation * rows
    read = []
    for micro in range(accumulation):
        for rank in range(world):
            inputs, _ = RowReader(file, rank, world, CPU).batch(cursor, micro, rows)
            read += inputs[:, 0].tolist()
    epochs = (cursor + batch_rows) // size + 1
    assert read == reading_order(size, epochs)[cursor : cursor + batch_rows]


@pytest.mark.parametrize("world", range(1, 9))
@pytest.mark.parametrize("accumulation", range(1, 9))
def test_three_steps_hand_out_the_order_one_row_at_a_time(world: int, accumulation: int) -> None:
    file, rows, steps = row_file(23), 2, 3
    upcoming = iter(reading_order(23, epochs=1 + steps * world * accumulation * rows // 23))
    readers = [RowReader(file, rank, world, CPU) for rank in range(world)]
    for step in range(steps):
        for micro in range(accumulation):
            for reader in readers:
                expected = [next(upcoming) for _ in range(rows)]
                inputs, _ = reader.batch(step * world * accumulation * rows, micro, rows)
                assert inputs[:, 0].tolist() == expected


def test_the_order_within_a_batch_is_micro_step_then_rank_then_row() -> None:
    assert [list(positions(100, micro, rank, 2, 3)) for micro in range(2) for rank in range(2)] == [
        [100, 101, 102],
        [103, 104, 105],
        [106, 107, 108],
        [109, 110, 111],
    ]


def test_epoch_zero_is_the_order_of_the_file() -> None:
    assert epoch_order(0, 7).tolist() == list(range(7))


@given(st.integers(1, 500), st.integers(1, 50))
@settings(max_examples=50, deadline=None)
def test_later_epochs_read_every_row_once(rows: int, epoch: int) -> None:
    assert sorted(epoch_order(epoch, rows).tolist()) == list(range(rows))


def test_the_shuffles_are_pinned() -> None:
    assert epoch_order(1, 8).tolist() == [6, 1, 7, 5, 4, 3, 2, 0]
    assert epoch_order(2, 8).tolist() == [4, 7, 6, 2, 1, 5, 0, 3]


def test_targets_are_the_inputs_one_token_later() -> None:
    file = row_file(4, row_length=6)
    inputs, targets = RowReader(file, 0, 1, CPU).batch(1, 0, 2)
    assert inputs.shape == targets.shape == (2, 5)
    assert inputs.dtype == targets.dtype == torch.int64
    assert inputs.is_contiguous()
    assert targets.is_contiguous()
    assert inputs.tolist() == file.rows[1:3, :-1].tolist()
    assert targets.tolist() == file.rows[1:3, 1:].tolist()


def test_a_batch_is_not_overwritten_by_the_next_one() -> None:
    reader = RowReader(row_file(8), 0, 1, CPU)
    first, _ = reader.batch(0, 0, 2)
    kept = first.clone()
    for cursor in (2, 4, 6):
        reader.batch(cursor, 0, 2)
    assert torch.equal(first, kept)


def test_token_ids_above_the_signed_range_stay_positive() -> None:
    inputs, _ = RowReader(RowFile(np.full((1, 3), 65_535, dtype="<u2")), 0, 1, CPU).batch(0, 0, 1)
    assert inputs.tolist() == [[65_535, 65_535]]


def write(path: Path, rows: int = 6, row_length: int = 4) -> NDArray[np.uint16]:
    values = np.arange(rows * row_length, dtype="<u2").reshape(rows, row_length)
    values.tofile(path)
    return values


def test_rows_come_from_a_path_or_from_a_descriptor_of_another_process(tmp_path: Path) -> None:
    values = write(tmp_path / "rows.bin")
    assert (RowFile.open(tmp_path / "rows.bin", 6, 4).rows == values).all()

    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "rows.bin").open("rb") as file:
        socket.send_fds(ours, [b"go"], [file.fileno()])
        _, descriptors, _, _ = socket.recv_fds(theirs, 2, array.array("i").itemsize)
    opened = RowFile.open(descriptors[0], 6, 4)
    os.close(descriptors[0])
    (tmp_path / "rows.bin").unlink()
    assert (opened.rows == values).all()


def test_reading_rows_loads_nothing_of_the_preparation() -> None:
    program = "import sys, baseline.data.rows; print(sorted({'tiktoken', 'pyarrow', 'rustbpe', 'pandas'} & set(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True)
    assert result.stdout.strip() == "[]"


def test_the_mapped_rows_cannot_be_written(tmp_path: Path) -> None:
    write(tmp_path / "rows.bin")
    with pytest.raises(ValueError, match="read-only"):
        RowFile.open(tmp_path / "rows.bin", 6, 4).rows[0, 0] = 1


def test_a_file_of_another_size_or_none_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "rows.bin")
    with pytest.raises(DataError, match=r"rows\.bin has 48 bytes, and 7 rows of 4 tokens take 56"):
        RowFile.open(tmp_path / "rows.bin", 7, 4)
    with pytest.raises(DataError, match="absent cannot be opened"):
        RowFile.open(tmp_path / "absent", 6, 4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_queued_batches_keep_their_tokens_while_the_host_runs_ahead() -> None:
    file = row_file(4096, row_length=513)
    device = torch.device("cuda:0")
    reader, reference = RowReader(file, 0, 1, device), RowReader(file, 0, 1, CPU)
    busy = torch.randn(4096, 4096, device=device)
    batches = []
    for step in range(64):
        busy = torch.tanh(busy @ busy)  # keeps copies waiting behind compute, where a reused buffer would be overwritten
        batches.append(reader.batch(step * 64, 0, 64))
    for step, (inputs, targets) in enumerate(batches):
        expected_inputs, expected_targets = reference.batch(step * 64, 0, 64)
        assert torch.equal(inputs.cpu(), expected_inputs)
        assert torch.equal(targets.cpu(), expected_targets)
