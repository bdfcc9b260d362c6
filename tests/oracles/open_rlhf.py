"""OpenRLHF's losses in float64, with autograd: the policy's, the value function's, DPO's and the reward model's.

The package imports DeepSpeed and FlashAttention, which do not work without a GPU; the losses need neither. Their
module is loaded by itself, with an empty `deepspeed`. Its constants: log-ratios are clamped to 20 nats, which these
lines stay within; a mean over a response divides by n + 1e-8, which is n for masks in 32 bits.
"""

import importlib
import itertools
import random
import sys
import types
from importlib.metadata import distribution

import torch

import generator
import policy_gradient
from policy_gradient import Columns, bounds, full, label, side_of, side_that_is_corrected
from preference import pad

torch.set_default_dtype(torch.float64)


def losses_module():
    """`openrlhf.models.loss`, without what its package imports."""
    sys.modules["deepspeed"] = types.ModuleType("deepspeed")
    folder = distribution("openrlhf").locate_file("openrlhf")
    for name, path in (("openrlhf", folder), ("openrlhf.models", folder / "models")):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = [str(path)]
    return importlib.import_module("openrlhf.models.loss")


LOSSES = losses_module()


def policy(objective, columns, weights="importance", denominator="all"):
    low, high = bounds(objective)
    correction = objective["correction"]
    loss = LOSSES.PolicyLoss(
        clip_eps_low=low,
        clip_eps_high=high,
        dual_clip=objective.get("delta"),
        token_level_loss=objective["aggregation"] == "token_mean",
        policy_loss_type="gspo" if objective["ratio"] == "sequence" else "ppo",
        enable_vllm_is_correction=correction != "none",
        vllm_is_correction_type="icepop" if correction == "icepop" else "tis",
        vllm_is_truncated_threshold=[objective.get("correction_min", 0.0),
                                     objective.get("correction_max")])
    arguments = [pad(columns.log_prob), pad(columns.behaviour).detach(), pad(columns.advantage), columns.mask()]
    return loss(*arguments, pad(columns.rollout) if columns.rollout else None)[0]


def choices():
    for way, clip in itertools.product(("token_mean", "response_mean"),
                                       ({}, {"clip": 0.1, "clip_high": 0.3}, {"delta": 1.6})):
        yield {"aggregation": way} | clip
    yield {"ratio": "sequence", "aggregation": "response_mean", "clip": 0.1, "clip_high": 0.15}
    for way, correction in itertools.product(
        ("token_mean", "response_mean"),
        ({"correction": "truncate_token", "correction_min": 0.5, "correction_max": 1.2
          }, {"correction": "icepop", "correction_min": 0.7, "correction_max": 1.3})):
        yield {"aggregation": way} | correction


def cases(draw):
    policy_gradient.PEERS["openrlhf"] = policy
    for objective in choices():
        for apart, by_token in ((0.0, False), (0.3, True)):
            corrected = "correction" in objective
            side = side_that_is_corrected(draw, objective, "importance") if corrected else side_of(
                draw, objective, apart, by_token)
            ways = {"weights": "importance", "denominator": "all"} if corrected else {}
            yield policy_gradient.case(f"{label(objective)}, policies {apart} apart", objective, side, "openrlhf",
                                       **ways)


def preferences(draw):
    """DPO with label smoothing, and IPO, on sums of log-ratios."""
    rows = lambda lengths: [[-0.7 * draw.expovariate(1.0) for _ in range(length)] for length in lengths]
    for beta, smoothing, ipo in itertools.product((0.1, 2.0), (0.0, 0.2), (False, True)):
        if ipo and smoothing:
            continue
        objective = {"name": "ipo", "beta": beta, "normalisation": "sum"
                     } if ipo else {"name": "dpo", "beta": beta, "label_smoothing": smoothing}
        sides = [{"log_prob": rows(lengths), "reference_log_prob": rows(lengths)} for lengths in ([5, 1, 3], [2, 4, 1])]
        leaves = [[torch.tensor(row).requires_grad_() for row in side["log_prob"]] for side in sides]
        own = [torch.stack([leaf.sum() for leaf in side]) for side in leaves]
        reference = [torch.stack([torch.tensor(row).sum() for row in side["reference_log_prob"]]) for side in sides]
        loss, _, _ = LOSSES.DPOLoss(beta, smoothing, ipo)(*own, *reference)
        loss.backward()
        names = ("chosen", "rejected")
        yield {
            "name": label(objective), "line": {"objective": objective, **dict(zip(names, sides))}, "source": "openrlhf",
            "loss": loss.item(), "cotangents": {
                name: {"log_prob": [leaf.grad.tolist() for leaf in side]}
                for name, side in zip(names, leaves)
            }
        }


def values(draw):
    """The value function's loss, by token: `clip` is how far it may move."""
    for clip in (None, 0.2):
        lengths = (4, 1, 2)
        column = lambda: [[draw.gauss(0.0, 1.0) for _ in range(length)] for length in lengths]
        value, returned = column(), column()
        before = [[number + 0.4 * draw.gauss(0.0, 1.0) for number in row] for row in value]
        leaves = [torch.tensor(row).requires_grad_() for row in value]
        fixed = lambda rows: pad([torch.tensor(row) for row in rows])
        mask = pad([torch.ones(length, dtype=torch.float32) for length in lengths])
        loss = LOSSES.ValueLoss(clip)(pad(leaves), fixed(before), fixed(returned), mask)
        loss.backward()
        yield {
            "name": f"value clip {clip}", "clip": clip, "value": value, "behaviour_value": before, "return": returned,
            "loss": loss.item(), "cotangents": [leaf.grad.tolist() for leaf in leaves], "source": "openrlhf"
        }


def rewards(draw):
    """Bradley-Terry on scores, with margins."""
    for margin in (None, [0.0, 1.0, 0.25]):
        scores = [[draw.gauss(0.0, 1.0) for _ in range(3)] for _ in range(2)]
        leaves = [torch.tensor(row).requires_grad_() for row in scores]
        loss = LOSSES.PairWiseLoss()(*leaves, None if margin is None else torch.tensor(margin))
        loss.backward()
        yield {
            "name": f"margins {margin}", "margin": margin, "chosen": scores[0], "rejected": scores[1],
            "loss": loss.item(), "cotangents": [leaf.grad.tolist() for leaf in leaves], "source": "openrlhf"
        }


def main():
    draw = random.Random(20240517)
    generator.write(__file__, ["torch", "openrlhf"],
                    cases=[*cases(draw), *preferences(draw)],
                    values=list(values(draw)),
                    rewards=list(rewards(draw)))


if __name__ == "__main__":
    main()
