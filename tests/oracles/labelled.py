"""TRL's KTO trainer in float64 on given log-probabilities, with a stand-in trainer and model."""

import collections
import random
import types

import torch
import trl

import generator
from preference import pad

torch.set_default_dtype(torch.float64)


def evaluate(line):
    """Loss and cotangents of one line of the `evaluate` protocol."""
    objective, labelled = line["objective"], line["labelled"]
    leaves = [torch.tensor(response).requires_grad_() for response in labelled["log_prob"]]
    mask = pad([torch.ones(1 + len(response), dtype=torch.long) for response in leaves])
    mask[:, 0] = 0
    blank = torch.zeros_like(mask[:, 1:], dtype=torch.float64)
    outputs = types.SimpleNamespace(log_probs=pad(leaves), entropy=blank, mean_logits=blank, is_top1=blank.bool())
    sums = lambda rows: torch.tensor([sum(row) for row in rows])
    mismatched = line.get("mismatched", {"log_prob": [[0.0]], "reference_log_prob": [[0.0]]})
    metrics = collections.defaultdict(list)
    stand_in = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True), aux_loss_enabled=False, precompute_ref_logps=True,
        loss_type=objective["name"], calculate_KL=objective["name"] == "kto", beta=objective["beta"],
        _compute_kl_logps=lambda model, batch: sums(mismatched["log_prob"]),
        desirable_weight=objective.get("desirable_weight", 1.0), undesirable_weight=objective.get("undesirable_weight", 1.0),
        accelerator=types.SimpleNamespace(gather_for_metrics=lambda x: x, gather=lambda x: x, device="cpu"),
        _metrics={"train": metrics}, _total_train_tokens=0, _tp_size=1)
    loss = trl.KTOTrainer._compute_loss(stand_in, lambda **_: outputs, {
        "input_ids": mask, "attention_mask": mask, "completion_mask": mask, "label": torch.tensor(labelled["desirable"]),
        "ref_logps": sums(labelled["reference_log_prob"]), "ref_KL_logps": sums(mismatched["reference_log_prob"])}, False)
    loss.backward()
    cotangents = {"labelled": {"log_prob": [leaf.grad.tolist() for leaf in leaves]}}
    if "mismatched" in line:
        cotangents["mismatched"] = {"log_prob": [[0.0] * len(row) for row in mismatched["log_prob"]]}
    logged = ("rewards/chosen", "rewards/rejected") + (("kl",) if objective["name"] == "kto" else ())
    return {"source": "trl", "loss": loss.item(), "cotangents": cotangents,
            "metrics": {key: metrics[key][0] for key in logged if metrics[key]}}


def lines(draw):
    def rows(lengths, scale=0.7):
        return [[-scale * draw.expovariate(1.0) for _ in range(length)] for length in lengths]

    def columns(lengths):
        return {"log_prob": rows(lengths), "reference_log_prob": rows(lengths)}

    for name in ("kto", "apo_zero_unpaired"):
        for beta in (1e-3, 0.1, 50.0):
            for weights in ({}, {"desirable_weight": 1.5, "undesirable_weight": 0.25}):
                objective = {"name": name, "beta": beta} | weights

                def line(labels, labelled, mismatched):
                    sides = {"labelled": labelled | {"desirable": labels}}
                    return {"objective": objective} | sides | ({"mismatched": mismatched} if name == "kto" else {})

                label = ", ".join(f"{key} {value}" if key != "name" else value for key, value in objective.items())
                yield f"{label}, odd and ragged", line([True, False, True, False, False], columns([5, 1, 9, 2, 17]), columns([1, 9, 4]))
                yield f"{label}, all desirable", line([True, True], columns([3, 4]), columns([4, 3]))
                yield f"{label}, all undesirable", line([False], columns([1]), columns([2]))
                same = columns([3])
                yield f"{label}, policy is reference", line([True], {key: same["log_prob"] for key in same}, {key: same["log_prob"] for key in same})
                edges = {"log_prob": [[-1e-12], [-1e4], [-1.0, 0.0], [-1e4, -1e-12]], "reference_log_prob": [[-0.5], [-1e4], [-2.0, -0.1], [-1.0, -1.0]]}
                yield f"{label}, near certainty and far from it", line([True, True, False, False], edges, {key: edges[key][1:3] for key in edges})


def main():
    draw = random.Random(20240517)
    cases = [generator.case(name, line, evaluate) for name, line in lines(draw)]
    rows = lambda: [[-0.05 * draw.expovariate(1.0) for _ in range(16)] for _ in range(2)]
    for name, mismatched in (("kto", True), ("apo_zero_unpaired", False)):
        line = {"objective": {"name": name, "beta": 0.1}, "labelled": {"log_prob": rows(), "reference_log_prob": rows(), "desirable": [True, False]}}
        line |= {"mismatched": {"log_prob": rows(), "reference_log_prob": rows()}} if mismatched else {}
        cases.append(generator.long_case(name, line, evaluate))
    generator.write(__file__, ["torch", "trl"], cases=cases)


if __name__ == "__main__":
    main()
