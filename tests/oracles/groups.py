"""TRL's GRPO and RLOO trainers in float64 on given log-probabilities and rewards, with a stand-in trainer.

The trainers take advantages as they are; these are computed here from the rewards, by the formulas of the trainers. TRL corrects
the divergence by the ratio that its importance sampling has. Where that is the sequence's, the divergence here is TRL's with the
token's ratio: its loss is then the sum of two, TRL's without the divergence and TRL's with advantages of 0 by token.
"""

import collections
import itertools
import math
import random
import types

import torch
import trl

import generator
from preference import pad

torch.set_default_dtype(torch.float64)


def advantages(objective, side):
    """Advantages of the rewards of groups of any size."""
    rewards = torch.tensor(side["reward"])
    if objective["name"] == "rloo" and objective["beta"] > 0:
        columns = zip(side["behaviour_log_prob"], side["reference_log_prob"])
        drift = [math.fsum(own + [-value for value in reference]) for own, reference in columns]
        rewards = rewards - objective["beta"] * torch.tensor(drift)
    whole, result, begin = rewards, [], 0
    for _, members in itertools.groupby(side["group"]):
        size = len(list(members))
        group = rewards[begin:begin + size]
        begin += size
        if size == 1:
            result.append(torch.zeros(1))
        elif objective["name"] == "rloo":
            result.append(group - (group.sum() - group) / (size - 1))
        else:
            scale = {"group": group, "batch": whole, "none": None}[objective.get("scale", "group")]
            centred = group - group.mean()
            result.append(centred if scale is None else centred / (scale.std() + 1e-4))
    return torch.cat(result)


def evaluate(line):
    """Loss and cotangents of one line of the `evaluate` protocol."""
    objective, side = line["objective"], line["groups"]
    by_sequence = objective["name"] == "luspo" or objective.get("ratio") == "sequence"
    if not by_sequence or objective["beta"] == 0:
        return answer(objective, side, "sequence" if by_sequence else "token", advantages(objective, side))
    parts = [answer(objective | {"beta": 0.0}, side, "sequence", advantages(objective, side)),
             answer(objective, side, "token", torch.zeros(len(side["reward"])))]
    ours = [part["cotangents"]["groups"]["log_prob"] for part in parts]
    log_prob = [[a + b for a, b in zip(*rows)] for rows in zip(*ours)]
    return parts[0] | {"loss": sum(part["loss"] for part in parts), "cotangents": {"groups": {"log_prob": log_prob}}}


def answer(objective, side, level, advantage):
    """Loss and cotangents of TRL's trainer with importance ratios of this level."""
    leaves = [torch.tensor(response).requires_grad_() for response in side["log_prob"]]
    mask = pad([torch.ones(len(response), dtype=torch.long) for response in leaves])
    log_prob, blank = pad(leaves), torch.zeros_like(pad(leaves))
    behaviour = pad([torch.tensor(response) for response in side["behaviour_log_prob"]])
    metrics = collections.defaultdict(list)
    name = objective["name"]
    low = objective.get("clip", 0.2)
    arguments = types.SimpleNamespace(
        delta=objective.get("delta"), steps_per_generation=1,
        use_bias_correction_kl=trl.GRPOConfig.__dataclass_fields__["use_bias_correction_kl"].default,
        sapo_temperature_pos=objective.get("positive_temperature", 1.0),
        sapo_temperature_neg=objective.get("negative_temperature", 1.05),
        vespo_k_pos=objective.get("positive_k", 2.0), vespo_lambda_pos=objective.get("positive_lambda", 3.0),
        vespo_k_neg=objective.get("negative_k", 3.0), vespo_lambda_neg=objective.get("negative_lambda", 2.0))
    stand_in = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True), aux_loss_enabled=False, top_entropy_quantile=1.0, args=arguments,
        _get_per_token_logps_and_entropies=lambda *_, **__: (log_prob, blank, None), off_policy_mask_threshold=None,
        importance_sampling_level=level,
        beta=objective.get("beta", 0.0), loss_type=name, epsilon_low=low,
        epsilon_high=objective.get("max_ratio", 5.0) if name == "cispo" else objective.get("clip_high", low),
        use_vllm=False, vllm_importance_sampling_correction=False, current_gradient_accumulation_steps=1,
        max_completion_length=objective.get("max_tokens", 256), _entropy_bonus_enabled=False,
        get_gamma_weights=trl.GRPOTrainer.get_gamma_weights,
        accelerator=types.SimpleNamespace(num_processes=1, gather=lambda x: x, gather_for_metrics=lambda x: x,
                                          reduce=lambda x, reduction: x, sync_gradients=True),
        _metrics={"train": metrics})
    inputs = {"prompt_ids": mask[:, :1], "prompt_mask": mask[:, :1], "completion_ids": mask, "completion_mask": mask,
              "advantages": advantage, "old_per_token_logps": behaviour,
              "old_logps": behaviour.sum(1), "num_items_in_batch": mask.sum()}
    if "reference_log_prob" in side:
        inputs["ref_per_token_logps"] = pad([torch.tensor(response) for response in side["reference_log_prob"]])
    trainer = trl.RLOOTrainer if name == "rloo" else trl.GRPOTrainer
    loss = trainer._compute_loss(stand_in, None, inputs)
    loss.backward()
    return {"source": "trl", "loss": loss.item(),
            "cotangents": {"groups": {"log_prob": [leaf.grad.tolist() for leaf in leaves]}}, "metrics": {}}


