"""Policy gradients of verl and TRL in float64, with autograd, and all choices by their formulas.

Each line spells its objective by the choices of `policy_gradient`; `preset` is the published name that makes the same
choices. The losses take advantages as they are given; `rewarded` has lines whose advantages come from rewards.
`formula` states every choice once, and a peer's answer is kept only if it agrees with it. What no peer computes has
the formula's answer, with the source "torch".

Constants of the peers are set aside as follows:

- verl divides by n + 1e-8: the masks of its losses are passed in 32 bits, where n + 1e-8 is n, and its mean is
  replaced where it whitens.
- verl whitens with 1 / sqrt(variance + 1e-8): `without_offset` is what it answers where the root is taken of the
  variance alone.
- verl divides by a group's deviation + 1e-6, a parameter that is set to TRL's 1e-4.
- verl clamps log-ratios to 20 nats (10 above for gspo), estimates of k3 to 10, the complement of a probability by
  1e-8: the lines stay within these, and no bound lies where 1e-8 decides.
- verl draws tokens of `clip_cov` at random: the draw is replaced by the order of their covariances.
- TRL adds 1e-4 to deviations, as these lines do.
- A mask of verl's rejection leaves the denominator; its and TRL's zero weights stay in it. A line says which:
  `denominator`.
"""

import inspect
import itertools
import math
import random
import textwrap
import types
from unittest import mock

import numpy
import torch
import trl
import trl.experimental.gmpo
from verl.trainer.ppo import core_algos, rollout_corr_helper
from verl.workers.config import ActorConfig
from verl.workers.config.actor import PolicyLossConfig

import generator
from preference import pad

torch.set_default_dtype(torch.float64)
DEFAULTS = {
    "ratio": "token", "trust_region": "clip", "correction": "none", "beta": 0.0, "divergence": "k3",
    "divergence_place": "corrected", "aggregation": "response_mean", "entropy_coefficient": 0.0, "entropy_share": 1.0
}
VERL_AGGREGATION = {
    "token_mean": "token-mean", "response_mean": "seq-mean-token-mean", "response_sum": "seq-mean-token-sum",
    "fixed_length": "seq-mean-token-sum-norm"
}
VERL_LOSS = {
    "clip": "vanilla", "cispo": "cispo", "sapo": "sapo", "geometric_mean": "geo_mean", "total_variation": "dppo_tv",
    "binary_kl": "dppo_kl", "quadratic": "dro", "clip_cov": "clip_cov", "kl_cov": "kl_cov", "none": "gpg"
}


class Columns:
    """A line's columns as tensors, one a response, with the policy's as leaves."""
    def __init__(self, side):
        tensors = lambda name: [torch.tensor(row) for row in side[name]] if name in side else None
        self.log_prob = [torch.tensor(row).requires_grad_() for row in side["log_prob"]]
        self.entropy = [torch.tensor(row).requires_grad_() for row in side["entropy"]] if "entropy" in side else None
        self.behaviour, self.rollout, self.reference = (tensors(f"{name}_log_prob")
                                                        for name in ("behaviour", "rollout", "reference"))
        self.advantage = [row.expand(len(own)) for row, own in zip(tensors("advantage"), self.log_prob)]
        self.group = side.get("group")

    def __len__(self):
        return len(self.log_prob)

    def mask(self):
        return pad([torch.ones(len(row), dtype=torch.float32) for row in self.log_prob])


def full(objective):
    return DEFAULTS | objective


# The formulas.


def log_ratios(objective, columns):
    """x of each token under the choice of `ratio`."""
    for own, behaviour in zip(columns.log_prob, columns.behaviour or columns.log_prob):
        x = own - behaviour
        level = objective["ratio"]
        yield {
            "token": lambda: x, "none": lambda: x, "sequence": lambda: x.mean().expand(len(x)),
            "product": lambda: x.sum().expand(len(x)), "sequence_token": lambda: own - own.detach() + x.mean().detach()
        }[level]()


def bounds(objective):
    low = objective.get("clip", 0.2)
    return low, objective.get("clip_high", low)


def covariances(columns):
    advantage, own = torch.cat(columns.advantage), torch.cat(columns.log_prob).detach()
    return (advantage - advantage.mean()) * (own - own.mean())


def token_losses(objective, columns):
    """The loss of each token, without correction and divergence."""
    region, (low, high) = objective["trust_region"], bounds(objective)
    result = []
    for own, behaviour, advantage, x in zip(columns.log_prob, columns.behaviour or columns.log_prob, columns.advantage,
                                            log_ratios(objective, columns)):
        ratio, token_x = x.exp(), own - behaviour
        if region in ("clip", "clip_cov"):
            capped = ratio.clamp(max=objective.get("delta", math.inf))
            loss = -torch.minimum(capped * advantage, ratio.clamp(1 - low, 1 + high) * advantage)
        elif region in ("none", "kl_cov"):
            loss = -advantage * (own if objective["ratio"] == "none" else ratio)
        elif region == "cispo":
            loss = -ratio.clamp(objective.get("min_ratio", 0.0), objective.get("max_ratio",
                                                                               5.0)).detach() * advantage * own
        elif region == "sapo":
            temperature = torch.where(advantage > 0, objective.get("positive_temperature", 1.0),
                                      objective.get("negative_temperature", 1.05))
            loss = -4 / temperature * torch.sigmoid(temperature * (ratio - 1)) * advantage
        elif region == "vespo":
            k, decay = (torch.where(advantage >= 0, objective.get(f"positive_{name}", positive),
                                    objective.get(f"negative_{name}", negative))
                        for name, positive, negative in (("k", 2.0, 3.0), ("lambda", 3.0, 2.0)))
            log_weight = token_x.clamp(-20, 20).sum().clamp(math.log(1e-8), 20)
            loss = -(decay + k * log_weight - decay * log_weight.exp()).exp().detach() * advantage * own
        elif region == "geometric_mean":
            clamped = token_x.clamp(-low, high)
            held = torch.where(advantage > 0, torch.minimum(token_x, clamped), torch.maximum(token_x, clamped))
            loss = (-held.mean().exp() * advantage.mean()).expand(len(own))
        elif region in ("total_variation", "binary_kl"):
            p, q = own.exp(), behaviour.exp()
            if region == "total_variation":
                keep = torch.where(advantage > 0, p - q <= high, p - q >= -low)
            else:
                kl = q * (behaviour - own) + (1 - q) * torch.log((1 - q) / (1 - p))
                keep = torch.where(advantage > 0, (kl <= high) | (p <= q), (kl <= low) | (p >= q))
            loss = -(ratio.clamp(max=objective.get("max_ratio", 20.0)) * keep).detach() * advantage * own
        elif region == "quadratic":
            loss = -(advantage * own - objective.get("quadratic_weight", 1.0) / 2 * token_x**2)
        elif region == "topr":
            taper = torch.where(advantage >= 0, 1.0, token_x.sum().exp().clamp(max=1.0)).detach()
            loss = -taper * advantage * own
        result.append(loss)
    if region in ("clip_cov", "kl_cov"):
        flat, x = torch.cat(result), torch.cat(
            [own - behaviour for own, behaviour in zip(columns.log_prob, columns.behaviour)])
        covariance, advantage = covariances(columns), torch.cat(columns.advantage)
        count = max(1, int(objective["covariance_share"] * len(flat)))
        if region == "clip_cov":
            ratio = x.exp()
            clipped = -ratio.clamp(1 - low, 1 + high) * advantage > -ratio * advantage
            candidates = ~clipped & (covariance > objective["covariance_min"]) & (covariance
                                                                                  < objective["covariance_max"])
            largest = torch.where(candidates, covariance, -math.inf).topk(count).indices
            chosen = torch.zeros(len(flat), dtype=torch.bool)
            chosen[largest] = True
            flat = torch.where(chosen & candidates, 0.0, flat)
        else:
            largest = covariance.topk(count).indices
            flat = flat + torch.zeros(len(flat)).index_fill(0, largest, objective["covariance_weight"]) * x.abs()
        result = list(flat.split([len(row) for row in result]))
    return result


