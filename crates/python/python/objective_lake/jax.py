"""The losses as JAX functions: under ``jit`` and ``grad``, by a callback to the host.

>>> import jax, jax.numpy as jnp, objective_lake as ol
>>> from objective_lake.jax import loss
>>> sft = ol.objective("sft")
>>> def step(log_prob):
...     return loss(sft, log_prob=log_prob, mask=jnp.ones((1, 2)))
>>> (value, metrics), gradient = jax.value_and_grad(step, has_aux=True)(jnp.array([[-1.0, -2.0]]))
"""

from __future__ import annotations

import math
import warnings
from functools import partial
from typing import Any, NamedTuple, Optional

import jax
import jax.numpy as jnp
import numpy as np

from objective_lake import _core
from objective_lake._batch import Kit, Side, arrange, flat, numpy_array
from objective_lake._objective import Objective
from objective_lake._totals import Totals

__all__ = ["loss"]

_METRICS = _core.metrics()


def _array(value: Any) -> Any:
    return value if isinstance(value, jax.Array) else numpy_array(value)


_KIT = Kit(_array, jnp.concatenate, warnings.warn)


class _Layout(NamedTuple):
    """What is known of a call before it runs: hashable, so that JAX compiles a program once for it."""

    objective: Objective
    names: tuple[tuple[str, tuple[str, ...]], ...]
    totals: Optional[Totals]


def loss(
    objective: Objective, /, *, totals: Optional[Totals] = None, **columns: Any
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss of a batch, and metrics.

    Columns are those of ``Objective.evaluate``, as JAX arrays: padded [batch, time] with a mask, packed, or lists. The
    derivative is that of the columns ``objective.statistics``; the others are constants. The loss is computed in float64
    and answered in the precision of the first column.

    Metrics have every name that an objective may report; one that this batch does not observe is not a number, as JAX
    must know names before it runs.

    An objective that remembers (``bco``) updates its state at each call of the program. An error of a batch is raised
    by JAX, with the sentence of the ``ValueError`` in its message.
    """
    sides = arrange(objective, columns, _KIT)
    statistics = tuple(side.arrays[name] for side in sides for name in objective.statistics)
    names = tuple((side.name, tuple(side.arrays)) for side in sides)
    others = tuple(
        jax.lax.stop_gradient(jnp.asarray(array)) if name not in objective.statistics else None
        for side in sides for name, array in side.arrays.items()
    )
    value, means = _loss(_Layout(objective, names, totals), statistics, others)
    return value, dict(zip(_METRICS, means))


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _loss(layout: _Layout, statistics: tuple, others: tuple) -> tuple[jax.Array, jax.Array]:
    return _forward(layout, statistics, others)[0]


def _forward(layout: _Layout, statistics: tuple, others: tuple):
    dtype = jnp.promote_types(statistics[0].dtype, jnp.float32)
    shapes = (
        jax.ShapeDtypeStruct((), dtype),
        jax.ShapeDtypeStruct((len(_METRICS),), dtype),
        tuple(jax.ShapeDtypeStruct(array.shape, array.dtype) for array in statistics),
    )
    value, means, cotangents = jax.pure_callback(
        partial(_evaluate, layout), shapes, statistics, others, vmap_method="sequential"
    )
    return (value, means), (cotangents, others)


def _backward(_, residuals, gradients):
    cotangents, others = residuals
    gradient = gradients[0]
    zeros = tuple(None if array is None else _zero(array) for array in others)
    return tuple(gradient.astype(cotangent.dtype) * cotangent for cotangent in cotangents), zeros


def _zero(array: jax.Array) -> Any:
    if jnp.issubdtype(array.dtype, jnp.floating):
        return jnp.zeros_like(array)
    return np.zeros(array.shape, dtype=jax.dtypes.float0)


_loss.defvjp(_forward, _backward)


def _host(array: Any) -> np.ndarray:
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype == jnp.bfloat16 else array


def _evaluate(layout: _Layout, statistics: tuple, others: tuple):
    """The host's part: the loss, the means of the metrics, and the cotangents of each statistic."""
    objective, constants, derived = layout.objective, iter(others), iter(statistics)
    sides = []
    for name, names in layout.names:
        with_derivative = {own: next(derived) for own in objective.statistics}
        given = {own: with_derivative.get(own, constant) for own, constant in zip(names, constants)}
        arrays = {own: _host(array) for own, array in given.items()}
        sides.append(flat(Side(name, arrays, False), arrays, objective.statistics[0]))
    totals = None if layout.totals is None else layout.totals.counts()
    value, cotangents, metrics = objective._core.evaluate_flat(sides, totals)
    own = [columns[name] for columns in cotangents for name in objective.statistics]
    shaped = tuple(values.reshape(array.shape).astype(array.dtype) for values, array in zip(own, statistics))
    dtype = jnp.promote_types(statistics[0].dtype, jnp.float32)
    means = np.array([metrics.get(name, math.nan) for name in _METRICS], dtype=dtype)
    return np.asarray(value, dtype=dtype), means, shaped
