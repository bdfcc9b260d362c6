"""Autograd, precisions, layouts, compiled programs, state and ranks in PyTorch."""

import warnings

import numpy as np
import pytest
from batches import METHODS, batch, flat, of_sides, packed, padded

import objective_lake as ol

torch = pytest.importorskip("torch")
import torch.distributed as distributed  # noqa: E402
import torch.multiprocessing as multiprocessing  # noqa: E402

from objective_lake.torch import Loss, loss, step_totals  # noqa: E402


def tensors(side, **options):
    """A side's columns as tensors."""
    def tensor(value):
        if isinstance(value, list) and isinstance(value[0], np.ndarray):
            return [torch.as_tensor(part, **options) for part in value]
        value = np.asarray(value)
        return torch.as_tensor(value, **(options if value.dtype == float else {}))
    return {name: tensor(value) for name, value in side.items()}


def leaves(objective, columns):
    """The columns with a derivative, which now require a gradient."""
    own = [columns[name] for name in objective.sides if name]
    own += [columns] if "" in objective.sides else []
    found = []
    for side in own:
        for name in objective.statistics:
            parts = side[name] if isinstance(side[name], list) else [side[name]]
            found += [part.requires_grad_() for part in parts]
    return found


def padded_tensors(objective, seed=0, filler=np.nan, **options):
    return of_sides(objective, batch(objective, seed), lambda side: tensors(padded(side, filler), **options))


@pytest.mark.parametrize("name", METHODS)
def test_gradients_are_the_derivatives_at_fixed_held_numbers(name):
    objective = ol.objective(name)
    columns = of_sides(objective, batch(objective, 3), lambda side: tensors(packed(side)))
    held = objective.hold(**columns)
    inputs = leaves(objective, columns)

    def value(*_):
        return loss(objective, held=held, **columns)[0]

    assert torch.autograd.gradcheck(value, inputs, eps=1e-6, atol=1e-8, rtol=1e-5)


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_numpys_in_every_layout(name):
    objective = ol.objective(name)
    lists = batch(objective)
    expected = ol.objective(name).evaluate(**lists)
    for change in (dict, packed, padded):
        columns = of_sides(objective, lists, lambda side: tensors(change(side)))
        inputs = leaves(objective, columns)
        value, metrics = loss(ol.objective(name), **columns)
        assert (value.item(), metrics) == (expected.loss, expected.metrics)
        value.backward()
        gradients = np.concatenate([np.ravel(leaf.grad) for leaf in inputs])
        # Whatever the arrangement and padding, the numbers are the same.
        cotangents = flat(expected.cotangents)
        assert (np.sort(gradients[gradients != 0]) == np.sort(cotangents[cotangents != 0])).all()


@pytest.mark.parametrize(
    ("dtype", "answered", "precision"),
    [
        (torch.float64, torch.float64, 1e-15), (torch.float32, torch.float32, 1e-6),
        (torch.float16, torch.float32, 3e-3), (torch.bfloat16, torch.float32, 3e-2),
    ],
)
def test_gradients_have_the_precision_of_their_column(dtype, answered, precision):
    dpo = ol.objective("dpo")
    expected = dpo.evaluate(**batch(dpo))
    columns = padded_tensors(dpo, dtype=dtype)
    inputs = leaves(dpo, columns)
    value, _ = loss(dpo, **columns)
    value.backward()
    assert value.dtype == answered and value.item() == pytest.approx(expected.loss, rel=precision)
    assert all(leaf.grad.dtype == dtype and torch.isfinite(leaf.grad).all() for leaf in inputs)


def test_a_side_is_a_tuple_or_a_dictionary():
    dpo = ol.objective("dpo")
    columns = padded_tensors(dpo)
    names = ("log_prob", "mask", "reference_log_prob")
    value, _ = loss(dpo, **{side: tuple(own[name] for name in names) for side, own in columns.items()})
    assert value == loss(dpo, **columns)[0]