def corrections(objective, columns, weights):
    """Weights of each token's loss, and which tokens are kept."""
    name = objective["correction"]
    least, most = objective.get("correction_min", 0.0), objective.get("correction_max", math.inf)
    for own, behaviour, rollout, advantage in zip(columns.log_prob, columns.behaviour or columns.log_prob,
                                                  columns.rollout or columns.log_prob, columns.advantage):
        ones = torch.ones(len(own))
        x = (behaviour - rollout).detach()
        kind, _, level = name.partition("_")
        kind, level = ("mask", "token") if name == "icepop" else (kind, level)
        x = {"token": x, "sequence": x.sum().expand(len(x)), "geometric": x.mean().expand(len(x))}.get(level, x)
        inside = (x.exp() >= least) & (x.exp() <= most)
        if name == "none":
            yield ones, ones
        elif kind == "truncate":
            yield x.exp().clamp(least, most), ones
        elif name == "off_policy_sequence":
            keep = (advantage >= 0) | ((rollout - own.detach()).mean() <= most)
            yield ones, keep.double()
        else:
            yield x.exp() if weights == "importance" else ones, inside.double()


def estimate(objective, own, other):
    u = other - own
    return {"k1": -u, "k2": u**2 / 2, "k3": u.exp() - u - 1}[objective["divergence"]]


def aggregate(objective, columns, losses, kept):
    """The step's loss of the tokens' losses. Where `kept` is given, it says which tokens count in the denominators."""
    kept = kept or [torch.ones(len(row)) for row in losses]
    sums, counts = [(row * keep).sum() for row, keep in zip(losses, kept)], [keep.sum() for keep in kept]
    way, some = objective["aggregation"], [count > 0 for count in counts]
    if way == "token_mean":
        return sum(sums) / sum(counts)
    if way == "response_mean":
        return sum(total / count for total, count in zip(sums, counts) if count > 0) / sum(some)
    if way in ("response_sum", "fixed_length"):
        return sum(sums) / sum(some) / (objective.get("max_tokens", 256) if way == "fixed_length" else 1)
    groups = [[index for index, own in enumerate(columns.group) if own == group]
              for group in sorted(set(columns.group))]
    means = [
        sum(sums[i] for i in members) / sum(counts[i] for i in members) for members in groups
        if sum(counts[i] for i in members) > 0
    ]
    return sum(means) / len(means)


def formula(objective, columns, weights="importance", denominator="all"):
    losses, corrected = token_losses(objective, columns), list(corrections(objective, columns, weights))
    losses = [loss * weight * keep for loss, (weight, keep) in zip(losses, corrected)]
    if objective["entropy_share"] < 1:
        entropies = torch.cat(columns.entropy).detach()
        least = torch.quantile(entropies, 1 - objective["entropy_share"])
        losses = [loss * (entropy.detach() >= least) for loss, entropy in zip(losses, columns.entropy)]
    if objective["beta"] > 0:
        for index, (own, reference, behaviour) in enumerate(zip(columns.log_prob, columns.reference,
                                                                columns.behaviour)):
            ratio = (own - behaviour).exp() if objective["divergence_place"] == "corrected" else 1.0
            losses[index] = losses[index] + objective["beta"] * ratio * estimate(objective, own, reference)
    kept = [keep for _, keep in corrected] if denominator == "kept" else None
    loss = aggregate(objective, columns, losses, kept)
    if objective["entropy_coefficient"]:
        loss = loss - objective["entropy_coefficient"] * torch.cat(columns.entropy).mean()
    return loss


# The peers.


def actor(objective, **policy_loss):
    low, high = bounds(objective)
    if objective["trust_region"] == "cispo":
        low, high = 1 - objective.get("min_ratio", 0.0), objective.get("max_ratio", 5.0) - 1
    cap = objective.get("max_ratio", 20.0) if objective["trust_region"] in ("total_variation",
                                                                            "binary_kl") else objective.get(
                                                                                "delta", 1e300)
    info = {"loss_scale_factor": objective.get("max_tokens", 256)} if objective["aggregation"] == "fixed_length" else {}
    return ActorConfig(strategy="fsdp",
                       rollout_n=1,
                       ppo_micro_batch_size_per_gpu=1,
                       clip_ratio=low,
                       clip_ratio_low=low,
                       clip_ratio_high=high,
                       clip_ratio_c=cap,
                       tau_pos=objective.get("positive_temperature", 1.0),
                       tau_neg=objective.get("negative_temperature", 1.05),
                       global_batch_info=info,
                       policy_loss=PolicyLossConfig(**policy_loss))


def verl_correction(objective, columns, mask, weights):
    """Weights of verl's importance sampling, and its mask after rejection."""
    name = objective["correction"]
    least, most = objective.get("correction_min"), objective.get("correction_max")
    if name == "none":
        return None, mask
    x = pad(columns.behaviour) - pad(columns.rollout)
    if name in ("truncate_token", "truncate_sequence"):
        return rollout_corr_helper.compute_rollout_correction_weights(x, mask, name.removeprefix("truncate_"),
                                                                      most)[0], mask
    if weights == "importance":
        level = "sequence" if name == "mask_sequence" else "token"
        return rollout_corr_helper.compute_rollout_correction_weights(x, mask, level, f"{least}_{most}")[0], mask
    # verl bounds the inverse of the ratio.
    option = {"mask_token": "token_k1", "mask_sequence": "seq_sum_k1", "mask_geometric": "seq_mean_k1"}[name]
    return None, rollout_corr_helper.compute_rollout_rejection_mask(x, mask, option, f"{1 / most}_{1 / least}")[0]


