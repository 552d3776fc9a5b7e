"""Gradients and parameters on their way between ranks: a bucket takes one reduce-scatter and one all-gather per step.

A collective costs a fixed latency however small it is, so small groups share a bucket. Large groups have one each, so that
one bucket communicates while another one computes.

Layout of a bucket's flat buffer for two groups a and b on two ranks, each |...| one shard:

    | a, rank 0 | b, rank 0 || a, rank 1 | b, rank 1 |
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from baseline.contract import World
from baseline.shards import ShardedGroup, Span, all_gather_flat, reduce_scatter_flat

BUCKET_BYTES = 16 * 2**20
"""Groups share a bucket up to this many bytes. An H100's NVLink carries 450 GB/s each way, so 16 MiB take 37 µs: smaller pieces
would mostly wait for the collective to start."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A collective under way. `source` is held so that its memory is not reused before the collective has read it."""

    result: Tensor
    source: Tensor
    work: dist.Work | None = None

    def wait(self) -> Tensor:
        """The result, ready for the current stream."""
        if self.work is not None:
            self.work.wait()
        return self.result


class Bucket:
    """Groups of one dtype that are communicated together."""

    def __init__(self, groups: Sequence[ShardedGroup], world: World) -> None:
        self.groups = tuple(groups)
        self.length = sum(group.length for group in groups)
        self._world = world
        self._spans = [[span for group in groups for span in group.spans(rank)] for rank in range(world.size)]
        self._in_place = self._parameter_that_is_its_own_buffer()

    def _parameter_that_is_its_own_buffer(self) -> nn.Parameter | None:
        """The bucket's only parameter, if its memory needs no padding: then nothing is copied in or out."""
        parameters = [p for group in self.groups for p in group.parameters.values()]
        whole = len(parameters) == 1 and parameters[0].numel() == self.length * self._world.size
        return parameters[0] if whole else None

    # ------------------------------------------------------------------ gradients in

    def reduce_gradients(self) -> Transfer:
        """Start summing all ranks' gradients; the result is this rank's shard (length,) of the sum."""
        flat = self._flat_gradients()
        if self._world.size == 1:
            return Transfer(flat, flat)
        shard = flat.new_empty(self.length)
        return Transfer(shard, flat, reduce_scatter_flat(shard, flat, op=dist.ReduceOp.SUM, async_op=True))

    def mean_gradients(self, transfer: Transfer) -> Tensor:
        """The finished sum divided by the number of ranks. (Not every backend can average by itself.)"""
        total = transfer.wait()
        return total if self._world.size == 1 else total.mul_(1 / self._world.size)

    def _flat_gradients(self) -> Tensor:
        if self._in_place is not None and self._in_place.grad is not None:
            return self._in_place.grad.reshape(-1)
        return torch.cat([self._gradient(span) for spans in self._spans for span in spans])

    def _gradient(self, span: Span) -> Tensor:
        """A span of its parameter's gradient; zeros for padding and for parameters that the loss did not reach."""
        if span.parameter is None or span.parameter.grad is None:
            return self._zeros(span.length)
        return span.of(span.parameter.grad)

    def _zeros(self, length: int) -> Tensor:
        return torch.zeros(length, dtype=self.groups[0].dtype, device=self._world.device)

    # ------------------------------------------------------------------ parameters out and back

    def own_parameters(self) -> Tensor:
        """This rank's shard (length,) of the parameters, to be updated in place."""
        if self._in_place is not None:
            start = self._world.rank * self.length
            return self._in_place.detach().view(-1)[start : start + self.length]
        spans = self._spans[self._world.rank]
        return torch.cat([self._zeros(s.length) if s.parameter is None else s.of(s.parameter.detach()) for s in spans])

    def gather_parameters(self, shard: Tensor) -> Transfer:
        """Start collecting every rank's updated shard; the result is the flat buffer (ranks · length,)."""
        if self._world.size == 1:
            return Transfer(shard, shard)
        flat = shard.new_empty(self._world.size * self.length) if self._in_place is None else self._in_place.detach().view(-1)
        return Transfer(flat, shard, all_gather_flat(flat, shard, async_op=True))

    def write_parameters(self, transfer: Transfer) -> None:
        """Copy the gathered buffer back into the parameters."""
        flat = transfer.wait()
        if self._in_place is not None:
            return
        spans = [span for spans in self._spans for span in spans]
        parts = flat.split_with_sizes([span.length for span in spans])
        pairs = [(s.of(s.parameter.detach()), part) for s, part in zip(spans, parts, strict=True) if s.parameter is not None]
        targets, sources = zip(*pairs, strict=True)
        torch._foreach_copy_(targets, sources)

    def by_group(self, shard: Tensor) -> list[Tensor]:
        """Each group's own units in a shard: views (owned units, *unit_shape), in the order of `groups`."""
        parts = shard.split_with_sizes([group.length for group in self.groups])
        return [group.owned(part) for group, part in zip(self.groups, parts, strict=True)]


def fill_buckets(groups: Sequence[ShardedGroup], world: World) -> list[Bucket]:
    """Put every group into a bucket: large ones alone, small ones of one dtype together, up to `BUCKET_BYTES` each."""
    filled: list[list[ShardedGroup]] = []
    open_buckets: dict[torch.dtype, list[ShardedGroup]] = {}
    for group in groups:
        bucket = open_buckets.get(group.dtype)
        if bucket is not None and sum(member.nbytes for member in [*bucket, group]) <= BUCKET_BYTES:
            bucket.append(group)
            continue
        filled.append([group])
        if group.nbytes <= BUCKET_BYTES:
            open_buckets[group.dtype] = filled[-1]
    return [Bucket(members, world) for members in filled]
