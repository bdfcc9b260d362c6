"""Objectives by PyTorch autograd in float64.

Responses are lists of one-dimensional tensors; every loss is the mean over the step's tokens, responses or pairs.
"""

import random

import torch

import generator

torch.set_default_dtype(torch.float64)
CERTAINTY = -(2.0**-52)


def sft(chosen, normalisation="token", weighting="none", totals=None):
    if weighting == "dft":
        chosen = [response * response.detach().exp() for response in chosen]
    if normalisation == "token":
        return -sum(response.sum() for response in chosen) / (totals or {}).get("tokens", sum(map(len, chosen)))
    return -sum(response.mean() for response in chosen) / (totals or {}).get("responses", len(chosen))


def dpo(chosen, rejected, chosen_reference, rejected_reference, beta=0.1, label_smoothing=0.0, totals=None):
    losses = []
    for w, l, w_reference, l_reference in zip(chosen, rejected, chosen_reference, rejected_reference):
        margin = beta * ((w - w_reference).sum() - (l - l_reference).sum())
        losses.append(-(1 - label_smoothing) * torch.nn.functional.logsigmoid(margin)
                      - label_smoothing * torch.nn.functional.logsigmoid(-margin))
    return sum(losses) / (totals or {}).get("pairs", len(losses))


def log_odds(mean):
    mean = torch.where(mean > CERTAINTY, torch.tensor(CERTAINTY), mean)
    return mean - torch.log(-torch.expm1(mean))


def orpo(chosen, rejected, beta=0.25, totals=None):
    losses = []
    for w, l in zip(chosen, rejected):
        ratio = log_odds(w.mean()) - log_odds(l.mean())
        losses.append(-w.mean() - beta * torch.nn.functional.logsigmoid(ratio))
    return sum(losses) / (totals or {}).get("pairs", len(losses))


def propagated(losses, propagation, gamma, item="loss", side="left", norm="L1"):
    """A response's loss under IFT; the weights carry gradient."""
    n = len(losses)
    if propagation == "none" or (propagation == "released" and gamma == 0):
        return losses.mean()
    if propagation == "equation21":
        return sum(losses[i:].sum() for i in range(n))
    if propagation == "algorithm1":
        return sum(gamma ** (n - 1 - t) * losses[t] * losses[t:].sum() for t in range(n))
    items = {"loss": losses / n, "logps": losses, "mask": torch.ones(n)}[item]
    places = torch.arange(n)
    discounts = torch.tril(gamma ** (places[:, None] - places[None, :]).clamp(min=0).double())
    if side == "left":
        sums = discounts.T @ items
        exponent, weights = sums, {"L1": sums, "L2": sums**2, "log": torch.log1p(sums)}
    else:
        sums = discounts @ items
        sums = sums + sums[sums > 0].min()
        exponent, weights = 1 / sums, {"L1": 1 / sums, "L2": 1 / sums**2, "log": 1 / torch.log1p(sums)}
    weights = torch.softmax(exponent, dim=0) if norm == "softmax" else weights[norm]
    return (n * weights / weights.sum() * losses).mean()


def ift(chosen, propagation="released", gamma=0.95, totals=None, **weights):
    losses = [propagated(-response, propagation, gamma, **weights) for response in chosen]
    return sum(losses) / (totals or {}).get("responses", len(losses))


def evaluate(line):
    """Loss and cotangents of one line of the `evaluate` protocol."""
    parameters = {key: value for key, value in line["objective"].items() if key not in ("name", "lambda")}
    leaves = {side: [torch.tensor(response).requires_grad_() for response in line[side]["log_prob"]]
              for side in ("chosen", "rejected") if side in line}
    arguments = list(leaves.values())
    if line["objective"]["name"] == "dpo":
        arguments += [[torch.tensor(response) for response in line[side]["reference_log_prob"]] for side in leaves]
    function = {"sft": sft, "dpo": dpo, "orpo": orpo, "ift": ift}[line["objective"]["name"]]
    loss = function(*arguments, **parameters, totals=line.get("totals"))
    loss.backward()
    cotangents = {side: {"log_prob": [response.grad.tolist() for response in responses]}
                  for side, responses in leaves.items()}
    return {"source": "torch", "loss": loss.item(), "cotangents": cotangents}


def responses(draw, lengths, scale=1.0):
    return [[-scale * draw.expovariate(1.0) for _ in range(length)] for length in lengths]


