"""The losses under JAX's transformations."""

import numpy as np
import pytest
from batches import METHODS, batch, of_sides, packed, padded

import objective_lake as ol

jax = pytest.importorskip("jax")
jnp = jax.numpy

from objective_lake.jax import loss  # noqa: E402


def split(objective, columns):
    """The columns with a derivative, and the others."""
    def parts(side):
        own = {name: jnp.asarray(value) for name, value in side.items() if name in objective.statistics}
        return own, {name: value for name, value in side.items() if name not in own}

    sides = {name: parts(columns[name] if name else columns) for name in objective.sides}
    rest = {name: value for name, (_, value) in sides.items()}
    if "" in rest:
        rest[""] = {name: value for name, value in rest[""].items() if name not in objective.sides}
    return {name: own for name, (own, _) in sides.items()}, rest


def value_of(objective, rest, own, **options):
    sides = {name: own[name] | rest[name] for name in own}
    return loss(objective, **options, **sides.pop("", {}), **sides)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("change", [padded, packed])
def test_losses_and_gradients_are_numpys(name, change):
    with jax.enable_x64(True):
        objective = ol.objective(name)
        columns = of_sides(objective, batch(objective), change)
        expected = ol.objective(name).evaluate(**columns)
        own, rest = split(objective, columns)
        program = jax.jit(jax.value_and_grad(lambda own: value_of(objective, rest, own), has_aux=True))
        (value, metrics), gradients = program(own)
        assert float(value) == expected.loss
        observed = {name: float(mean) for name, mean in metrics.items() if not np.isnan(mean)}
        assert observed == pytest.approx(expected.metrics, rel=1e-15)
        for side, columns in gradients.items():
            theirs = expected.cotangents[side] if side else expected.cotangents
            for column, gradient in columns.items():
                assert (np.asarray(gradient) == theirs[column]).all(), (side, column)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_gradients_have_the_precision_of_their_column(dtype):
    sft = ol.objective("sft")
    log_prob = jnp.array([[-1.0, -2.0]], dtype=dtype)
    (value, _), gradient = jax.value_and_grad(
        lambda own: loss(sft, log_prob=own, mask=np.array([[1, 1]])), has_aux=True
    )(log_prob)
    assert value.dtype == "float32" and float(value) == 1.5
    assert gradient.dtype == dtype and gradient.tolist() == [[-0.5, -0.5]]


def test_lists_and_totals_are_taken():
    sft = ol.objective("sft")
    parts = [jnp.array([-1.0, -3.0]), jnp.array([-5.0])]
    value, _ = loss(sft, log_prob=parts, totals=ol.totals(tokens=6, responses=2))
    assert float(value) == 1.5
    gradients = jax.grad(lambda own: loss(sft, log_prob=own)[0])(parts)
    assert [part.tolist() for part in gradients] == [pytest.approx([-1 / 3] * 2), pytest.approx([-1 / 3])]


def test_a_refusal_has_its_sentence():
    with pytest.raises(Exception, match="expected -1e30 to 0e0 at token 1 of response 0, got 0.5"):
        jax.block_until_ready(loss(ol.objective("sft"), log_prob=jnp.array([[-1.0, 0.5]]), mask=np.ones((1, 2))))
