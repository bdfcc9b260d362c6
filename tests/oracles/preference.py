"""TRL's own losses in float64 on given log-probabilities, and the two of the set that it does not have.

`DPOTrainer._compute_loss` runs with a stand-in trainer and a model that answers the log-probabilities; `CPOTrainer.cpo_loss` and
`ORPOTrainer.odds_ratio_loss` take them as they are.
"""

import collections
import math
import random
import types
from unittest import mock

import torch
import trl
import trl.experimental.cpo
import trl.experimental.orpo

import generator

torch.set_default_dtype(torch.float64)
# What TRL calls the methods that its DPO trainer has.
LOSS_TYPES = {"dpo": "sigmoid", "sft": "sft"} | {name: name for name in (
    "hinge", "ipo", "robust", "exo_pair", "nca_pair", "bco_pair", "sppo_hard", "aot", "aot_unpaired", "apo_zero",
    "apo_down", "discopop", "sigmoid_norm")}
DIVERGENCES = {"reverse_kl": "reverse_kl", "forward_kl": "forward_kl", "js": "js_divergence"}
LOGGED = ("rewards/chosen", "rewards/rejected", "rewards/accuracies", "rewards/margins", "log_odds_ratio")


def pad(rows):
    width = max(map(len, rows))
    return torch.stack([torch.cat([row, row.new_zeros(width - len(row))]) for row in rows])


def dpo_trainer(line, leaves, metrics):
    """The loss of TRL's DPO trainer; a prompt of one token precedes each response."""
    objective, sides = line["objective"], [line["chosen"], line.get("rejected", line["chosen"])]
    mask = pad([torch.ones(1 + len(response), dtype=torch.long) for response in leaves])
    mask[:, 0] = 0
    blank = torch.zeros_like(mask[:, 1:], dtype=torch.float64)
    outputs = types.SimpleNamespace(log_probs=pad(leaves), entropy=blank, mean_logits=blank, is_top1=blank.bool())
    weighted = objective.get("weighting") == "wpo"
    if weighted:
        outputs.log_sum_sq_probs = pad([torch.tensor(row) for side in sides for row in side["log_sum_square_prob"]])
    # A sum's terms share their β in TRL.
    terms = objective.get("terms", [objective])
    tail = objective.get("tail_weight")
    stand_in = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True), aux_loss_enabled=False, ld_alpha=tail, precompute_ref_logps=True,
        accelerator=types.SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x, device="cpu"),
        f_divergence_type=DIVERGENCES[objective.get("divergence", "reverse_kl")], use_weighting=weighted,
        loss_types=[LOSS_TYPES[term["name"]] for term in terms], loss_weights=[term.get("weight", 1.0) for term in terms],
        beta=terms[0].get("beta", 1.0),
        label_smoothing=objective.get("label_smoothing", 0.0), args=types.SimpleNamespace(discopop_tau=objective.get("tau")),
        _metrics={"train": metrics}, _total_train_tokens=0, _tp_size=1)
    lengths = [[len(response) for response in side["log_prob"]] for side in sides]

    def reference(side, pair):
        row = side.get("reference_log_prob", side["log_prob"])[pair]
        shared = min(lengths[0][pair], lengths[1][pair])
        return sum(row[:shared]) + (1.0 if tail is None else tail) * sum(row[shared:])

    totals = [torch.tensor([reference(side, pair) for pair in range(len(lengths[0]))]) for side in sides]
    return trl.DPOTrainer._compute_loss(stand_in, lambda **_: outputs, {
        "input_ids": mask, "attention_mask": mask, "completion_mask": mask,
        "ref_chosen_logps": totals[0], "ref_rejected_logps": totals[1]}, False)


def cpo_trainer(line, leaves, metrics):
    """The loss of TRL's CPO trainer, which also has SimPO and AlphaPO."""
    objective, count = line["objective"], len(line["chosen"]["log_prob"])
    simpo, alphapo = objective["name"] != "cpo", objective["name"] == "alphapo"
    scores = torch.stack([leaf.mean() if simpo else leaf.sum() for leaf in leaves])
    stand_in = types.SimpleNamespace(
        alpha=objective["alpha"] if alphapo else 0.0, beta=objective["beta"], label_smoothing=0.0, loss_type="simpo" if simpo else "sigmoid",
        simpo_gamma=objective.get("target_margin"), accelerator=types.SimpleNamespace(device="cpu"))
    losses, w, l = trl.experimental.cpo.CPOTrainer.cpo_loss(stand_in, scores[:count], scores[count:])
    # AlphaPO's bent rewards are not what the metric means.
    metrics |= {} if alphapo else {"rewards/chosen": [w.mean().item()], "rewards/rejected": [l.mean().item()]}
    # The trainer adds the likelihood outside of its loss; over each response, as the formula has it.
    likelihood = torch.stack([leaf.mean() for leaf in leaves[:count]]).mean()
    return losses.mean() - (0.0 if simpo else objective["alpha"]) * likelihood