def verl(objective, columns, weights="importance", denominator="all"):
    region, mode = objective["trust_region"], VERL_AGGREGATION[objective["aggregation"]]
    mask = columns.mask()
    sampled, mask = verl_correction(objective, columns, mask, weights)
    names = {
        "quadratic": {"dro_beta": objective.get("quadratic_weight", 1.0)}, "clip_cov": {
            "clip_cov_ratio": objective.get("covariance_share"), "clip_cov_lb": objective.get("covariance_min"),
            "clip_cov_ub": objective.get("covariance_max")
        }, "kl_cov": {
            "kl_cov_ratio": objective.get("covariance_share"), "ppo_kl_coef": objective.get("covariance_weight")
        }
    }
    name = "gspo" if objective["ratio"] == "sequence_token" else VERL_LOSS[region]
    config = actor(objective, **names.get(region, {}))
    own, behaviour, advantage = pad(columns.log_prob), pad(columns.behaviour
                                                           or columns.log_prob).detach(), pad(columns.advantage)

    def by_covariance(count):
        # The order of the candidates by their covariances, in place of a random one.
        order = numpy.argsort([-value for value in candidates], kind="stable")
        assert len(order) == count
        return torch.tensor(order)

    if region == "clip_cov":
        low, high = bounds(objective)
        ratio, flat = (own - behaviour).exp(), mask > 0
        clipped = (-ratio.clamp(1 - low, 1 + high) * advantage > -ratio * advantage)[flat]
        values = covariances(columns)
        inside = ~clipped & (values > objective["covariance_min"]) & (values < objective["covariance_max"])
        candidates = values[inside].tolist()
    with mock.patch.object(torch, "randperm", by_covariance):
        loss, _ = core_algos.POLICY_LOSS_REGISTRY[name](behaviour, own, advantage, mask, mode, config, sampled)
    if objective["beta"] > 0:
        divergence = core_algos.kl_penalty(own, pad(columns.reference), objective["divergence"])
        loss = loss + objective["beta"] * core_algos.agg_loss(divergence, mask, mode, **config.global_batch_info)
    if objective["entropy_coefficient"]:
        loss = loss - objective["entropy_coefficient"] * core_algos.agg_loss(pad(columns.entropy), mask, mode)
    return loss


def trl_loss(objective, columns, weights="importance", denominator="all"):
    region, (low, high) = objective["trust_region"], bounds(objective)
    mask = columns.mask().long()
    own, behaviour = pad(columns.log_prob), pad(columns.behaviour or columns.log_prob).detach()
    blank = torch.zeros_like(own).detach()
    kind = {("clip", "response_mean"): "grpo", ("clip", "token_mean"): "dapo", ("clip", "fixed_length"): "dr_grpo",
            ("clip", "response_sum"): "luspo", ("cispo", "token_mean"): "cispo", ("sapo", "response_mean"): "sapo",
            ("vespo", "token_mean"): "vespo", ("geometric_mean", "response_mean"): "gmpo"}[region,
                                                                                           objective["aggregation"]]
    correction = objective["correction"]
    by_sampler = correction.startswith(("truncate", "mask")) or correction == "icepop"
    arguments = types.SimpleNamespace(delta=objective.get("delta"),
                                      steps_per_generation=1,
                                      use_bias_correction_kl=objective["divergence_place"] == "corrected",
                                      sapo_temperature_pos=objective.get("positive_temperature", 1.0),
                                      sapo_temperature_neg=objective.get("negative_temperature", 1.05),
                                      vespo_k_pos=objective.get("positive_k", 2.0),
                                      vespo_lambda_pos=objective.get("positive_lambda", 3.0),
                                      vespo_k_neg=objective.get("negative_k", 3.0),
                                      vespo_lambda_neg=objective.get("negative_lambda", 2.0))
    identity = lambda x, *_, **__: x
    stand_in = types.SimpleNamespace(
        model=types.SimpleNamespace(training=True),
        aux_loss_enabled=False,
        args=arguments,
        loss_type=kind,
        beta=objective["beta"],
        top_entropy_quantile=objective["entropy_share"],
        epsilon_low=low,
        epsilon_high=objective.get("max_ratio", 5.0) if region == "cispo" else high,
        _get_per_token_logps_and_entropies=lambda *_, **__: (own, pad(columns.entropy)
                                                             if columns.entropy else blank, None),
        off_policy_mask_threshold=objective["correction_max"] if correction == "off_policy_sequence" else None,
        importance_sampling_level="sequence" if objective["ratio"] == "sequence" else "token",
        use_vllm=by_sampler,
        vllm_importance_sampling_correction=True,
        current_gradient_accumulation_steps=1,
        max_completion_length=objective.get("max_tokens", 256),
        _entropy_bonus_enabled=objective["entropy_coefficient"] != 0,
        entropy_coef=objective["entropy_coefficient"],
        use_adaptive_entropy=False,
        get_gamma_weights=trl.GRPOTrainer.get_gamma_weights,
        get_off_policy_mask=trl.GRPOTrainer.get_off_policy_mask,
        accelerator=types.SimpleNamespace(num_processes=1,
                                          gather=identity,
                                          gather_for_metrics=identity,
                                          reduce=identity,
                                          pad_across_processes=identity,
                                          sync_gradients=True),
        _metrics={"train": _Metrics()})
    stand_in.get_high_entropy_mask = lambda *rest: trl.GRPOTrainer.get_high_entropy_mask(stand_in, *rest)
    advantage = pad(columns.advantage)
    if region in ("geometric_mean", "vespo") or correction == "off_policy_sequence":
        advantage = advantage[:, 0] if region == "geometric_mean" else advantage[:, :1]
    inputs = {
        "prompt_ids": mask[:, :1], "prompt_mask": mask[:, :1], "completion_ids": mask, "completion_mask": mask,
        "advantages": advantage, "old_per_token_logps": behaviour, "old_logps": behaviour.sum(1),
        "num_items_in_batch": mask.sum()
    }
    if columns.reference:
        inputs["ref_per_token_logps"] = pad(columns.reference)
    if columns.rollout:
        inputs["sampling_per_token_logps"] = pad(columns.rollout)
    if by_sampler:
        inputs["importance_sampling_ratio"] = trl_weights(objective, behaviour, pad(columns.rollout))
    trainer = trl.RLOOTrainer if objective["ratio"] == "product" else trl.GRPOTrainer
    trainer = trl.experimental.gmpo.GMPOTrainer if region == "geometric_mean" else trainer
    if objective["ratio"] == "product":
        inputs["advantages"] = pad(columns.advantage)[:, 0]
    return trainer._compute_loss(stand_in, None, inputs)


class _Metrics(dict):
    def __missing__(self, key):
        return self.setdefault(key, [])


def trl_weights(objective, behaviour, rollout):
    """The lines of TRL's trainer between generation and loss that make the weights, run as they are installed."""
    kind, _, level = objective["correction"].partition("_")
    kind, level = ("mask", "token") if objective["correction"] == "icepop" else (kind, level)
    trainer = types.SimpleNamespace(vllm_importance_sampling_mode=f"{level}_{kind}",
                                    vllm_importance_sampling_clip_min=objective.get("correction_min"),
                                    vllm_importance_sampling_clip_max=objective.get("correction_max"))
    scope = {
        "torch": torch, "math": math, "self": trainer, "mask": torch.ones_like(behaviour),
        "old_per_token_logps": behaviour, "sampling_per_token_logps": rollout
    }
    exec(
        installed(trl.GRPOTrainer._generate_and_score_completions, "per_token_logps_diff = ",
                  "# Compute the per-token log probabilities for the reference"), scope)
    return scope["vllm_importance_sampling_ratio"]


