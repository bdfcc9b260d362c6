"""Names, parameters, errors, state, threads and memory."""

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from batches import METHODS, batch, flat

import objective_lake as ol


def pair(log_prob=-1.0, **more):
    side = {"log_prob": [log_prob], "reference_log_prob": [-3.0], "lengths": [1]}
    other = {"log_prob": [-2.0], "reference_log_prob": [-1.0], "lengths": [1]}
    return {"chosen": side | more, "rejected": other}


def test_the_worked_example_of_dpo_has_its_loss_and_slope():
    answer = ol.objective("dpo", beta=0.1).evaluate(**pair())
    assert answer.loss == pytest.approx(0.554355, abs=1e-6)
    assert answer.cotangents["chosen"]["log_prob"] == pytest.approx([-0.0425557], abs=1e-7)
    assert answer.cotangents["rejected"]["log_prob"] == pytest.approx([0.0425557], abs=1e-7)
    assert answer.metrics["rewards/margins"] == pytest.approx(0.3)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_says_what_it_is(name):
    method = ol.methods()[name]
    assert method.summary and method.source and method.data
    assert "log_prob" in method.columns or len(method.columns) > 0
    for own, parameter in method.parameters.items():
        assert own == parameter.name
        assert parameter.range and parameter.purpose and parameter.default is not None
    assert len(method.doc) > len(method.summary) or method.name in repr(method)


def test_losses_that_are_no_presets_document_their_formula_and_their_source():
    documented = [name for name, method in ol.methods().items() if "\nFormula\n-------\n" in method.doc]
    assert {"sft", "dpo", "ift", "kto", "bco", "ipo", "aot", "policy_gradient", "reward_model", "a2po"} <= {*documented}
    dpo = ol.methods()["dpo"].doc
    assert "log σ(βh)" in dpo and "equation 7" in dpo and "use objective" not in dpo and "[`" not in dpo


@pytest.mark.parametrize("name", METHODS)
def test_parameters_in_force_build_the_same_objective(name):
    objective = ol.objective(name)
    again = ol.objective(name, **objective.parameters)
    assert again.parameters == objective.parameters
    assert objective.evaluate(**batch(objective)).loss == again.evaluate(**batch(objective)).loss


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("dpo", {"beta": -0.5}, "dpo.beta: expected a number, 1e-9 <= beta <= 1e6, got -0.5"),
        ("dpo", {"beta": float("nan")}, "dpo.beta: expected a number, 1e-9 <= beta <= 1e6, got NaN"),
        ("orpo", {"beat": 0.5}, "orpo.beat: unknown parameter; allowed: beta"),
        (
            "dpo", {"divergence_alpha": 0.3},
            "dpo.divergence_alpha: not used where divergence = reverse_kl, so it must not be set (got 0.3)",
        ),
    ],
)
def test_a_parameter_is_refused_with_its_name_its_range_and_its_value(name, parameters, message):
    with pytest.raises(ValueError) as refusal:
        ol.objective(name, **parameters)
    assert str(refusal.value) == message


def test_an_unknown_method_is_refused_with_the_names_that_exist():
    with pytest.raises(ValueError, match="^sftt: unknown method; allowed: sft, dpo, orpo, "):
        ol.objective("sftt")


def test_a_parameter_of_no_kind_is_a_type_error():
    with pytest.raises(TypeError, match="^beta: expected a number, a name, True, False or a list of methods, got None"):
        ol.objective("dpo", beta=None)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (pair(log_prob=0.5), "chosen.log_prob: expected -1e30 to 0e0 at token 0 of response 0, got 0.5"),
        (pair(log_prob=float("nan")), "chosen.log_prob: expected -1e30 to 0e0 at token 0 of response 0, got NaN"),
        (pair(rewards=[1.0]), "chosen.rewards: not used by this objective; it reads log_prob, reference_log_prob, weight"),
        (pair(reference_log_prob=None), "chosen.reference_log_prob: missing"),
        (
            pair(reference_log_prob=[-1.0, -2.0]),
            "chosen.reference_log_prob: expected 1 numbers, one a response token of a required column, got 2",
        ),
        (pair(lengths=[0, 1]), "rejected.lengths: expected 2, one a chosen response, got 1"),
        (pair(lengths=[-1]), "chosen.lengths: expected numbers from 0, got -1"),
        (pair(lengths=None), "chosen.log_prob: one dimension needs lengths or cumulative_lengths, which are missing"),
        ({"chosen": pair()["chosen"]}, "rejected: missing; the objective learns from preferences"),
        (
            pair() | {"log_prob": [-1.0]},
            "log_prob: not used by an objective over preferences; it reads chosen, rejected",
        ),
    ],
)
def test_a_batch_is_refused_with_the_field_and_what_is_wrong_with_it(columns, message):
    with pytest.raises(ValueError) as refusal:
        ol.objective("dpo").evaluate(**columns)
    assert str(refusal.value) == message


