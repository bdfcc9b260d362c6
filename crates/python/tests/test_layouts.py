"""The same batch padded, packed and as lists; what a mask leaves out."""

import numpy as np
import pytest
from batches import METHODS, batch, flat, of_sides, packed, padded
from hypothesis import given, settings
from hypothesis import strategies as st

import objective_lake as ol


def masked(objective, columns, cotangents):
    """The cotangents of padded columns at the places that the mask leaves in."""
    sides = [(cotangents[name], columns[name]) if name else (cotangents, columns) for name in objective.sides]
    rows = [own[statistic][side["mask"]] for own, side in sides for statistic in objective.statistics]
    return np.concatenate(rows)


@pytest.mark.parametrize("name", METHODS)
def test_padded_packed_and_listed_columns_have_one_answer(name):
    objective = ol.objective(name)
    lists = batch(objective)
    expected = ol.objective(name).evaluate(**lists)
    for change in (packed, lambda side: packed(side, cumulative=True)):
        answer = ol.objective(name).evaluate(**of_sides(objective, lists, change))
        assert answer.loss == expected.loss and answer.metrics == expected.metrics
        assert (flat(answer.cotangents) == flat(expected.cotangents)).all()
    columns = of_sides(objective, lists, padded)
    answer = ol.objective(name).evaluate(**columns)
    assert answer.loss == expected.loss and answer.metrics == expected.metrics
    assert (masked(objective, columns, answer.cotangents) == flat(expected.cotangents)).all()


@pytest.mark.parametrize("filler", [np.nan, np.inf, 1e300, 5.0])
def test_nothing_that_the_mask_leaves_out_is_read(filler):
    dpo = ol.objective("dpo")
    columns = of_sides(dpo, batch(dpo), lambda side: padded(side, filler))
    answer = dpo.evaluate(**columns)
    assert answer.loss == dpo.evaluate(**batch(dpo)).loss
    outside = answer.cotangents["chosen"]["log_prob"][~columns["chosen"]["mask"]]
    assert outside.size > 0 and (outside == 0).all()


def test_a_mask_may_have_holes_and_be_of_any_type_of_0_and_1():
    sft = ol.objective("sft")
    log_prob = np.array([[-9.0, -1.0, -9.0, -2.0], [-3.0, -9.0, -4.0, -9.0]])
    mask = np.array([[0, 1, 0, 1], [1, 0, 1, 0]])
    for dtype in (bool, np.int64, np.float32):
        answer = sft.evaluate(log_prob=log_prob, mask=mask.astype(dtype))
        assert answer.loss == 2.5
        assert (answer.cotangents["log_prob"] == -0.25 * mask).all()
    with pytest.raises(ValueError, match="^mask: expected 0 or 1, got 0.5$"):
        sft.evaluate(log_prob=log_prob, mask=mask * 0.5)


def test_packed_columns_may_have_a_mask_and_a_dimension_of_one():
    sft = ol.objective("sft", normalisation="response")
    log_prob = np.array([-9.0, -1.0, -3.0, -9.0, -5.0])
    expected = sft.evaluate(log_prob=[[-1.0, -3.0], [-5.0]])
    for shape in ((5,), (1, 5)):
        answer = sft.evaluate(
            log_prob=log_prob.reshape(shape), mask=np.array([0, 1, 1, 0, 1]).reshape(shape),
            cumulative_lengths=[0, 3, 5],
        )
        assert answer.loss == expected.loss
        assert answer.cotangents["log_prob"].shape == shape
        assert answer.cotangents["log_prob"].ravel() == pytest.approx([0.0, -0.25, -0.25, 0.0, -0.5])


@pytest.mark.parametrize(("dtype", "precision"), [(np.float16, 2e-3), (np.float32, 1e-6), (np.float64, 0.0)])
def test_cotangents_have_the_precision_of_their_column(dtype, precision):
    dpo = ol.objective("dpo")
    expected = dpo.evaluate(**batch(dpo))
    answer = dpo.evaluate(**of_sides(dpo, batch(dpo), lambda side: padded(side, dtype=dtype)))
    assert answer.cotangents["chosen"]["log_prob"].dtype == dtype
    assert answer.loss == pytest.approx(expected.loss, rel=precision or 1e-15)