PEERS = {"verl": verl, "trl": trl_loss, "torch": formula}


def answer(objective, side, source, **ways):
    columns = Columns(side)
    loss = PEERS[source](full(objective), columns, **ways)
    loss.backward()
    gradient = lambda rows: [(torch.zeros_like(row) if row.grad is None else row.grad).tolist() for row in rows]
    cotangents = {"log_prob": gradient(columns.log_prob)}
    if objective.get("entropy_coefficient"):
        cotangents["entropy"] = gradient(columns.entropy)
    return loss.item(), cotangents


def case(name, objective, side, source, preset=None, **ways):
    """A line with the answer of `source`, which must be the formula's."""
    loss, cotangents = answer(objective, side, source, **ways)
    expected, slopes = answer(objective, side, "torch", **ways)
    flat = lambda columns: [value for rows in columns.values() for row in rows for value in row]
    apart = max(abs(a - b) for a, b in zip([loss, *flat(cotangents)], [expected, *flat(slopes)]))
    size = max(map(abs, [expected, *flat(slopes)]))
    assert apart <= 1e-13 * max(size, 1.0), f"{name}: {source} is {apart} from the formula"
    line = {"objective": {"name": "policy_gradient", "advantage": "given"} | objective, "groups": side}
    preset = {} if preset is None else {"preset": {"advantage": "given"} | preset}
    return {
        "name": f"{name}, {source}", "line": line, **preset, **ways, "source": source, "loss": loss,
        "cotangents": {"groups": cotangents}
    }


# Lines.


def side_of(draw, objective, apart, tokenwise, lengths=(3, 1, 5, 2, 4)):
    """Columns of five responses in two groups; advantages of both signs and zero, a number a token or a response."""
    objective = full(objective)
    low = 1e-3 if objective["trust_region"] == "binary_kl" else 0.0
    log_prob = [[-low - draw.expovariate(1.0) for _ in range(length)] for length in lengths]
    near = lambda rows, apart: [[min(value + apart * max(-3.0, min(3.0, draw.gauss(0.0, 1.0))), -low) for value in row]
                                for row in rows]
    side = {"log_prob": log_prob}
    if objective["ratio"] != "none" or objective[
            "correction"] != "none" or objective["divergence_place"] == "corrected" and objective["beta"] > 0:
        side["behaviour_log_prob"] = near(log_prob, apart)
    if objective["correction"] != "none":
        side["rollout_log_prob"] = near(side["behaviour_log_prob"], 0.4)
    if objective["beta"] > 0:
        side["reference_log_prob"] = near(log_prob, 0.5)
    if objective["entropy_coefficient"] or objective["entropy_share"] < 1:
        side["entropy"] = [[draw.expovariate(1.0) for _ in row] for row in log_prob]
    whole = [1.25, -0.75, 0.0, -2.5, 0.5]
    side["advantage"] = [[draw.choice([-1, 1]) * draw.expovariate(1.0) for _ in row]
                         for row in log_prob] if tokenwise else [[a] for a in whole]
    if tokenwise:
        side["advantage"][2][1] = 0.0
    if objective["aggregation"] == "prompt_mean":
        side["group"] = [0, 0, 1, 1, 1]
    return side


def presets():
    """A preset, the choices of policy_gradient that it makes, the peers, and whether advantages may be by token."""
    narrow = {"clip": 0.1, "clip_high": 0.3}
    for clip in ({}, narrow, {"delta": 1.6}):
        yield {"name": "grpo"} | clip, clip, ("verl", "trl"), True
        yield {"name": "dr_grpo", "max_tokens": 12} | clip, {"aggregation": "fixed_length", "max_tokens": 12} | clip, (
            "verl", "trl"), True
        yield {"name": "bnpo"} | clip, {"aggregation": "token_mean"} | clip, ("verl", "trl"), True
    yield {"name": "dapo", "clip": 0.2,
           "clip_high": 0.28}, {"aggregation": "token_mean", "clip": 0.2, "clip_high": 0.28}, ("verl", "trl"), True
    for clip in ({"clip": 3e-4, "clip_high": 4e-4}, {"clip": 0.1, "clip_high": 0.15}):
        yield {"name": "gspo"} | clip, {"ratio": "sequence"} | clip, ("trl", ), True
        yield {"name": "gspo_token"} | clip, {"ratio": "sequence_token"} | clip, ("verl", ), True
        yield {"name": "luspo"} | clip, {"ratio": "sequence", "aggregation": "response_sum"} | clip, ("trl", ), True
    for cap in ({"max_ratio": 1.25}, {"max_ratio": 5.0}):
        yield {"name": "cispo"} | cap, {"trust_region": "cispo", "aggregation": "token_mean"} | cap, ("trl",
                                                                                                      "verl"), True
    both = {"min_ratio": 0.75, "max_ratio": 1.25}
    yield {"name": "cispo"} | both, {"trust_region": "cispo", "aggregation": "token_mean"} | both, ("verl", ), True
    for heat in ({}, {"positive_temperature": 5.0, "negative_temperature": 0.5}):
        yield {"name": "sapo"} | heat, {"trust_region": "sapo"} | heat, ("verl", "trl"), True
    for density in ({}, {"positive_k": 0.5, "positive_lambda": 1.0, "negative_k": 1.0, "negative_lambda": 4.0}):
        yield {"name": "vespo"} | density, {"trust_region": "vespo", "aggregation": "token_mean"} | density, (
            "trl", ), False
    for clip in ({"clip": 0.4, "clip_high": 0.4}, {"clip": 0.1, "clip_high": 0.2}):
        yield {"name": "gmpo"} | clip, {"trust_region": "geometric_mean"} | clip, ("verl", "trl"), False
    yield {"name": "rloo", "clip": 0.2, "beta": 0.0}, {"ratio": "product", "aggregation": "response_mean",
                                                       "clip": 0.2}, ("trl", ), False
    yield {"name": "gpg"}, {"ratio": "none", "trust_region": "none", "aggregation": "token_mean"}, ("verl", ), True
    for region, name in (("total_variation", "dppo_tv"), ("binary_kl", "dppo_kl")):
        for bound in ({"clip": 0.15, "clip_high": 0.15}, {"clip": 0.02, "clip_high": 0.05, "max_ratio": 1.5}):
            yield {"name": name} | bound, {"trust_region": region, "aggregation": "token_mean"} | bound, (
                "verl", ), True
    for weight in (0.1, 2.0):
        yield ({"name": "dro", "quadratic_weight": weight},
               {"trust_region": "quadratic", "aggregation": "token_mean", "quadratic_weight": weight}, ("verl", ), True)
    yield {"name": "topr"}, {"trust_region": "topr", "aggregation": "response_sum"}, ("torch", ), False
    for share, least, most in ((0.2, 0.05, 5.0), (0.4, 0.1, 0.8), (0.01, 0.0, 5.0)):
        bound = {"covariance_share": share, "covariance_min": least, "covariance_max": most}
        yield {"name": "clip_cov"} | bound, {"trust_region": "clip_cov", "aggregation": "token_mean"} | bound, (
            "verl", ), True
    for share, weight in ((0.2, 1.0), (0.01, 0.1)):
        bound = {"covariance_share": share, "covariance_weight": weight}
        yield {"name": "kl_cov"} | bound, {"trust_region": "kl_cov", "aggregation": "token_mean"} | bound, (
            "verl", ), True