def test_a_response_without_tokens_is_refused():
    sft = ol.objective("sft")
    with pytest.raises(ValueError, match="^response 1: at least one token is needed, got none$"):
        sft.evaluate(log_prob=[-1.0], lengths=[1, 0])
    with pytest.raises(ValueError, match="^response 0: at least one token is needed, got none$"):
        sft.evaluate(log_prob=np.full((2, 2), -1.0), mask=[[0, 0], [1, 0]])


def test_totals_below_the_batchs_own_are_refused_and_leave_no_trace():
    sft = ol.objective("sft")
    with pytest.raises(ValueError, match=r"^totals\.tokens: expected at least the batch's own 2, got 1$"):
        sft.evaluate(log_prob=[-1.0, -3.0], lengths=[2], totals=ol.totals(tokens=1))
    with pytest.raises(ValueError, match=r"^totals\.tokens: expected a whole number, 0 <= tokens, got -1$"):
        sft.evaluate(log_prob=[-1.0, -3.0], lengths=[2], totals=ol.totals(tokens=-1))
    with pytest.raises(ValueError, match="at least one token"):
        sft.evaluate(log_prob=[-1.0], lengths=[1, 0], totals=ol.totals(tokens=8))
    assert sft.evaluate(log_prob=[-1.0, -3.0], lengths=[2]).loss == 2.0


def test_micro_batches_with_the_totals_of_the_step_add_up_to_the_step():
    sft = ol.objective("sft")
    parts = [[-1.0, -3.0], [-2.0, -6.0, -4.0]]
    batches = [{"log_prob": part, "lengths": [len(part)]} for part in parts]
    totals = sft.totals(**batches[0]) + sft.totals(**batches[1])
    assert (totals.tokens, totals.responses) == (5, 2)
    losses = [sft.evaluate(totals=totals, **columns).loss for columns in batches]
    assert sum(losses) == pytest.approx(16 / 5, abs=1e-15)


def test_bco_remembers_from_step_to_step_and_its_state_is_restored():
    bco = ol.objective("bco")
    first = batch(bco, 1)
    assert bco.state_dict() == {}
    bco.evaluate(**first)
    state = bco.state_dict()
    assert state["rewards"]["count"] == 4
    second = bco.evaluate(**first).loss
    for other in (ol.objective("bco"), copy.deepcopy(bco), pickle.loads(pickle.dumps(bco))):
        other.load_state_dict(state)
        assert other.evaluate(**first).loss == second
    with pytest.raises(ValueError, match="^unknown field `reward`"):
        bco.load_state_dict({"reward": 1})


def test_what_is_held_does_not_change_what_is_remembered():
    bco = ol.objective("bco")
    columns = batch(bco, 1)
    bco.hold(**columns)
    assert bco.state_dict() == {}


def test_one_objective_answers_eight_threads_as_it_answers_one():
    objective = ol.objective("grpo")
    expected = [objective.evaluate(**batch(objective, seed)) for seed in range(8)]
    wrong = []

    def run(seed):
        for _ in range(50):
            answer = objective.evaluate(**batch(objective, seed))
            if answer.loss != expected[seed].loss or (flat(answer.cotangents) != flat(expected[seed].cotangents)).any():
                wrong.append(seed)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(8)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    assert wrong == []


def test_other_threads_run_during_an_evaluation():
    dpo = ol.objective("dpo")
    values = np.full(8_000_000, -1.0, dtype=np.float32)
    side = {"log_prob": values, "reference_log_prob": values, "lengths": [values.size]}
    stamps, stop = [], threading.Event()

    def tick():
        while not stop.is_set():
            stamps.append(time.perf_counter())
            time.sleep(0.0005)

    ticking = threading.Thread(target=tick)
    ticking.start()
    start = time.perf_counter()
    dpo.evaluate(chosen=side, rejected=side)
    end = time.perf_counter()
    stop.set()
    ticking.join()
    inside = [stamp for stamp in stamps if start + 0.25 * (end - start) < stamp < end - 0.25 * (end - start)]
    assert len(inside) >= 2, (end - start, len(stamps))


def _evaluate_in_a_child(queue):
    queue.put(ol.objective("dpo").evaluate(**pair()).loss)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_evaluates():
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_evaluate_in_a_child, args=(queue,))
    child.start()
    assert queue.get(timeout=60) == ol.objective("dpo").evaluate(**pair()).loss
    child.join()


def _resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_hundred_thousand_evaluations_keep_no_memory():
    sft = ol.objective("sft")
    log_prob, lengths = np.full(64, -1.0), np.array([32, 32])
    for _ in range(10_000):
        sft.evaluate(log_prob=log_prob, lengths=lengths)
    before = _resident()
    for _ in range(100_000):
        sft.evaluate(log_prob=log_prob, lengths=lengths)
    # One array of cotangents a call would be 51 MB.
    assert _resident() - before < 4_000_000


def test_importing_the_package_imports_neither_torch_nor_jax():
    program = "import sys, objective_lake; print([name for name in ('torch', 'jax') if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert printed.strip() == "[]"


def test_the_examples_of_the_docstrings_run():
    import doctest

    import objective_lake._objective

    for module in (ol, objective_lake._objective):
        result = doctest.testmod(module)
        assert result.attempted > 0 and result.failed == 0
