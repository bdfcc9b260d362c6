"""Files of model outputs as alpaca_eval reads them, and what it and statsmodels make of verdicts: needs requirements-alpaca-eval.txt."""

import json
import pathlib
import tempfile

import numpy as np
import pandas as pd
import statsmodels.api as sm
from alpaca_eval import annotators, evaluate, utils
from alpaca_eval.metrics import get_winrate, glm_winrate
from generator import write

A = [
    {"instruction": "Say hi", "output": "", "generator": "a", "dataset": "koala"},
    {"instruction": "Quote \"this\" and \\ that\nplease\t!", "output": "\"this\", \\ that\u0001\u007f", "generator": "a", "dataset": "koala"},
    {"instruction": "Zähle 数 bis 3 \U0001f600", "output": "1\u2028 2 3 </s> é", "generator": "a", "dataset": "vicuna"},
    {"instruction": "7", "output": "seven 7", "generator": "a", "dataset": "vicuna"},
]
B = [{"instruction": answer["instruction"], "output": f"other {index}", "generator": "b"} for index, answer in enumerate(A)][::-1]


def file(answers):
    """What lm writes: the test holds it to these bytes."""
    return json.dumps(answers, indent=2, ensure_ascii=False) + "\n"


class Longer(annotators.PairwiseAnnotator):
    """alpaca_eval's annotator up to where it would ask a judge, who prefers the longer output."""

    def __init__(self, annotators_config=None):
        self.input_keys = ["instruction"]

    def __call__(self, to_annotate, **kwargs):
        annotations = to_annotate.to_dict(orient="records")
        for pair in annotations:
            longer = len(pair["output_2"]) - len(pair["output_1"])
            pair["preference"] = 1.5 if longer == 0 else 2 if longer > 0 else 1
        return annotations


def outputs():
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: pathlib.Path(folder) / f"{name}.json" for name in "ab"}
        for name, answers in [("a", A), ("b", B)]:
            paths[name].write_text(file(answers))
        loaded = {name: utils.load_or_convert_to_dataframe(path) for name, path in paths.items()}
        board, annotations = evaluate(model_outputs=paths["a"], reference_outputs=paths["b"], fn_metric="get_winrate", sort_by="win_rate",
                                      annotators_config="longer", precomputed_leaderboard=None, output_path=None,
                                      is_return_instead_of_print=True, Annotator=Longer)
    assert all(json.loads(loaded[name].to_json(orient="records")) == answers for name, answers in [("a", A), ("b", B)])
    assert list(board.index) == ["a"]
    row = board.loc["a"]
    columns = ["instruction", "output_1", "output_2", "generator_1", "generator_2", "dataset"]
    return {"a": {"name": "a", "answers": A, "file": file(A), "generator": utils.get_generator_name(None, loaded["a"])},
            "b": {"name": "b", "answers": B, "file": file(B), "generator": utils.get_generator_name(None, loaded["b"])},
            "pairs": [{column: pair[column] for column in columns} for pair in annotations],
            "evaluation": {"win_rate": float(row["win_rate"]) / 100, "standard_error": float(row["standard_error"]) / 100,
                           "avg_length": int(row["avg_length"]), "n_total": int(row["n_total"])}}


def rates(name, lengths_a, lengths_b, scores):
    """alpaca_eval's win rate of A (its output_2), and the regression of its length_controlled_minimal, which is fitted by
    statsmodels without a penalty, and by alpaca_eval's own code with the weakest one that it can be given."""
    found = get_winrate([{"preference": 1 + score} for score in scores])
    difference = pd.Series(lengths_a) - pd.Series(lengths_b)
    x = np.tanh(difference / difference.std())
    design = sm.add_constant(np.asarray(x))
    fit = sm.GLM(np.array(scores), design, family=sm.families.Binomial()).fit(cov_type="HC0", tol=1e-15, maxiter=200)
    data = pd.DataFrame({"tanh": x, "one": 1.0, "preference": scores})
    own = glm_winrate.fit_LogisticRegressionCV(data, "preference", is_ytrue_proba=True, n_splits=0, C=1e6, tol=1e-10, max_iter=100000)
    own = dict(zip(["tanh", "one"], own.coef_[0]))
    return {"name": name, "lengths_a": lengths_a, "lengths_b": lengths_b, "scores": scores,
            "win_rate": found["win_rate"] / 100, "standard_error": found["standard_error"] / 100,
            "intercept": fit.params[0], "slope": fit.params[1], "intercept_error": fit.bse[0],
            "alpaca_eval": {"intercept": own["one"], "slope": own["tanh"]}}


def drawn(seed, count, intercept, slope, longer, levels=(0, 0.25, 0.5, 0.75, 1)):
    """Scores that a judge with this preference for length would give."""
    random = np.random.default_rng(seed)
    a, b = random.geometric(1 / longer, count), random.geometric(1 / 300, count)
    difference = a - b
    p = 1 / (1 + np.exp(-(intercept + slope * np.tanh(difference / difference.std(ddof=1)))))
    scores = np.array(levels)[np.minimum((p + random.normal(0, 0.3, count)).clip(0, 0.999) * len(levels), len(levels) - 1).astype(int)]
    return [[int(length) for length in lengths] for lengths in (a, b)] + [[float(score) for score in scores]]


if __name__ == "__main__":
    write(__file__, ["alpaca_eval", "pandas", "scikit-learn", "statsmodels"], outputs=outputs(), rates=[
        rates("a judge of content", *drawn(1, 200, 0.5, 0, 300)),
        rates("a judge of length", *drawn(2, 200, 0, 3, 600)),
        rates("both, and verdicts of 0 and 1", *drawn(3, 120, -0.7, 1.5, 400, (0, 1))),
        rates("few pairs", [10, 20, 30, 40, 50, 60], [35] * 6, [0.0, 0.5, 1.0, 0.0, 1.0, 0.75]),
        rates("one length far off", [5, 6, 7, 8, 9, 9000], [7] * 6, [1.0, 0.0, 0.5, 1.0, 0.25, 0.5]),
    ])