def objectives():
    for beta in (0.0, 0.04):
        for own in ({"name": "grpo"}, {"name": "bnpo"}, {"name": "dapo", "clip_high": 0.2}, {"name": "dr_grpo", "scale": "group"}):
            budget = {"max_tokens": 12} if own["name"] == "dr_grpo" else {}
            yield own | {"beta": beta} | budget
        yield {"name": "grpo", "ratio": "sequence", "clip": 3e-4, "clip_high": 4e-4, "beta": beta}
        yield {"name": "grpo", "clip": 0.2, "clip_high": 0.28, "delta": 1.5, "beta": beta}
        for scale in ("batch", "none"):
            yield {"name": "grpo", "scale": scale, "beta": beta}
        yield {"name": "cispo", "max_ratio": 1.2, "beta": beta}
        yield {"name": "cispo", "beta": beta}
        yield {"name": "sapo", "beta": beta}
        yield {"name": "sapo", "positive_temperature": 5.0, "negative_temperature": 0.5, "beta": beta}
        yield {"name": "luspo", "beta": beta}
        yield {"name": "vespo", "beta": beta}
        yield {"name": "vespo", "positive_k": 0.5, "positive_lambda": 1.0, "negative_k": 1.0, "negative_lambda": 4.0, "beta": beta}
        yield {"name": "rloo", "beta": beta}
        yield {"name": "rloo", "clip": 0.05, "clip_high": 0.5, "beta": beta}


def lines(draw):
    def side(objective, lengths, group, apart):
        log_prob = [[-draw.expovariate(1.0) for _ in range(length)] for length in lengths]
        near = lambda: [[min(value + apart * draw.gauss(0.0, 1.0), 0.0) for value in row] for row in log_prob]
        columns = {"log_prob": log_prob, "behaviour_log_prob": near()}
        if objective["beta"] > 0:
            columns["reference_log_prob"] = near()
        return columns | {"group": group, "reward": [draw.gauss(0.0, 1.0) for _ in lengths]}

    for objective in objectives():
        label = ", ".join(f"{key} {value}" if key != "name" else value for key, value in objective.items())
        for apart in (0.0, 0.1, 1.0):
            chosen = side(objective, [5, 1, 9, 2, 7, 3, 4], [0, 0, 0, 1, 1, 1, 1], apart)
            yield f"{label}, policies {apart} apart", {"objective": objective, "groups": chosen}
        equal = side(objective, [3, 1], [0, 0], 0.1) | {"reward": [0.5, 0.5]}
        yield f"{label}, equal rewards", {"objective": objective, "groups": equal}
        alone = side(objective, [4, 2, 1], [0, 1, 1], 0.1)
        yield f"{label}, a group of one", {"objective": objective, "groups": alone}
        edges = {"log_prob": [[-1e-12], [-30.0, 0.0], [0.0]], "behaviour_log_prob": [[-0.5], [-1.0, -2.0], [-1e-12]]}
        if objective["beta"] > 0:
            edges["reference_log_prob"] = [[-1.0], [-30.0, -1e-12], [0.0]]
        yield f"{label}, near certainty and far from it", {"objective": objective, "groups": edges | {"group": [0, 0, 0], "reward": [1.0, 0.0, 0.25]}}


def main():
    draw = random.Random(20240517)
    cases = [generator.case(name, line, evaluate) for name, line in lines(draw)]
    for name in ("grpo", "cispo", "sapo", "luspo", "vespo", "rloo"):
        log_prob = [[-draw.expovariate(1.0) for _ in range(16)] for _ in range(3)]
        near = lambda: [[min(value + 1e-4 * draw.gauss(0.0, 1.0), 0.0) for value in row] for row in log_prob]
        side = {"log_prob": log_prob, "behaviour_log_prob": near(), "reference_log_prob": near(), "group": [0, 0, 0], "reward": [1.0, 0.0, 0.5]}
        cases.append(generator.long_case(name, {"objective": {"name": name, "beta": 0.1}, "groups": side}, evaluate))
    generator.write(__file__, ["torch", "trl"], cases=cases)


if __name__ == "__main__":
    main()