def test_only_what_requires_a_gradient_gets_one():
    dpo = ol.objective("dpo")
    columns = padded_tensors(dpo)
    columns["rejected"]["log_prob"].requires_grad_()
    columns["chosen"]["reference_log_prob"].requires_grad_()
    loss(dpo, **columns)[0].backward()
    assert columns["rejected"]["log_prob"].grad is not None
    assert columns["chosen"]["reference_log_prob"].grad is None
    with torch.no_grad():
        assert not loss(dpo, **columns)[0].requires_grad


def test_the_gradient_is_multiplied_by_what_follows_the_loss():
    dpo = ol.objective("dpo")
    gradients = []
    for factor in (1.0, -3.0):
        columns = padded_tensors(dpo)
        inputs = leaves(dpo, columns)
        (factor * loss(dpo, **columns)[0]).backward()
        gradients.append(inputs[0].grad)
    assert torch.allclose(gradients[1], -3 * gradients[0], rtol=1e-15)


def test_tensors_may_be_expanded_transposed_or_strided():
    sft = ol.objective("sft")
    row = torch.tensor([-1.0, -2.0, -3.0], requires_grad=True)
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]])
    value, _ = loss(sft, log_prob=row.expand(2, 3), mask=mask)
    value.backward()
    assert value.item() == pytest.approx(4 / 3)
    assert row.grad.tolist() == pytest.approx([-2 / 3, -1 / 3, 0.0])
    wide = torch.full((3, 4), -2.0, requires_grad=True)
    value, _ = loss(sft, log_prob=wide.t()[::2], mask=mask)
    value.backward()
    assert value.item() == 2.0 and wide.grad.count_nonzero() == 3


def test_tensors_on_two_devices_are_refused():
    sft = ol.objective("sft")
    mask = torch.ones(1, 2, device="meta")
    with pytest.raises(ValueError, match="^mask: expected a tensor on cpu, as log_prob, got meta$"):
        loss(sft, log_prob=torch.full((1, 2), -1.0), mask=mask)


def test_refusals_have_the_sentences_of_numpys():
    dpo = ol.objective("dpo")
    columns = padded_tensors(dpo)
    columns["chosen"]["log_prob"][0, 0] = 0.5
    with pytest.raises(ValueError, match="^chosen.log_prob: expected -1e30 to 0e0 at token 0 of response 0, got 0.5$"):
        loss(dpo, **columns)


def test_accumulated_gradients_with_totals_are_those_of_the_whole_step():
    sft = ol.objective("sft")
    weight = torch.zeros((), dtype=torch.float64, requires_grad=True)
    parts = [tensors(padded({"log_prob": [np.full(n, -1.0) for n in lengths]})) for lengths in ((3, 1), (2,), (5, 4))]
    totals = step_totals(sft, parts)
    assert (totals.tokens, totals.responses) == (15, 5)
    for part in parts:
        log_prob = torch.where(part["mask"], part["log_prob"], 0.0) * torch.exp(weight)
        loss(sft, totals=totals, log_prob=log_prob, mask=part["mask"])[0].backward()
    assert weight.grad.item() == pytest.approx(1.0, abs=1e-15)


def test_a_column_that_the_objective_does_not_read_is_warned_of():
    grpo = ol.objective("grpo", advantage="given")
    columns = padded_tensors(grpo)
    with pytest.warns(UserWarning, match="^rollout_log_prob: not used by this objective; it reads log_prob, "):
        value, _ = loss(grpo, rollout_log_prob=columns["log_prob"], **columns)
    assert value == loss(grpo, **columns)[0]
    with pytest.raises(ValueError, match="^rollout_logprob: not used by this objective; it reads log_prob, "):
        loss(grpo, rollout_logprob=columns["log_prob"], **columns)