def label(objective):
    return ", ".join(f"{key} {value}" if key != "name" else value for key, value in objective.items()) or "defaults"


def losses(draw):
    for preset, choices, sources, tokenwise in presets():
        for apart, by_token in itertools.product((0.0, 0.15, 0.8), (False, True) if tokenwise else (False, )):
            side = side_of(draw, choices, apart, by_token)
            for source in sources:
                kind = "tokens" if by_token else "responses"
                yield case(f"{label(preset)}, policies {apart} apart, advantages of {kind}", choices, side, source,
                           preset)


def aggregations(draw):
    regions = {
        "clip": {}, "cispo": {"max_ratio": 1.25, "min_ratio": 0.5}, "total_variation": {"clip": 0.1},
        "quadratic": {"quadratic_weight": 0.5}
    }
    for (region,
         own), way in itertools.product(regions.items(),
                                        ("token_mean", "response_mean", "response_sum", "fixed_length", "prompt_mean")):
        choices = {"trust_region": region, "aggregation": way
                   } | own | ({"max_tokens": 7} if way == "fixed_length" else {})
        yield case(label(choices), choices, side_of(draw, choices, 0.4, True),
                   "torch" if way == "prompt_mean" else "verl")
    choices = {"aggregation": "prompt_mean", "clip_high": 0.28}
    side = side_of(draw, choices, 0.3, True, (1, 1, 4, 5)) | {"group": [0, 0, 1, 1]}
    yield case("prompts of 2 and of 9 tokens", choices, side, "torch")


def corrected(draw):
    bound = {"correction_max": 1.2}
    two = {"correction_min": 0.7, "correction_max": 1.3}
    wide = {"correction_min": 0.4, "correction_max": 2.0}
    ways = [({"correction": "truncate_token"} | bound, "importance", "all", ("verl", "trl")),
            ({"correction": "truncate_sequence"} | bound, "importance", "all", ("verl", "trl")),
            ({"correction": "truncate_geometric"} | bound, "importance", "all", ("torch", )),
            ({"correction": "mask_token"} | two, "importance", "all", ("verl", "trl")),
            ({"correction": "mask_sequence"} | wide, "importance", "all", ("verl", "trl")),
            ({"correction": "mask_geometric"} | two, "importance", "all", ("torch", )),
            ({"correction": "icepop"} | two, "importance", "all", ("verl", "trl"))]
    for name, bounds in (("mask_token", two), ("mask_sequence", wide),
                         ("mask_geometric", {"correction_min": 0.85, "correction_max": 1.15})):
        ways.append(({"correction": name} | bounds, "importance", "kept", ("torch", )))
        ways.append(({"correction": name} | bounds, "one", "kept", ("verl", )))
        ways.append(({"correction": name} | bounds, "one", "all", ("torch", )))
    ways.append(({"correction": "icepop"} | two, "importance", "kept", ("torch", )))
    for limit in (0.05, 0.3):
        ways.append(({"correction": "off_policy_sequence", "correction_max": limit}, "one", "all", ("trl", )))
        ways.append(({"correction": "off_policy_sequence", "correction_max": limit}, "one", "kept", ("torch", )))
    named = {"truncate_token": "tis", "mask_sequence": "mis", "icepop": "icepop"}
    for correction, weights, denominator, sources in ways:
        for way in ("response_mean", "token_mean"):
            choices = {"aggregation": way} | correction
            side = side_that_is_corrected(draw, choices, weights)
            for source in sources:
                preset = None
                if way == "token_mean" and correction["correction"] in named and weights == "importance":
                    preset = {"name": named[correction["correction"]]
                              } | {k: v
                                   for k, v in correction.items() if k != "correction"}
                yield case(f"{label(choices)}, weights {weights}, denominator of {denominator} tokens",
                           choices,
                           side,
                           source,
                           preset,
                           weights=weights,
                           denominator=denominator)
    for region in ({"trust_region": "cispo",
                    "max_ratio": 1.5}, {"trust_region": "sapo"}, {"trust_region": "total_variation", "clip": 0.1}):
        choices = region | {"aggregation": "response_mean", "correction": "truncate_token"} | bound
        yield case(label(choices),
                   choices,
                   side_of(draw, choices, 0.3, True),
                   "verl",
                   weights="importance",
                   denominator="all")


def side_that_is_corrected(draw, choices, weights):
    """Columns of which the correction changes some tokens and leaves or keeps others."""
    while True:
        side = side_of(draw, choices, 0.2, choices["correction"] != "off_policy_sequence")
        columns = Columns(side)
        made = torch.cat([weight * keep for weight, keep in corrections(full(choices), columns, weights)])
        untouched = torch.cat([
            weight for weight, _ in corrections(
                full(choices) | {"correction_min": 0.0, "correction_max": math.inf}, columns, weights)
        ])
        if 0 < (made != untouched).sum() < len(made):
            return side


def divergences(draw):
    for estimator, place, way in itertools.product(("k1", "k2", "k3"), ("loss", "corrected"),
                                                   ("response_mean", "token_mean")):
        choices = {"divergence": estimator, "divergence_place": place, "beta": 0.3, "aggregation": way}
        sources = ["verl"] if place == "loss" else ["torch"]
        sources += ["trl"] if estimator == "k3" else []
        sources = [source for source in sources if source != "torch"] or ["torch"]
        for apart, by_token in ((0.0, False), (0.5, True)):
            side = side_of(draw, choices, apart, by_token)
            if "behaviour_log_prob" not in side:
                side["behaviour_log_prob"] = side["log_prob"]
            for source in sources:
                yield case(f"{label(choices)}, policies {apart} apart", choices, side, source)
    choices = {
        "divergence": "k3", "divergence_place": "corrected", "beta": 0.3, "aggregation": "response_mean",
        "ratio": "sequence"
    }
    yield case(f"{label(choices)}, corrected by the token's ratio", choices, side_of(draw, choices, 0.3, True), "torch")
    # A token that is rejected has no divergence either.
    for weights, source in (("importance", "torch"), ("one", "verl")):
        choices = {
            "divergence": "k2", "divergence_place": "loss", "beta": 0.3, "correction": "mask_token",
            "correction_min": 0.7, "correction_max": 1.3
        }
        side = side_that_is_corrected(draw, choices, weights)
        yield case(f"{label(choices)}, weights {weights}", choices, side, source, weights=weights, denominator="kept")


def entropies(draw):
    for coefficient in (0.01, 0.5):
        choices = {"aggregation": "token_mean", "entropy_coefficient": coefficient}
        side = side_of(draw, choices, 0.2, True)
        for source in ("verl", "trl"):
            yield case(label(choices), choices, side, source)
    for share in (0.2, 0.45):
        choices = {"aggregation": "token_mean", "entropy_share": share}
        yield case(label(choices), choices, side_of(draw, choices, 0.2, True), "trl")


