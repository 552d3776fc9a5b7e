"""Who owns what: parameters laid end to end and cut into one shard per rank, each rank keeping the optimizer state of its own shard.

Any shapes, any number of parameters and any number of ranks work: the last shards are padded, and may be padding only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from baseline.contract import World

ALIGNMENT = 64
"""Shards are multiples of this many elements, so that every group starts on the boundary that vectorised kernels need."""

ParameterState = dict[str, Tensor]
"""State tensors of one parameter by name, for example {"mean": ..., "mean_square": ...}."""

if hasattr(dist, "all_gather_single"):
    all_gather_flat, reduce_scatter_flat = dist.all_gather_single, dist.reduce_scatter_single
else:  # torch before 2.13
    all_gather_flat, reduce_scatter_flat = dist.all_gather_into_tensor, dist.reduce_scatter_tensor


class StateError(ValueError):
    """An optimizer state that does not belong to this optimizer. The message names the parameter and the mend."""


@dataclass(frozen=True, slots=True)
class Span:
    """Elements [start, stop) of one flattened parameter; without a parameter, that much padding."""

    parameter: nn.Parameter | None
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start

    def of(self, tensor: Tensor) -> Tensor:
        """This span of a tensor shaped like the parameter, as a flat view where its layout allows one."""
        flat = tensor.reshape(-1)
        return flat if self.length == flat.numel() else flat[self.start : self.stop]


class ShardedGroup:
    """Parameters that are updated together, in units that stay whole on one rank.

    `unit_shape` is the trailing shape of a unit: () where elements are independent (Adam), (m, n) where a matrix is
    updated as a whole (Muon). A parameter with further leading dimensions is a stack of units.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], unit_shape: tuple[int, ...], world: World) -> None:
        self.parameters = dict(parameters)
        self.unit_shape = unit_shape
        self.world = world
        self.state: ParameterState = {}
        self._unit = math.prod(unit_shape)
        self._units = sum(p.numel() for p in self.parameters.values()) // self._unit
        self._units_per_rank = math.ceil(self._units / world.size)
        self.length = math.ceil(self._units_per_rank * self._unit / ALIGNMENT) * ALIGNMENT
        """Elements in each rank's shard, padding included."""
        self.owned_units = len(self._units_of(world.rank))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype that all parameters of the group share."""
        return next(iter(self.parameters.values())).dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the group's parameters."""
        return sum(parameter.nbytes for parameter in self.parameters.values())

    def _units_of(self, rank: int) -> range:
        first = min(rank * self._units_per_rank, self._units)
        return range(first, min(first + self._units_per_rank, self._units))

    def spans(self, rank: int) -> list[Span]:
        """What a rank's shard is made of, in order; the lengths add up to `length`."""
        owned = self._units_of(rank)
        start, stop = owned.start * self._unit, owned.stop * self._unit
        spans, offset = [], 0
        for parameter in self.parameters.values():
            first, last = max(start - offset, 0), min(stop - offset, parameter.numel())
            if first < last:
                spans.append(Span(parameter, first, last))
            offset += parameter.numel()
        padding = self.length - (stop - start)
        return [*spans, Span(None, 0, padding)] if padding else spans

    def owned(self, shard: Tensor) -> Tensor:
        """View of a shard (length,) without its padding: (owned units, *unit_shape)."""
        return shard[: self.owned_units * self._unit].view(self.owned_units, *self.unit_shape)

    def add_state(self, name: str, shape: tuple[int, ...]) -> None:
        """Allocate a state tensor (owned units, *shape), float32 zeros."""
        self.state[name] = torch.zeros(self.owned_units, *shape, device=self.world.device)

    # ------------------------------------------------------------------ state of whole parameters

    def whole_state(self) -> dict[str, ParameterState]:
        """Every parameter's state, gathered from all ranks (collective): copies on the CPU. Leading dimensions are the parameter's."""
        whole: dict[str, ParameterState] = {name: {} for name in self.parameters}
        for key, tensor in self.state.items():
            rows = self._gathered(tensor).cpu()
            counts = [parameter.numel() // self._unit for parameter in self.parameters.values()]
            for name, part in zip(self.parameters, rows.split_with_sizes(counts), strict=True):
                whole[name][key] = part.reshape(self._state_shape(name, key)).clone()
        return whole

    def load_whole_state(self, whole: Mapping[str, ParameterState]) -> None:
        """Take this rank's shard out of every parameter's whole state. Raises StateError if names or shapes differ."""
        self._check(whole)
        owned = self._units_of(self.world.rank)
        for key, tensor in self.state.items():
            rows = torch.cat([whole[name][key].reshape(-1, *tensor.shape[1:]) for name in self.parameters])
            tensor.copy_(rows[owned.start : owned.stop])

    def _gathered(self, tensor: Tensor) -> Tensor:
        """(owned units, ...) on each rank -> (all units, ...)."""
        if self.world.size == 1:
            return tensor
        mine = tensor.new_zeros(self._units_per_rank, *tensor.shape[1:])
        mine[: self.owned_units] = tensor
        everyone = tensor.new_empty(self.world.size * mine.numel())
        all_gather_flat(everyone, mine.view(-1))
        return everyone.view(-1, *tensor.shape[1:])[: self._units]

    def _state_shape(self, name: str, key: str) -> tuple[int, ...]:
        shape = self.parameters[name].shape
        return (*shape[: len(shape) - len(self.unit_shape)], *self.state[key].shape[1:])

    def _check(self, whole: Mapping[str, ParameterState]) -> None:
        for name in self.parameters:
            held = {key: tuple(tensor.shape) for key, tensor in whole.get(name, {}).items()}
            wanted = {key: self._state_shape(name, key) for key in self.state}
            if held != wanted:
                raise StateError(
                    f"optimizer state of {name!r}: the checkpoint holds {held or 'nothing'}, this optimizer needs {wanted}; "
                    "resume with the submission and the config that the checkpoint was written with"
                )