def test_the_api_of_grpo_with_given_advantages():
    grpo = ol.objective("grpo", advantage="given", correction="truncate_token")
    columns = padded_tensors(grpo)
    inputs = leaves(grpo, columns)
    value, metrics = loss(grpo, totals=ol.totals(responses=8, tokens=40), **columns)
    value.backward()
    assert torch.isfinite(inputs[0].grad).all() and "clip_fraction" in metrics


def test_what_bco_remembers_is_in_the_state_dict():
    first, second = Loss(ol.objective("bco")), Loss(ol.objective("bco"))
    columns = padded_tensors(first.objective)
    first(**columns)
    second.load_state_dict(first.state_dict())
    assert second.objective.state_dict()["rewards"]["count"] == 4
    assert first(**columns)[0] == second(**columns)[0]
    assert "bco" in repr(first)


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_a_compiled_program_is_one_graph(name):
    objective = ol.objective(name)

    def step(weight, columns):
        scaled = of_sides(objective, columns, lambda side: side | {"log_prob": weight * side["log_prob"]})
        value, metrics = loss(objective, **scaled)
        return 2 * value, metrics

    results = []
    for function in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
        weight = torch.tensor(1.5, dtype=torch.float64, requires_grad=True)
        value, metrics = function(weight, padded_tensors(objective, filler=-1.0))
        value.backward()
        results.append((value.item(), weight.grad.item(), dict(metrics)))
    assert results[0] == results[1]

    explained = torch._dynamo.explain(step)(torch.tensor(1.5, requires_grad=True), padded_tensors(objective))
    assert (explained.graph_count, explained.graph_break_count) == (1, 0), explained.break_reasons


def test_the_operator_passes_pytorchs_own_checks():
    dpo = ol.objective("dpo")
    columns = padded_tensors(dpo)
    statistics = [own["log_prob"].requires_grad_() for own in columns.values()]
    arrays = [array.detach() for own in columns.values() for array in own.values()]
    layout = ";".join(",".join([side, *own]) for side, own in columns.items())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.library.opcheck(
            torch.ops.objective_lake.evaluate, (dpo.number, layout, [-1] * 5, statistics, arrays),
            test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
        )


SHARED = ("sft", "grpo", "kto", "aot", "bco")


def _rank(rank, folder):
    distributed.init_process_group("gloo", init_method=f"file://{folder}/ranks", rank=rank, world_size=2)
    for name in SHARED:
        objective = ol.objective(name)
        columns = padded_tensors(objective, rank)
        inputs = leaves(objective, columns)
        value, _ = loss(objective, process_group=distributed.group.WORLD, **columns)
        value.backward()
        answer = (value.item(), [leaf.grad for leaf in inputs], objective.state_dict())
        torch.save(answer, f"{folder}/{name}-{rank}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def ranks_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(_rank, (str(folder),), nprocs=2)
    return folder


@pytest.mark.parametrize("name", SHARED)
def test_the_ranks_of_a_group_share_one_step(name, ranks_folder):
    ranks = [torch.load(ranks_folder / f"{name}-{rank}.pt") for rank in range(2)]

    objective = ol.objective(name)
    batches = [batch(objective, rank) for rank in range(2)]
    joined = {}
    for side in objective.sides:
        own = [part[side] if side else part for part in batches]
        both = {}
        for column in own[0]:
            if column in objective.sides:
                continue
            shift = 2 if column == "group" else 0
            both[column] = list(own[0][column]) + [value + shift if shift else value for value in own[1][column]]
        joined.update({side: both} if side else both)
    whole = objective.evaluate(**joined)
    assert ranks[0][0] + ranks[1][0] == pytest.approx(whole.loss, abs=1e-14)
    shared = np.concatenate([np.ravel(gradient) for _, gradients, _ in ranks for gradient in gradients])
    expected = flat(whole.cotangents)
    assert np.allclose(np.sort(shared[shared != 0]), np.sort(expected[expected != 0]), rtol=1e-12)
    assert ranks[0][2] == objective.state_dict() or not objective.coupled
