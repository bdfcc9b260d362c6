"""The losses as PyTorch functions: any device and precision, with gradients by autograd.

>>> import torch, objective_lake as ol
>>> from objective_lake.torch import loss
>>> simpo = ol.objective("simpo")
>>> mask = torch.tensor([[True, True], [True, False]])
>>> log_prob = [torch.full((2, 2), value, requires_grad=True) for value in (-1.0, -2.0)]
>>> value, metrics = loss(simpo, chosen=(log_prob[0], mask), rejected=(log_prob[1], mask))
>>> value.backward()
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

import numpy as np
import torch
import torch.distributed as distributed

from objective_lake import _core
from objective_lake._batch import RESPONSES, Kit, Side, arrange, flat, numpy_array
from objective_lake._objective import Objective
from objective_lake._totals import Totals

__all__ = ["Loss", "loss", "step_totals"]

_HALF = (torch.float16, torch.bfloat16)


def _tensor(value: Any) -> torch.Tensor:
    if isinstance(value, torch.Tensor):
        return value
    return torch.from_numpy(numpy_array(value))


def _warn(message: str) -> None:
    if not torch.compiler.is_compiling():
        warnings.warn(message, stacklevel=5)


_KIT = Kit(_tensor, torch.cat, _warn)


def loss(
    objective: Objective,
    /,
    *,
    totals: Optional[Totals] = None,
    held: Optional[Any] = None,
    process_group: Optional[Any] = None,
    **columns: Any,
) -> tuple[torch.Tensor, Mapping[str, float]]:
    """The loss of a batch as a tensor with a gradient, and metrics.

    Columns are those of ``Objective.evaluate``, as tensors: padded [batch, time] with a mask, packed with ``lengths`` or
    ``cumulative_lengths``, or lists of tensors of one dimension. A side is a tuple
    ``(log_prob, mask, reference_log_prob)`` or a dictionary of columns.

    The loss is computed in float64 and answered in float64 for columns in float64, otherwise in float32; gradients have
    the precision of their column. Only the columns ``objective.statistics`` have a gradient; the others are constants.

    ``totals`` are the counts of the whole step where the batch is a micro-batch: the losses of the micro-batches then
    add up to the loss of the step, so do not divide by their number.

    ``process_group`` joins the ranks of a step: counts are summed over the group, and an objective whose responses are
    coupled gets the columns of every rank. The losses of the ranks add up to the loss of the step; where the wrapper of
    the model averages gradients over ranks (DDP, FSDP), multiply the loss by the number of ranks.
    """
    sides = arrange(objective, columns, _KIT)
    call = _Call(objective, sides, totals, held, process_group)
    statistics = [side.arrays[name] for side in sides for name in objective.statistics]
    device = statistics[0].device
    for side in sides:
        for name, array in side.arrays.items():
            if isinstance(array, torch.Tensor) and array.device != device:
                raise ValueError(
                    f"{side.prefix}{name}: expected a tensor on {device}, as {objective.statistics[0]}, "
                    f"got {array.device}"
                )
    statistics = [tensor.float() if tensor.dtype in _HALF else tensor for tensor in statistics]
    if torch.compiler.is_compiling() and process_group is None and held is None:
        return _compiled(call, statistics)
    value = _Evaluate.apply(call, *statistics)
    return value, call.metrics[0]


class Loss(torch.nn.Module):
    """A loss as a module: what the objective remembers from step to step (``bco``) is in its ``state_dict``.

    >>> bco = Loss(ol.objective("bco"))
    >>> value, metrics = bco(log_prob=log_prob, mask=mask, reference_log_prob=reference, desirable=labels)
    """

    def __init__(self, objective: Objective) -> None:
        super().__init__()
        self.objective = objective

    def forward(self, **columns: Any) -> tuple[torch.Tensor, Mapping[str, float]]:
        """``loss`` of the objective."""
        return loss(self.objective, **columns)

    def get_extra_state(self) -> dict[str, Any]:
        return self.objective.state_dict()

    def set_extra_state(self, state: dict[str, Any]) -> None:
        self.objective.load_state_dict(state)

    def extra_repr(self) -> str:
        return repr(self.objective)


def step_totals(objective: Objective, batches: Sequence[dict[str, Any]], process_group: Optional[Any] = None) -> Totals:
    """The counts of a step: of its micro-batches, each a dictionary of columns, and of all ranks of a process group."""
    parts = []
    for columns in batches:
        call = _Call(objective, arrange(objective, columns, _KIT), None, None, None)
        parts.append(objective._core.totals_flat(call.flat(call.host())))
    own = [sum(counts) for counts in zip(*parts)]
    return Totals(*(_sum_over(own, process_group) if process_group is not None else own))


class _Call:
    """One evaluation: an objective, the arrays of its sides, and what came out."""

    def __init__(self, objective, sides, totals, held, process_group) -> None:
        self.objective: Objective = objective
        self.sides: list[Side] = sides
        self.totals: Optional[Totals] = totals
        self.held = held
        self.process_group = process_group
        self.metrics: list[dict[str, float]] = []

    def host(self) -> list[dict[str, np.ndarray]]:
        """The arrays of each side in the memory of the CPU, by one copy."""
        hosted: list[dict[str, np.ndarray]] = [{} for _ in self.sides]
        remote = []
        for place, side in enumerate(self.sides):
            for name, array in side.arrays.items():
                if not isinstance(array, torch.Tensor):
                    hosted[place][name] = array
                elif array.is_cpu:
                    array = array.float() if array.dtype is torch.bfloat16 else array
                    hosted[place][name] = array.numpy(force=True)
                else:
                    remote.append((place, name, array))
        if remote:
            for (place, name, array), values in zip(remote, _one_copy([array for _, _, array in remote])):
                hosted[place][name] = values.reshape(array.shape)
        return hosted

    def flat(self, hosted: list[dict[str, np.ndarray]]) -> list[tuple]:
        measure = self.objective.statistics[0]
        return [flat(side, arrays, measure) for side, arrays in zip(self.sides, hosted)]

    def evaluate(self) -> tuple[float, list[np.ndarray]]:
        """The loss, and the cotangents of each side's statistics."""
        hosted = self.host()
        sides, objective = self.flat(hosted), self.objective
        totals = None if self.totals is None else self.totals.counts()
        if self.process_group is None:
            value, cotangents, metrics = objective._core.evaluate_flat(sides, totals, self.held)
        elif objective.coupled:
            value, cotangents, metrics = _evaluate_gathered(objective, sides, self.process_group)
        else:
            if totals is None:
                totals = tuple(_sum_over(objective._core.totals_flat(sides), self.process_group))
            value, cotangents, metrics = objective._core.evaluate_flat(sides, totals, self.held)
        self.metrics.append(metrics)
        return value, [
            cotangents[place][name].reshape(side.arrays[name].shape)
            for place, side in enumerate(self.sides) for name in objective.statistics
        ]