def orpo_trainer(line, leaves, metrics):
    """The loss of TRL's ORPO trainer for one pair, kept from rounding its input to float32."""
    mean = torch.stack([leaf.mean() for leaf in leaves])
    stand_in = types.SimpleNamespace(beta=line["objective"]["beta"], accelerator=types.SimpleNamespace(device="cpu"))
    with mock.patch.object(torch.Tensor, "float", lambda tensor: tensor):
        ratio, w, l, _, log_odds = trl.experimental.orpo.ORPOTrainer.odds_ratio_loss(stand_in, mean[:1], mean[1:])
    metrics |= {"rewards/chosen": [w.mean().item()], "rewards/rejected": [l.mean().item()],
                "rewards/margins": [(w - l).mean().item()], "log_odds_ratio": [log_odds.item()]}
    return -mean[0] - ratio.mean()


def tdpo(line, leaves):
    """TDPO by its formula: TRL does not have it."""
    objective, count = line["objective"], len(line["chosen"]["log_prob"])
    divergences = [[torch.tensor(row).requires_grad_() for row in line[side]["reference_kl"]] for side in ("chosen", "rejected")]
    losses = []
    for pair in range(count):
        reference = [torch.tensor(line[side]["reference_log_prob"][pair]) for side in ("chosen", "rejected")]
        margin = (leaves[pair] - reference[0]).sum() - (leaves[count + pair] - reference[1]).sum()
        w, l = divergences[0][pair].sum(), divergences[1][pair].sum()
        first = objective["variant"] == 1
        margin -= (l - w) if first else objective["alpha"] * (l - w.detach())
        losses.append(-torch.nn.functional.logsigmoid(objective["beta"] * margin))
    return torch.stack(losses).mean(), divergences


def alpha_dpo(line, leaves):
    """DPO under the alpha divergence by its formula: TRL computes it in float32."""
    objective, count = line["objective"], len(line["chosen"]["log_prob"])
    order = objective["divergence_alpha"] - 1
    rows = line["chosen"]["reference_log_prob"] + line["rejected"]["reference_log_prob"]
    scores = [torch.expm1(order * (leaf - torch.tensor(row)).sum()) / order for leaf, row in zip(leaves, rows)]
    margins = torch.stack(scores[:count]) - torch.stack(scores[count:])
    return -torch.nn.functional.logsigmoid(objective["beta"] * margins).mean()


def evaluate(line):
    name, count = line["objective"]["name"], len(line["chosen"]["log_prob"])
    rejected = line.get("rejected", {"log_prob": line["chosen"]["log_prob"]})["log_prob"]
    leaves = [torch.tensor(response).requires_grad_() for response in line["chosen"]["log_prob"] + rejected]
    metrics, divergences, source = collections.defaultdict(list), None, "trl"
    if name == "tdpo":
        (loss, divergences), source = tdpo(line, leaves), "torch"
    elif line["objective"].get("divergence") == "alpha":
        loss, source = alpha_dpo(line, leaves), "torch"
    else:
        trainer = {"simpo": cpo_trainer, "cpo": cpo_trainer, "alphapo": cpo_trainer, "orpo": orpo_trainer}.get(name, dpo_trainer)
        loss = trainer(line, leaves, metrics)
    loss.backward()
    gradients = [leaf.grad.tolist() for leaf in leaves]
    cotangents = {"chosen": {"log_prob": gradients[:count]}}
    if "rejected" in line:
        cotangents["rejected"] = {"log_prob": gradients[count:]}
    for side, rows in zip(("chosen", "rejected"), divergences or ()):
        zero = lambda row: torch.zeros_like(row) if row.grad is None else row.grad
        cotangents[side]["reference_kl"] = [zero(row).tolist() for row in rows]
    # A tail's weight is part of TRL's rewards, and none of ours.
    logged = () if name == "sft" or "tail_weight" in line["objective"] else LOGGED
    return {"source": source, "loss": loss.item(), "cotangents": cotangents,
            "metrics": {key: metrics[key][0] for key in logged if metrics[key]}}