# Advantages from rewards.


def token_rewards(side, penalties=None):
    """verl's rewards: a token's penalties, and the response's reward on its last token."""
    rows = [[0.0] * (len(own) - 1) + [reward] for own, reward in zip(side["log_prob"], side["reward"])]
    if penalties is not None:
        rows = [[value - penalty for value, penalty in zip(row, own)] for row, own in zip(rows, penalties)]
    return pad([torch.tensor(row) for row in rows]), pad([torch.ones(len(row)) for row in rows])


def mean(values, mask, axis=None):
    """verl's mean over a mask, without the 1e-8 that it adds to the number of tokens."""
    return (values * mask).sum(axis) / mask.sum(axis)


def bare(variance):
    """The inverse root of the variance that verl adds 1e-8 to, of the variance alone."""
    return (variance - 1e-8)**-0.5


def verl_advantages(name, side, penalties=None, **arguments):
    rewards, mask = token_rewards(side, penalties)
    with mock.patch.object(core_algos.verl_F, "masked_mean", mean):
        values, _ = core_algos.ADV_ESTIMATOR_REGISTRY[name](token_level_rewards=rewards,
                                                            response_mask=mask,
                                                            index=numpy.array(side["group"]),
                                                            **arguments)
    return [row[:len(own)].tolist() for row, own in zip(values.double(), side["log_prob"])]


def installed(function, first, last):
    """The lines of a function from the one that begins with `first` up to the one that has `last`, without that."""
    lines = inspect.getsource(function).splitlines()
    begin = next(place for place, text in enumerate(lines) if text.strip().startswith(first))
    end = next(place for place, text in enumerate(lines) if place > begin and last in text)
    return textwrap.dedent("\n".join(lines[begin:end]))


def trl_advantages(side, rewards, **arguments):
    """The lines of TRL's trainer that make advantages from rewards, run as they are installed."""
    trainer = types.SimpleNamespace(multi_objective_aggregation="sum_then_normalize",
                                    scale_rewards="group",
                                    reward_weights=torch.ones(rewards.shape[1]),
                                    reward_funcs=[None] * rewards.shape[1])
    trainer.__dict__.update(arguments)
    sizes = {len(list(members)) for _, members in itertools.groupby(side["group"])}
    scope = {
        "torch": torch, "nanstd": trl.trainer.utils.nanstd, "self": trainer, "rewards_per_func": rewards,
        "device": "cpu", "num_generations": sizes.pop()
    }
    assert not sizes
    exec(
        installed(trl.GRPOTrainer._generate_and_score_completions, "unscorable_mask = ",
                  "# Slice to keep only the local part"), scope)
    return [[value] * len(own) for value, own in zip(scope["advantages"].tolist(), side["log_prob"])]


def best_of(k, rewards):
    """For each response, the mean over the sets of k with it of the best reward less the best of the others."""
    result = []
    for own, reward in enumerate(rewards):
        others = [value for place, value in enumerate(rewards) if place != own]
        sets = [max(reward, *rest) - max(rest) for rest in itertools.combinations(others, k - 1)]
        result.append(sum(sets) / len(sets))
    return result