def _one_copy(tensors: list[torch.Tensor]) -> list[np.ndarray]:
    """Tensors of another device as arrays, by one copy."""
    exact = any(t.dtype == torch.float64 or not (t.dtype.is_floating_point or t.dtype == torch.bool) for t in tensors)
    dtype = torch.float64 if exact else torch.float32
    row = torch.cat([tensor.detach().reshape(-1).to(dtype) for tensor in tensors]).cpu().numpy()
    ends = np.cumsum([tensor.numel() for tensor in tensors])[:-1]
    return np.split(row, ends)


class _Evaluate(torch.autograd.Function):
    @staticmethod
    def forward(ctx, call: _Call, *statistics: torch.Tensor) -> torch.Tensor:
        value, cotangents = call.evaluate()
        dtype = torch.float64 if any(tensor.dtype == torch.float64 for tensor in statistics) else torch.float32
        if statistics[0].is_cpu:
            # A column in float32 or float64 has its cotangents in the same precision.
            ctx.cotangents = [torch.from_numpy(cotangent) for cotangent in cotangents]
            return torch.tensor(value, dtype=dtype)
        row = torch.from_numpy(np.concatenate([[value], *(c.reshape(-1) for c in cotangents)]))
        row = row.to(dtype).to(statistics[0].device)
        parts = row[1:].split([tensor.numel() for tensor in statistics])
        ctx.cotangents = [part.view(t.shape).to(t.dtype) for part, t in zip(parts, statistics)]
        return row[0].clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient: torch.Tensor):
        needed = zip(ctx.needs_input_grad[1:], ctx.cotangents)
        return (None, *(_scaled(gradient, cotangent) if need else None for need, cotangent in needed))


def _scaled(gradient: torch.Tensor, cotangent: torch.Tensor) -> torch.Tensor:
    return cotangent * (gradient if gradient.dtype == cotangent.dtype else gradient.to(cotangent.dtype))


def _sum_over(counts: Sequence[int], process_group) -> list[int]:
    """Counts summed over the ranks of a group."""
    device = distributed.get_backend(process_group)
    tensor = torch.tensor(list(counts), dtype=torch.int64, device="cuda" if device == "nccl" else "cpu")
    distributed.all_reduce(tensor, group=process_group)
    return tensor.tolist()


def _evaluate_gathered(objective: Objective, sides: list[tuple], process_group):
    """Evaluates the columns of all ranks together: this rank's share of the loss, and the cotangents of its columns."""
    places = [_kept(side) for side in sides]
    own = [_compact(side, kept) for side, kept in zip(sides, places)]
    ranks: list[Any] = [None] * distributed.get_world_size(process_group)
    distributed.all_gather_object(ranks, own, group=process_group)
    rank = distributed.get_rank(process_group)
    joined = [_joined([sides_of_rank[place] for sides_of_rank in ranks]) for place in range(len(sides))]
    value, cotangents, metrics = objective._core.evaluate_flat(joined)
    shares = []
    for place, (side, kept) in enumerate(zip(sides, places)):
        first = sum(int(ranks[before][place][1][-1]) for before in range(rank))
        share = {}
        for name, values in cotangents[place].items():
            share[name] = np.zeros(side[0][name].shape, dtype=values.dtype)
            share[name][kept] = values[first:first + kept.size]
        shares.append(share)
    return value / len(ranks), shares, metrics