def objectives():
    """Every method with its parameters, and whether it reads a reference."""
    for beta in (1e-3, 0.1, 50.0):
        yield {"name": "dpo", "beta": beta}
        for name in ("hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "sigmoid_norm"):
            yield {"name": name, "beta": beta}
        for smoothing in (0.1, 0.3):
            for name in ("robust", "exo_pair", "aot", "aot_unpaired"):
                yield {"name": name, "beta": beta, "label_smoothing": smoothing}
        yield {"name": "discopop", "beta": beta, "tau": 0.05}
        yield {"name": "discopop", "beta": beta, "tau": 1.0}
        yield {"name": "simpo", "beta": beta, "target_margin": 0.3}
        yield {"name": "alphapo", "beta": beta, "alpha": 0.25, "target_margin": 0.1}
        yield {"name": "alphapo", "beta": beta, "alpha": -0.5, "target_margin": 0.0}
        yield {"name": "cpo", "beta": beta, "alpha": 0.7}
        yield {"name": "tdpo", "beta": beta, "variant": 1}
        yield {"name": "tdpo", "beta": beta, "variant": 2, "alpha": 0.5}
    for name in ("dpo", "hinge", "discopop", "sigmoid_norm", "ipo"):
        extra = {"tau": 0.05} if name == "discopop" else {}
        yield {"name": name, "beta": 0.1, "divergence": "forward_kl"} | extra
        yield {"name": name, "beta": 0.1, "divergence": "js"} | extra
    yield {"name": "dpo", "beta": 0.1, "divergence": "alpha", "divergence_alpha": 0.3}
    for name in ("dpo", "hinge", "robust", "exo_pair"):
        extra = {"label_smoothing": 0.2} if name in ("robust", "exo_pair") else {}
        yield {"name": name, "beta": 0.1, "tail_weight": 0.4} | extra
    for name in ("dpo", "ipo", "exo_pair", "sppo_hard", "bco_pair", "discopop"):
        extra = {"exo_pair": {"label_smoothing": 0.2}, "discopop": {"tau": 0.05}}.get(name, {})
        yield {"name": name, "beta": 0.1, "weighting": "wpo"} | extra
    for beta in (1e-3, 0.1, 50.0):
        yield {"name": "sum", "terms": [{"name": "dpo", "beta": beta, "weight": 0.5}, {"name": "apo_zero", "beta": beta}, {"name": "sft", "weight": 2.0}]}


def rows(draw, lengths, scale=0.5):
    return [[-scale * draw.expovariate(1.0) for _ in range(length)] for length in lengths]


def columns(draw, objective, lengths, scale=0.5):
    """The columns that an objective reads of one side."""
    side = {"log_prob": rows(draw, lengths, scale)}
    if objective["name"] not in ("simpo", "alphapo", "cpo", "orpo", "sft"):
        side["reference_log_prob"] = rows(draw, lengths, scale)
    if objective["name"] == "tdpo":
        side["reference_kl"] = [[-value for value in row] for row in rows(draw, lengths, scale)]
    if objective.get("weighting") == "wpo":
        side["log_sum_square_prob"] = rows(draw, lengths, scale)
    return side


def lines(draw):
    yield "sft, token", {"objective": {"name": "sft"}, "chosen": {"log_prob": rows(draw, [3, 1, 12])}}
    for beta in (0.1, 0.25, 2.0):
        objective = {"name": "orpo", "beta": beta}
        yield f"orpo, {beta}", {"objective": objective, "chosen": columns(draw, objective, [9]), "rejected": columns(draw, objective, [5])}
    for objective in objectives():
        name = label(objective)
        sides = [columns(draw, objective, lengths) for lengths in ([5, 1, 9], [2, 6, 1])]
        yield f"{name}, ragged", {"objective": objective, "chosen": sides[0], "rejected": sides[1]}
        same = columns(draw, objective, [3])
        yield f"{name}, chosen is rejected", {"objective": objective, "chosen": same, "rejected": same}
        one = [columns(draw, objective, [1]) for _ in range(2)]
        one = [side | {"reference_log_prob": side["log_prob"]} if "reference_log_prob" in side else side for side in one]
        yield f"{name}, one token, policy is reference", {"objective": objective, "chosen": one[0], "rejected": one[1]}
        if objective.get("divergence", "reverse_kl") == "reverse_kl":
            own, flat = ([-1e-12], [-1e4], [-1.0, 0.0]), [[-0.5], [-1.5], [-2.0, -0.1]]
            edge = {"log_prob": own, "reference_kl": [[-value for value in row] for row in own]}
            edges = [{key: edge.get(key, flat) for key in side} for side in sides]
            yield f"{name}, near certainty and far from it", {"objective": objective, "chosen": edges[0], "rejected": {
                key: rows[1:] + rows[:1] for key, rows in edges[1].items()}}


def label(objective):
    return ", ".join(f"{key} {value}" if key != "name" else value for key, value in objective.items())


def long_lines(draw):
    """Every method once, with long responses whose policy and reference are near to each other."""
    seen = set()
    for objective in objectives():
        if objective.get("beta", 0.1) == 0.1 and objective["name"] not in seen:
            seen.add(objective["name"])
            sides = columns(draw, objective, [16], 0.01), columns(draw, objective, [16], 0.01)
            yield label(objective), {"objective": objective, "chosen": sides[0], "rejected": sides[1]}


def is_finite(answer):
    rows = [row for side in answer["cotangents"].values() for rows in side.values() for row in rows]
    return all(math.isfinite(value) for row in rows for value in row + [answer["loss"]])


def main():
    cases = [generator.case(name, line, evaluate) for name, line in lines(random.Random(20240517))]
    cases += [generator.long_case(name, line, evaluate) for name, line in long_lines(random.Random(20240518))]
    # Where the peer itself overflows there is no answer to compare with.
    overflown = [case["name"] for case in cases if not is_finite(case)]
    cases = [case for case in cases if is_finite(case)]
    generator.write(__file__, ["torch", "trl"], overflown=overflown, cases=cases)


if __name__ == "__main__":
    main()