def test_columns_may_be_strided_and_of_any_order():
    dpo = ol.objective("dpo")
    columns = of_sides(dpo, batch(dpo), padded)
    expected = dpo.evaluate(**columns)
    for change in (np.asfortranarray, lambda array: np.repeat(array, 2, axis=1)[:, ::2], lambda array: array.astype(">f8") if array.dtype == float else array):
        answer = dpo.evaluate(**of_sides(dpo, columns, lambda side: {k: change(v) for k, v in side.items()}))
        assert answer.loss == expected.loss
        assert (flat(answer.cotangents) == flat(expected.cotangents)).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.ones((4, 9))}, r"^chosen\.mask: expected the shape \(4, 5\) of log_prob, got \(4, 9\)$"),
        (
            {"reference_log_prob": np.full((5, 4), -1.0)},
            r"^chosen\.reference_log_prob: expected the shape \(4, 5\) of log_prob, got \(5, 4\)$",
        ),
        ({"log_prob": np.array(-1.0)}, r"^chosen\.log_prob: expected the dimensions \[batch, time\], got 0$"),
        ({"weight": [1.0]}, "^weight: expected 4, one a response that is weighted, got 1$"),
        ({"mask": np.zeros((4, 5))}, r"^chosen\.response 0: at least one token is needed, got none$"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(change, message):
    dpo = ol.objective("dpo")
    columns = of_sides(dpo, batch(dpo), lambda side: padded(side, -1.0))
    columns["chosen"] |= change
    with pytest.raises(ValueError, match=message):
        dpo.evaluate(**columns)


@pytest.mark.parametrize("wrong", [[0, 1, 9], [1, 2, 3], [0, 2, 1]])
def test_cumulative_lengths_begin_at_0_ascend_and_cover_the_columns(wrong):
    with pytest.raises(ValueError):
        ol.objective("sft").evaluate(log_prob=[-1.0, -1.0, -1.0], cumulative_lengths=wrong)


def test_an_advantage_is_one_number_a_response_or_one_a_token():
    grpo = ol.objective("grpo", advantage="given")
    log_prob = np.array([[-1.0, -2.0], [-1.5, -0.5]])
    columns = {"log_prob": log_prob, "behaviour_log_prob": log_prob, "mask": [[1, 1], [1, 0]]}
    by_response = [grpo.evaluate(advantage=advantage, **columns) for advantage in ([1.0, -2.0], [[1.0], [-2.0]])]
    by_token = grpo.evaluate(advantage=np.array([[1.0, 1.0], [-2.0, np.nan]]), **columns)
    for answer in by_response:
        assert answer.loss == by_token.loss
        assert (answer.cotangents["log_prob"] == by_token.cotangents["log_prob"]).all()


def test_several_rewards_may_abstain():
    gdpo = ol.objective("gdpo")
    columns = batch(gdpo)
    columns["reward"] = [[1.0, 0.0], [0.0, None], [0.5, 0.25], [None, 1.0]]
    assert np.isfinite(gdpo.evaluate(**columns).loss)


@settings(max_examples=200, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    method=st.sampled_from(["sft", "dpo", "grpo", "ppo", "orpo", "ift"]),
    extra=st.integers(0, 3),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_shape_has_the_same_answer_in_every_layout(lengths, method, extra, seed):
    objective = ol.objective(method)
    lists = batch(objective, seed, lengths)
    expected = objective.evaluate(**lists)
    columns = of_sides(objective, lists, lambda side: padded(side, width=max(lengths) + extra))
    answer = objective.evaluate(**columns)
    assert answer.loss == expected.loss
    assert (masked(objective, columns, answer.cotangents) == flat(expected.cotangents)).all()
    answer = objective.evaluate(**of_sides(objective, lists, packed))
    assert (flat(answer.cotangents) == flat(expected.cotangents)).all()