def _kept(side: tuple) -> np.ndarray:
    """The places of a side's tokens that the mask leaves in."""
    columns, bounds, mask = side
    return np.arange(bounds[-1]) if mask is None else np.flatnonzero(mask)


def _compact(side: tuple, kept: np.ndarray) -> tuple:
    """A side without the tokens that the mask leaves out."""
    columns, bounds, mask = side
    tokens = int(bounds[-1])
    of_tokens = {
        name: array[kept] if name not in RESPONSES and array.size == tokens else array
        for name, array in columns.items()
    }
    return of_tokens, np.searchsorted(kept, bounds), None


def _joined(parts: list[tuple]) -> tuple:
    """The sides of several ranks behind one another; the groups of each rank are others than those before."""
    columns = {}
    for name in parts[0][0]:
        values = [part[0][name] for part in parts]
        if name == "group":
            least, shifted = 0, []
            for value in values:
                shifted.append(value + least)
                least = int(shifted[-1].max(initial=least - 1)) + 1
            values = shifted
        columns[name] = np.concatenate(values)
    bounds, first = [np.zeros(1, dtype=np.int64)], 0
    for part in parts:
        bounds.append(part[1][1:] + first)
        first += int(part[1][-1])
    return columns, np.concatenate(bounds), None


# What follows is for torch.compile: one operator that the compiler takes as it is.

_METRICS = _core.metrics()


class _Metrics(Mapping):
    """Metrics of a compiled evaluation, read when somebody asks for one."""

    def __init__(self, means: torch.Tensor) -> None:
        self.means = means

    def _observed(self) -> dict[str, float]:
        return {name: mean for name, mean in zip(_METRICS, self.means.tolist()) if mean == mean}

    def __getitem__(self, name: str) -> float:
        return self._observed()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._observed())

    def __len__(self) -> int:
        return len(self._observed())

    def __repr__(self) -> str:
        return repr(self._observed())


def _compiled(call: _Call, statistics: list[torch.Tensor]) -> tuple[torch.Tensor, Mapping[str, float]]:
    objective, sides = call.objective, call.sides
    layout = ";".join(",".join([side.name, *side.arrays]) for side in sides)
    arrays = [array for side in sides for array in side.arrays.values()]
    arrays = [array if isinstance(array, torch.Tensor) else torch.as_tensor(array) for array in arrays]
    counts = call.totals.counts() if call.totals is not None else (None,) * 5
    totals = [-1 if given is None else given for given in counts]
    value, _, means = torch.ops.objective_lake.evaluate(
        objective.number, layout, totals, statistics, [array.detach() for array in arrays]
    )
    return value, _Metrics(means)


@torch.library.custom_op("objective_lake::evaluate", mutates_args=())
def _evaluate(
    objective: int, layout: str, totals: Sequence[int], statistics: Sequence[torch.Tensor], arrays: Sequence[torch.Tensor]
) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """The loss, its cotangents by each statistic, and its metrics, of which those that were not observed are no numbers."""
    rest, sides = iter(arrays), []
    for side in layout.split(";"):
        name, *names = side.split(",")
        sides.append(Side(name, {own: next(rest) for own in names}, False))
    known = Totals(*(None if given < 0 else given for given in totals))
    call = _Call(Objective.numbered[objective], sides, known, None, None)
    ctx = _Context()
    value = _Evaluate.forward(ctx, call, *statistics)
    means = torch.tensor([call.metrics[0].get(name, math.nan) for name in _METRICS], dtype=torch.float64)
    return value, ctx.cotangents, means


class _Context:
    cotangents: list[torch.Tensor]


@_evaluate.register_fake
def _(objective, layout, totals, statistics, arrays):
    wide = any(tensor.dtype == torch.float64 for tensor in statistics)
    value = statistics[0].new_empty((), dtype=torch.float64 if wide else torch.float32)
    cotangents = [torch.empty_like(tensor, memory_format=torch.contiguous_format) for tensor in statistics]
    return value, cotangents, torch.empty(len(_METRICS), dtype=torch.float64)


def _save(ctx, inputs, output) -> None:
    ctx.arrays = len(inputs[4])
    ctx.save_for_backward(*output[1])


def _backward(ctx, gradient, _cotangents, _means):
    return None, None, None, [_scaled(gradient, cotangent) for cotangent in ctx.saved_tensors], [None] * ctx.arrays


_evaluate.register_autograd(_backward, setup_context=_save)