def rewarded(draw):
    """Lines whose advantages come from rewards. The loss is -A log pi of each token, over the responses."""
    numbers = itertools.count()

    def side_for(group, lengths, rewards=None):
        rewards = rewards or [draw.gauss(0.0, 1.0) for _ in lengths]
        return {
            "log_prob": [[-draw.expovariate(1.0) for _ in range(length)] for length in lengths], "group": group,
            "reward": rewards
        }

    def given(name, choices, side, advantage, source, **more):
        objective = {"name": "policy_gradient", "ratio": "none", "trust_region": "none", "aggregation": "response_sum"
                     } | choices
        count = len(side["log_prob"])
        loss = -math.fsum(a * own for rows in zip(advantage, side["log_prob"]) for a, own in zip(*rows)) / count
        cotangents = [[-a / count for a in row] for row in advantage]
        return {
            "name": f"{name}, {label(choices)}, step {next(numbers)}, {source}",
            "line": {"objective": objective, "groups": side}, "source": source, "advantage": advantage, "loss": loss,
            "cotangents": {"groups": {"log_prob": cotangents}}, **more
        }

    def whitened(name, choices, side, estimator, *rest, **arguments):
        """With the answer as it would be without 1e-8 under the root of the variance."""
        with mock.patch.object(torch, "rsqrt", bare):
            without = verl_advantages(estimator, side, *rest, **arguments)
        return given(name,
                     choices,
                     side,
                     verl_advantages(estimator, side, *rest, **arguments),
                     "verl",
                     without_offset=without)

    by_response = lambda values, side: [[value] * len(own) for value, own in zip(values, side["log_prob"])]
    sides = [
        side_for([0, 0, 0, 1, 1], (3, 1, 5, 2, 4)),
        side_for([0, 0, 1, 1], (2, 3, 1, 5)),
        side_for([0, 0, 1, 1], (2, 1, 3, 1), [1.0, 0.0, 0.5, 0.5]),
        side_for([0, 1, 1], (2, 1, 3), [1.0, 0.25, 0.5])
    ]
    for side in sides:
        # A response alone in its group has its reward for an advantage in verl, and 0 here and in TRL.
        alone = side["group"].count(0) == 1
        if not alone:
            yield given("grpo", {"advantage": "group_mean", "scale": "group"}, side,
                        verl_advantages("grpo", side, epsilon=1e-4), "verl")
            for source, estimator, arguments in (("verl", "grpo", {"norm_adv_by_std_in_grpo": False}), ("verl", "gpg",
                                                                                                        {})):
                values = verl_advantages(estimator, side, **arguments)
                # verl's GPG also multiplies by the responses over those with a reward that is not 0.
                factor = len(side["reward"]) / sum(reward != 0
                                                   for reward in side["reward"]) if estimator == "gpg" else 1.0
                values = [[value / factor for value in row] for row in values]
                yield given(estimator, {"advantage": "group_mean", "scale": "none"}, side, values, source)
            yield given("opo", {"advantage": "length_weighted"}, side, verl_advantages("opo", side), "verl")
            yield whitened("reinforce_plus_plus_baseline", {"advantage": "batch_baseline"}, side,
                           "reinforce_plus_plus_baseline")
        yield given("rloo", {"advantage": "leave_one_out"}, side, verl_advantages("rloo_vectorized", side), "verl")
        for discount in (1.0, 0.9):
            config = types.SimpleNamespace(gamma=discount)
            yield whitened("reinforce_plus_plus", {"advantage": "batch", "discount": discount},
                           side,
                           "reinforce_plus_plus",
                           config=config)
        greedy = [draw.gauss(0.0, 1.0) for _ in side["reward"]]
        values = verl_advantages("remax", side, reward_baselines=torch.tensor(greedy))
        pairs = [list(pair) for pair in zip(side["reward"], greedy)]
        yield given("remax, the second reward is the greedy response's", {"advantage": "greedy"},
                    side | {"reward": pairs}, values, "verl")
    for side in (sides[2],
                 side_for([0, 0, 0, 0, 1, 1, 1, 1], (1, 2, 1, 3, 2, 1, 1, 4),
                          [1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0])):
        rewards = torch.tensor(side["reward"]).view(2, -1)
        means = rewards.mean(1, keepdim=True)
        yield given("max_rl", {"advantage": "max_rl"}, side,
                    by_response(((rewards - means) / means).flatten().tolist(), side), "torch")
    four = side_for([0, 0, 0, 0, 1, 1, 1, 1], (1, 2, 1, 3, 2, 2, 1, 4))
    for k in (2, 3, 4):
        values = best_of(k, four["reward"][:4]) + best_of(k, four["reward"][4:])
        yield given("pass@k", {"advantage": "pass_at_k", "pass_k": k, "scale": "none"}, four, by_response(values, four),
                    "torch")
    for scale in ("none", "group"):
        values = verl_advantages("grpo_passk", four, config={"norm_adv_by_std_in_grpo": scale == "group"}, epsilon=1e-4)
        yield given("grpo_passk", {"advantage": "pass_at_k", "pass_k": 4, "scale": scale}, four, values, "verl")
    for scale in ("group", "batch", "none"):
        values = trl_advantages(four, torch.tensor(four["reward"])[:, None], scale_rewards=scale)
        yield given("grpo", {"advantage": "group_mean", "scale": scale}, four, values, "trl")
    several = sides[1] | {"reward": [[draw.gauss(0.0, 1.0), draw.gauss(0.0, 3.0)] for _ in range(4)]}
    rewards = torch.tensor(several["reward"])
    yield given("several rewards", {"advantage": "group_mean", "scale": "group", "rewards": "together"}, several,
                trl_advantages(several, rewards), "trl")
    values = trl_advantages(several, rewards, multi_objective_aggregation="normalize_then_sum")
    yield given("gdpo, whitened over responses", {"advantage": "group_mean", "scale": "group", "rewards": "apart"},
                several, values, "trl")
    values, without = verl_gdpo(several, lambda variance: variance**-0.5), verl_gdpo(several, bare)
    yield given("gdpo, whitened over tokens", {"advantage": "group_mean", "scale": "group", "rewards": "apart"},
                several,
                values,
                "verl",
                without_offset=without)
    rewards = [[1.0, 0.5], [0.0, math.nan], [0.5, -1.0], [math.nan, 2.0], [math.nan, math.nan], [1.0, 0.0], [0.25, 1.0],
               [0.0, 0.0]]
    abstaining = four | {"reward": [[None if math.isnan(value) else value for value in row] for row in rewards]}
    for way, how in (("sum_then_normalize", "together"), ("normalize_then_sum", "apart")):
        values = trl_advantages(four, torch.tensor(rewards), multi_objective_aggregation=way)
        yield given("rewards that abstain", {"advantage": "group_mean", "scale": "group", "rewards": how}, abstaining,
                    values, "trl")
    # The divergence in the reward.
    for estimator in ("k1", "k2", "k3"):
        side = dict(sides[0])
        side["behaviour_log_prob"] = [[-draw.expovariate(1.0) for _ in row] for row in side["log_prob"]]
        side["reference_log_prob"] = [[value - 0.4 * draw.expovariate(1.0) for value in row]
                                      for row in side["behaviour_log_prob"]]
        penalties = [(0.3 * core_algos.kl_penalty(torch.tensor(own), torch.tensor(other), estimator)).tolist()
                     for own, other in zip(side["behaviour_log_prob"], side["reference_log_prob"])]
        choices = {"divergence": estimator, "divergence_place": "reward", "beta": 0.3}
        yield given("dr_grpo", {"advantage": "group_mean", "scale": "none"} | choices, side,
                    verl_advantages("grpo", side, penalties, norm_adv_by_std_in_grpo=False), "verl")
        yield given("rloo", {"advantage": "leave_one_out"} | choices, side, verl_advantages("rloo", side, penalties),
                    "verl")
        for discount in (1.0, 0.9):
            config = types.SimpleNamespace(gamma=discount)
            yield whitened("reinforce_plus_plus", {"advantage": "batch", "discount": discount} | choices,
                           side,
                           "reinforce_plus_plus",
                           penalties,
                           config=config)


def verl_gdpo(side, root):
    """verl's lines for several rewards: each reward's own groups first, then whitened over the step's tokens."""
    total = sum(
        pad([
            torch.tensor(row)
            for row in verl_advantages("grpo", side | {"reward": [row[k] for row in side["reward"]]}, epsilon=1e-4)
        ]) for k in range(len(side["reward"][0])))
    mask = pad([torch.ones(len(row)) for row in side["log_prob"]])
    with mock.patch.object(torch, "rsqrt", root), mock.patch.object(core_algos.verl_F, "masked_mean", mean):
        values = core_algos.verl_F.masked_whiten(total, mask)
    return [row[:len(own)].tolist() for row, own in zip(values, side["log_prob"])]


# PPO with its value function.


def ppo(draw):
    for value_clip, entropy, apart in itertools.product((None, 0.2), (0.0, 0.05), (0.0, 0.3)):
        lengths = (5, 1, 3, 2)
        log_prob = [[-draw.expovariate(1.0) for _ in range(length)] for length in lengths]
        normal = lambda: [[draw.gauss(0.0, 1.0) for _ in range(length)] for length in lengths]
        side = {
            "log_prob": log_prob, "advantage": normal(), "value": normal(), "return": normal(),
            "behaviour_log_prob": [[min(value + apart * draw.gauss(0.0, 1.0), 0.0) for value in row]
                                   for row in log_prob]
        }
        objective = {"name": "ppo", "clip": 0.2, "value_coefficient": 0.5, "entropy_coefficient": entropy}
        if value_clip is not None:
            objective["value_clip"] = value_clip
            side["behaviour_value"] = [[value + 0.3 * draw.gauss(0.0, 1.0) for value in row] for row in side["value"]]
        if entropy > 0:
            side["entropy"] = [[draw.expovariate(1.0) for _ in row] for row in log_prob]
        names = ["log_prob", "value"] + ["entropy"] * (entropy > 0)
        leaves = {name: [torch.tensor(row).requires_grad_() for row in side[name]] for name in names}
        constant = lambda name: pad([torch.tensor(row) for row in side[name]])
        mask = pad([torch.ones(length, dtype=torch.float32) for length in lengths])
        config = actor(full({"clip": 0.2, "aggregation": "token_mean"}))
        loss, _ = core_algos.compute_policy_loss_vanilla(constant("behaviour_log_prob"), pad(leaves["log_prob"]),
                                                         constant("advantage"), mask, "token-mean", config)
        before = constant("behaviour_value" if value_clip is not None else "value")
        values, _ = core_algos.compute_value_loss(pad(leaves["value"]), constant("return"), before, mask, value_clip
                                                  or 1e300)
        loss = loss + 0.5 * values
        if entropy > 0:
            loss = loss - entropy * core_algos.agg_loss(pad(leaves["entropy"]), mask, "token-mean")
        loss.backward()
        gradient = {name: [row.grad.tolist() for row in rows] for name, rows in leaves.items()}
        yield {
            "name": f"{label(objective)}, policies {apart} apart", "line": {"objective": objective, "rollouts": side},
            "source": "verl", "loss": loss.item(), "cotangents": {"rollouts": gradient}
        }


