"""Shards and buckets: any shapes on any number of ranks, small groups together, large ones alone and without copies."""

from __future__ import annotations

import math

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from baseline.buckets import fill_buckets
from baseline.contract import World
from baseline.shards import ALIGNMENT, ShardedGroup
from tests.baseline.odd_model import CPU

Shape = tuple[int, ...]
shapes = st.lists(st.lists(st.integers(1, 9), max_size=3).map(tuple), min_size=1, max_size=6)


def elements(shapes: list[Shape], unit_shape: Shape) -> dict[str, nn.Parameter]:
    """Parameters whose elements are numbered through."""
    parameters: dict[str, nn.Parameter] = {}
    offset = 0
    for index, leading in enumerate(shapes):
        empty = torch.empty((*leading, *unit_shape))
        parameters[f"p{index}"] = nn.Parameter(torch.arange(offset, offset + empty.numel()).float().view_as(empty))
        offset += empty.numel()
    return parameters


@given(shapes=shapes, unit_shape=st.sampled_from([(), (3, 5), (8, 8)]), size=st.integers(1, 9))
def test_shards_hold_every_element_once_in_whole_units(shapes: list[Shape], unit_shape: Shape, size: int) -> None:
    parameters = elements(shapes, unit_shape)
    total = sum(p.numel() for p in parameters.values())
    groups = [ShardedGroup(parameters, unit_shape, World(rank, size, CPU)) for rank in range(size)]
    owned = []
    for rank, group in enumerate(groups):
        spans = group.spans(rank)
        assert sum(span.length for span in spans) == group.length
        assert group.length % ALIGNMENT == 0
        parts = [span.of(span.parameter.detach()) for span in spans if span.parameter is not None]
        owned.append(torch.cat([torch.empty(0), *parts]))
        assert owned[-1].numel() == group.owned_units * math.prod(unit_shape)
    assert torch.equal(torch.cat(owned), torch.arange(total).float())
    units = [group.owned_units for group in groups]
    assert units == sorted(units, reverse=True)


@given(shapes=shapes)
def test_a_bucket_writes_back_what_it_read(shapes: list[Shape]) -> None:
    world = World(0, 1, CPU)
    groups = [ShardedGroup(elements(shapes, unit), unit, world) for unit in ((), (3, 5))]
    before = [parameter.detach().clone() for group in groups for parameter in group.parameters.values()]
    (bucket,) = fill_buckets(groups, world)
    with torch.no_grad():
        shard = bucket.own_parameters()
        for own in bucket.by_group(shard):
            own.add_(1)
        bucket.write_parameters(bucket.gather_parameters(shard))
    after = [parameter.detach() for group in groups for parameter in group.parameters.values()]
    assert all(torch.equal(a, b + 1) for a, b in zip(after, before, strict=True))


def test_small_groups_share_a_bucket_and_large_or_unlike_ones_do_not() -> None:
    world = World(0, 1, CPU)

    def group(megabytes: float, dtype: torch.dtype = torch.float32) -> ShardedGroup:
        count = int(megabytes * 2**20) // dtype.itemsize
        return ShardedGroup({"p": nn.Parameter(torch.empty(count, dtype=dtype))}, (), world)

    first, large, second, half, third = group(6), group(20), group(7), group(1, torch.bfloat16), group(4)
    buckets = fill_buckets([first, large, second, half, third], world)
    assert [bucket.groups for bucket in buckets] == [(first, second), (large,), (half,), (third,)]


def test_a_large_parameter_travels_without_a_copy() -> None:
    parameter = nn.Parameter(torch.randn(64, 32))
    parameter.grad = torch.randn(64, 32)
    world = World(0, 1, CPU)
    (bucket,) = fill_buckets([ShardedGroup({"p": parameter}, (), world)], world)
    assert bucket.reduce_gradients().wait().data_ptr() == parameter.grad.data_ptr()
    assert bucket.own_parameters().data_ptr() == parameter.data_ptr()
