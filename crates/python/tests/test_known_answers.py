"""The recorded answers of other libraries, which the line protocol is held against too."""

import json
from pathlib import Path

import numpy as np
import pytest

import objective_lake as ol

ORACLES = Path(__file__).parents[3] / "tests" / "oracles"
SIDES = ("chosen", "rejected", "labelled", "mismatched", "groups", "rollouts")


def cases(name):
    answers = json.loads((ORACLES / f"{name}.json").read_text())
    parts = answers if isinstance(answers, dict) else {"cases": answers}
    for part in ("cases", "rewarded", "ppo"):
        yield from parts.get(part, [])


def repeated(parts, repeat):
    return [np.tile(part, repeat) if isinstance(part, list) else part for part in parts]


def columns_of(case):
    """The columns of a line, as `evaluate` takes them, with the name of each of its sides."""
    line, columns, names = case["line"], {}, {}
    for side in SIDES:
        if side not in line:
            continue
        own = {name: repeated(value, case.get("repeat", 1)) for name, value in line[side].items()}
        for name in ("reward",):
            if name in own:
                own[name] = np.array(
                    [[np.nan if x is None else x for x in (r if isinstance(r, np.ndarray) else [r])] for r in line[side][name]]
                )
        names[side] = side if side in ("rejected", "mismatched") or (side == "chosen" and "rejected" in line) else ""
        columns.update({names[side]: own} if names[side] else own)
    return columns, names


def is_ours(case):
    """The same selection as the Rust tests: readings of a paper that two libraries do not share are not compared."""
    correction = case["line"]["objective"].get("correction", "none")
    weights, denominator = case.get("weights"), case.get("denominator")
    if case["name"].startswith("gdpo, whitened over tokens"):
        return False
    if weights is None and denominator is None:
        return True
    if correction.startswith("mask"):
        return (weights, denominator) == ("importance", "kept")
    return denominator == "all"


@pytest.mark.parametrize(
    "name", ["objective", "preference", "labelled", "groups", "retired", "ift", "open_rlhf", "policy_gradient"]
)
def test_losses_and_cotangents_are_those_that_other_libraries_recorded(name):
    compared = 0
    for case in filter(is_ours, cases(name)):
        parameters = dict(case["line"]["objective"])
        objective = ol.objective(parameters.pop("name"), **parameters)
        if "state" in case["line"]:
            objective.load_state_dict(case["line"]["state"])
        columns, names = columns_of(case)
        totals = case["line"].get("totals")
        answer = objective.evaluate(totals=totals and ol.totals(**totals), **columns)
        stride = case.get("stride", 1)
        scale = 0.0
        # Where terms cancel, the rounding of the largest is left of them.
        terms = [*parameters.get("terms", []), parameters]
        beta = max(term.get("beta", 0.0) for term in terms)
        for side, theirs in case["cotangents"].items():
            ours = answer.cotangents[names[side]] if names[side] else answer.cotangents
            for column, rows in theirs.items():
                for own, row in zip(ours[column], rows, strict=True):
                    own, row = np.asarray(own)[::stride], np.asarray(row)
                    largest = max(np.abs(row).max(), beta)
                    assert np.allclose(own, row, rtol=1e-12, atol=1e-13 * largest), (case["name"], side, column)
                    scale += stride * np.abs(row).sum()
        assert np.isclose(answer.loss, case["loss"], rtol=1e-12, atol=1e-13 * scale), case["name"]
        for metric, theirs in (case.get("metrics") or {}).items():
            assert np.isclose(answer.metrics[metric], theirs, rtol=1e-6), (case["name"], metric)
        compared += 1
    assert compared >= 28
