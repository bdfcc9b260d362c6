"""The weights of intuitive fine-tuning's released propagation, each combination of its knobs, by PyTorch autograd in float64."""

import itertools
import random

import generator
import objective


def lines(draw):
    knobs = itertools.product(("loss", "logps", "mask"), ("left", "right"), ("L1", "L2", "softmax", "log"), (0.9, 1.0))
    for item, side, norm, gamma in knobs:
        parameters = {"name": "ift", "gamma": gamma, "item": item, "side": side, "norm": norm}
        for kind, chosen in (("ragged", objective.responses(draw, [1, 3, 8])),
                             ("far from certainty", objective.responses(draw, [4], 100.0)),
                             ("certain at first and last", [[0.0, -0.5, -1.5, 0.0]])):
            yield f"{item}, {side}, {norm}, gamma {gamma}, {kind}", {"objective": parameters, "chosen": {"log_prob": chosen}}


if __name__ == "__main__":
    cases = [generator.case(name, line, objective.evaluate) for name, line in lines(random.Random(20240517))]
    generator.write(__file__, ["torch"], cases=cases)