# The inputs of verl's own tests. Tokens that its masks leave out are left out here.


def verl_tests(draw):
    """verl's test_dynamic_policy_losses, test_loss_aggregation, test_rollout_corr and test_core_algos."""
    choices = {"trust_region": "quadratic", "quadratic_weight": 0.05, "aggregation": "token_mean"}
    side = {"log_prob": [[-0.8, -0.9]], "behaviour_log_prob": [[-1.0, -0.7]], "advantage": [[2.0, -1.5]]}
    yield case("verl's test of dro", choices, side, "verl")
    # Losses 1, 2 | 4, 6 and 3 i + 1, 3 i + 2 for i below 8: here advantages of tokens whose log-probability is -1.
    for name, rows in (("two responses", [[1.0, 2.0],
                                          [4.0,
                                           6.0]]), ("eight responses", [[3.0 * i + 1, 3.0 * i + 2] for i in range(8)])):
        for way in ("token_mean", "response_mean", "response_sum", "fixed_length"):
            choices = {"ratio": "none", "trust_region": "none", "aggregation": way
                       } | ({"max_tokens": 3} if way == "fixed_length" else {})
            yield case(f"verl's test of aggregation, {name}, {way}", choices,
                       {"log_prob": [[-1.0] * 2 for _ in rows], "advantage": rows}, "verl")
    # The ratios 0.4, 0.8 and 6 between 0.5 and 5, and a sampler that is nearer and farther by 1 and 0.5 nats.
    own = [[-2.0, -2.0, -2.0]]
    rollout = [[-2.0 - math.log(ratio) for ratio in (0.4, 0.8, 6.0)]]
    choices = {"correction": "icepop", "correction_min": 0.5, "correction_max": 5.0}
    side = {"log_prob": own, "behaviour_log_prob": own, "rollout_log_prob": rollout, "advantage": [[1.0, -1.0, 1.0]]}
    yield case("verl's test of icepop", choices, side, "verl", weights="importance", denominator="all")
    own = [[-2.0] * 4] * 2
    for choices in ({"correction": "truncate_token",
                     "correction_max": 2.0}, {"correction": "mask_token", "correction_min": 0.5,
                                              "correction_max": 2.0}):
        side = {
            "log_prob": own, "behaviour_log_prob": own, "rollout_log_prob": [[-1.0] * 4, [-2.5] * 4],
            "advantage": [[1.0], [-1.0]]
        }
        weights, denominator = ("importance", "all") if choices["correction"] == "truncate_token" else ("one", "kept")
        yield case(f"verl's test of masks, {choices['correction']}",
                   choices,
                   side,
                   "verl",
                   weights=weights,
                   denominator=denominator)
    # Its draws of log-probabilities are standard normal: a constant that leaves their differences makes them negative.
    torch.manual_seed(0)
    drawn, reference = (torch.randn(4, 8, dtype=torch.float32).double() - 4 for _ in range(2))
    side = {
        "log_prob": drawn.tolist(), "behaviour_log_prob": drawn.tolist(), "reference_log_prob": reference.tolist(),
        "advantage": [[0.0]] * 4
    }
    for estimator in ("k1", "k2", "k3"):
        if estimator == "k3":
            # verl holds estimates of k3 at 10, which is what these tokens have.
            excess = (reference - drawn).exp() - (reference - drawn) - 1
            keep = lambda rows: [[value for value, own in zip(row, held) if own < 10]
                                 for row, held in zip(rows, excess.tolist())]
            side = {name: keep(rows) if name != "advantage" else rows for name, rows in side.items()}
        choices = {"divergence": estimator, "divergence_place": "loss", "beta": 1.0}
        yield case(f"verl's test of divergences, {estimator}", choices, side, "verl")


def verl_advantage_tests():
    """Advantages of test_core_algos_on_cpu's inputs, by response; epsilon is verl's."""
    for batch, length, groups, seed in ((64, 128, 5, 0), (128, 256, 8, 1)):
        draw = random.Random(seed)
        torch.manual_seed(seed)
        counts = [2] * groups
        for _ in range(batch - 2 * groups):
            counts[draw.randrange(groups)] += 1
        index = [group for group, count in enumerate(counts) for _ in range(count)]
        mask = torch.randint(0, 2, (batch, length), dtype=torch.int64).float()
        rewards = (torch.randn(batch, length, dtype=torch.float32) * mask).double().sum(1)
        for name, arguments in (("grpo", {"epsilon": 1e-4}), ("rloo", {})):
            column = rewards[:, None].clone()
            values, _ = core_algos.ADV_ESTIMATOR_REGISTRY[name](token_level_rewards=column,
                                                                response_mask=torch.ones_like(column),
                                                                index=numpy.array(index),
                                                                **arguments)
            yield {
                "name": f"{name}, {batch} responses", "advantage": {"grpo": "group_mean",
                                                                    "rloo": "leave_one_out"}[name], "group": index,
                "reward": rewards.tolist(), "advantages": values[:, 0].tolist(), "source": "verl"
            }
    near = torch.tensor([[1.0], [1.00001], [2.0], [2.00001]])
    values, _ = core_algos.ADV_ESTIMATOR_REGISTRY["grpo"](token_level_rewards=near,
                                                          response_mask=torch.ones_like(near),
                                                          index=numpy.array([0, 0, 1, 1]),
                                                          epsilon=1e-4)
    yield {
        "name": "grpo, rewards that are nearly equal", "advantage": "group_mean", "group": [0, 0, 1, 1],
        "reward": near[:, 0].tolist(), "advantages": values[:, 0].tolist(), "source": "verl"
    }


def generalised_advantages():
    """The inputs of verl's test of estimates over several turns, and its answer before it whitens."""
    rewards, values = [0.1, 0.1, 0.1, 0.1, 1.0], [4.0, 5.0, 6.0, 7.0, 9.0]
    for discount, trace in ((1.0, 0.95), (0.9, 0.5), (0.25, 0.75), (1.0, 1.0), (0.5, 0.0)):
        _, returns = core_algos.compute_gae_advantage_return(torch.tensor([rewards]), torch.tensor([values]),
                                                             torch.ones(1, 5), discount, trace)
        yield {
            "discount": discount, "lambda": trace, "rewards": rewards, "values": values, "returns": returns[0].tolist(),
            "advantages": (returns[0] - torch.tensor(values)).tolist()
        }


def main():
    draw = random.Random(20240517)
    cases = [
        *losses(draw), *aggregations(draw), *corrected(draw), *divergences(draw), *entropies(draw), *verl_tests(draw)
    ]
    generator.write(__file__, ["torch", "trl", "verl"],
                    cases=cases,
                    rewarded=list(rewarded(draw)),
                    ppo=list(ppo(draw)),
                    groups=list(verl_advantage_tests()),
                    generalised=list(generalised_advantages()))


if __name__ == "__main__":
    main()