def lines(draw):
    """Names and lines: ordinary ones, then the edges."""
    ragged, pairs = [1, 64, 7, 2, 33], [(5, 9), (1, 64), (17, 1)]
    for normalisation in ("token", "response"):
        objective = {"name": "sft", "normalisation": normalisation}
        yield f"sft, {normalisation}", {"objective": objective, "chosen": {"log_prob": responses(draw, ragged)}}
        yield f"sft, {normalisation}, part of a larger step", {
            "objective": objective, "chosen": {"log_prob": responses(draw, [3, 1])},
            "totals": {"tokens": 100, "responses": 7, "pairs": 0}}
        objective = {"name": "sft", "normalisation": normalisation, "weighting": "dft"}
        yield f"sft, {normalisation}, dft", {"objective": objective, "chosen": {"log_prob": [[-0.1, -2.5], [-7.0], [-1e4, 0.0]]}}
    propagations = [("released", gamma) for gamma in (0.0, 0.05, 0.95, 1.0)]
    propagations += [("algorithm1", gamma) for gamma in (0.05, 0.95, 1.0)] + [("equation21", None), ("none", None)]
    for propagation, gamma in propagations:
        objective = {"name": "ift", "propagation": propagation} | ({} if gamma is None else {"gamma": gamma})
        for kind, chosen in [("ragged", responses(draw, ragged)), ("one token", responses(draw, [1])),
                             ("near certainty and far from it", [[-1e-12, -1e4, -0.5], [-1e4, -1e-12]]),
                             ("one certain token", [[0.0, -0.5, 0.0]])]:
            yield f"ift, {propagation}, gamma {gamma}, {kind}", {"objective": objective, "chosen": {"log_prob": chosen}}
        yield f"ift, {propagation}, gamma {gamma}, part of a larger step", {
            "objective": objective, "chosen": {"log_prob": responses(draw, [4, 2])},
            "totals": {"tokens": 60, "responses": 9, "pairs": 0}}

    def preference(objective, chosen, rejected, reference):
        line = {"objective": objective, "chosen": {"log_prob": chosen}, "rejected": {"log_prob": rejected}}
        if objective["name"] == "dpo":
            for side, log_prob in zip(("chosen", "rejected"), reference):
                line[side]["reference_log_prob"] = log_prob
        return line

    objectives = [{"name": "dpo", "beta": beta, "label_smoothing": smoothing}
                  for beta in (1e-3, 0.1, 50.0) for smoothing in (0.0, 0.1, 0.5)]
    objectives += [{"name": "orpo", "beta": beta} for beta in (0.0, 1e-3, 0.25, 50.0)]
    for objective in objectives:
        name = ", ".join(f"{key} {value}" if key != "name" else value for key, value in objective.items())
        sides = [responses(draw, [pair[side] for pair in pairs]) for side in (0, 1)]
        reference = [responses(draw, [pair[side] for pair in pairs]) for side in (0, 1)]
        yield f"{name}, ragged", preference(objective, *sides, reference)
        yield f"{name}, chosen is rejected", preference(objective, sides[0], sides[0], [reference[0]] * 2)
        yield f"{name}, policy is reference", preference(objective, *sides, sides)
        one = [[[-0.3]], [[-2.5]]]
        yield f"{name}, one token", preference(objective, *one, [[[-1.0]], [[-0.7]]])
        edges = [[[-1e-12], [-1e4], [-1e-12, -1e-12], [-1e4, 0.0]], [[-1e4], [-1e-12], [-1e-12], [-3.0]]]
        flat = [[[-0.5] * len(response) for response in side] for side in edges]
        yield f"{name}, near certainty and far from it", preference(objective, *edges, flat)
        certain = [[[0.0], [-1.0]], [[-1.0], [0.0, 0.0]]]
        yield f"{name}, certain", preference(objective, *certain, [[[-0.5], [-0.5]], [[-0.5], [-0.5, -0.5]]])
        larger = preference(objective, *one, [[[-1.0]], [[-0.7]]])
        yield f"{name}, part of a larger step", larger | {"totals": {"tokens": 40, "responses": 10, "pairs": 5}}


def long_lines(draw):
    sides = lambda: {"log_prob": responses(draw, [16])}
    for normalisation in ("token", "response"):
        yield f"sft, {normalisation}", {"objective": {"name": "sft", "normalisation": normalisation}, "chosen": sides()}
    for propagation in ("released", "algorithm1", "equation21", "none"):
        yield f"ift, {propagation}", {"objective": {"name": "ift", "propagation": propagation}, "chosen": sides()}
    yield "orpo", {"objective": {"name": "orpo"}, "chosen": sides(), "rejected": sides()}


def main():
    cases = [generator.case(name, line, evaluate) for name, line in lines(random.Random(20240517))]
    cases += [generator.long_case(name, line, evaluate) for name, line in long_lines(random.Random(20240518))]
    generator.write(__file__, ["torch"], cases=cases)


if __name__ == "__main__":
    main()
