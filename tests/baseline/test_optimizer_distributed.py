"""The optimizer over 1, 2 and 4 gloo processes: the same training, a sharded state, checkpoints that move between world sizes."""

from __future__ import annotations

import pytest
from torch import Tensor

from tests.baseline.odd_model import OddModel
from tests.baseline.optimizer_ranks import HALFWAY, Trail, train_at_every_size


@pytest.fixture(scope="module")
def trails(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[Trail]]:
    """World size -> each rank's trail."""
    return train_at_every_size(tmp_path_factory.mktemp("ranks"))


def difference(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest absolute difference between two sets of parameters."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


# ---------------------------------------------------------------------- training


def test_all_ranks_hold_the_same_parameters_bit_for_bit(trails: dict[int, list[Trail]]) -> None:
    for ranks in trails.values():
        assert all(difference(ranks[0].final, trail.final) == 0 for trail in ranks)


@pytest.mark.parametrize("size", [2, 4])
def test_the_number_of_ranks_does_not_change_the_training(trails: dict[int, list[Trail]], size: int) -> None:
    alone = trails[1][0]
    assert difference(alone.final, OddModel().values()) > 0.01
    assert difference(alone.final, trails[size][0].final) < 1e-6


def test_what_shares_a_bucket_does_not_change_the_training(trails: dict[int, list[Trail]]) -> None:
    for trail in [trail for ranks in trails.values() for trail in ranks]:
        assert difference(trail.alone, trail.final) < 1e-6


def test_the_state_is_shared_out_rather_than_repeated(trails: dict[int, list[Trail]]) -> None:
    alone = trails[1][0].state_bytes
    for size, ranks in trails.items():
        held = [trail.state_bytes for trail in ranks]
        assert sum(held) == alone
        assert max(held) < alone * (1 / size + 0.35)


def test_some_ranks_have_no_matrix_of_a_shape_that_occurs_once(trails: dict[int, list[Trail]]) -> None:
    assert [trail.largest_group for trail in trails[4]] == [2, 2, 1, 0]


# ---------------------------------------------------------------------- checkpoints


def test_every_rank_gets_the_whole_state_whatever_the_world_size(trails: dict[int, list[Trail]]) -> None:
    expected = trails[1][0].state
    for trail in [trail for ranks in trails.values() for trail in ranks]:
        assert trail.state["steps"] == HALFWAY
        assert trail.state["parameters"].keys() == expected["parameters"].keys()
        for name, tensors in expected["parameters"].items():
            assert trail.state["parameters"][name].keys() == tensors.keys()
            assert difference(trail.state["parameters"][name], tensors) < 1e-5


def test_resuming_at_the_same_world_size_is_bit_identical(trails: dict[int, list[Trail]]) -> None:
    for trail in trails[2]:
        assert difference(trail.resumed, trail.final) == 0


@pytest.mark.parametrize("size", [1, 4])
def test_a_state_saved_by_two_ranks_goes_on_at_any_world_size(trails: dict[int, list[Trail]], size: int) -> None:
    assert difference(trails[size][0].resumed, trails[2][0].final) < 1e-6
