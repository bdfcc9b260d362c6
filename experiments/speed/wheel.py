"""The wheel's DPO loss on CPU tensors beside TRL's own eager loss, forward and backward, one thread each, in one sitting.

Run from the repository's root where the wheel, PyTorch and TRL are installed: `python3 experiments/speed/wheel.py`. Both get the
same padded log-probabilities in float32. TRL's trainer computes its loss and metrics (`DPOTrainer._compute_loss`) with a stand-in
model that answers the log-probabilities; its arithmetic alone, without metrics, is measured too. The overhead is the time of a call,
forward and backward, at 4 x 1024 tokens less the time that the loss itself takes there; the sides are tensors of their own, so that it
has no slices of PyTorch's. Every time is the minimum of its repetitions; the load is recorded. Writes `wheel.json` beside itself.
"""

import collections
import os
import time
import types

import numpy as np
import torch
import trl

import objective_lake as ol
import record
from objective_lake.torch import loss

torch.set_num_threads(1)
BETA = 0.1


def inputs(pairs, width):
    """Chosen responses before rejected ones; the last places of half of them are padding."""
    random = np.random.default_rng(0)
    log_prob = torch.tensor(random.uniform(-3, -0.1, (2 * pairs, width)), dtype=torch.float32)
    reference = (log_prob + torch.tensor(random.uniform(-0.1, 0.1, log_prob.shape), dtype=torch.float32)).clamp(max=0)
    mask = torch.ones(2 * pairs, width, dtype=torch.bool)
    mask[::2, width - width // 8:] = False
    return log_prob.requires_grad_(), reference, mask


def minimum(function, repetitions):
    times = []
    for _ in range(repetitions):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return 1e6 * min(times)


def trainer():
    return types.SimpleNamespace(
        model=types.SimpleNamespace(training=True), aux_loss_enabled=False, ld_alpha=None, precompute_ref_logps=True,
        accelerator=types.SimpleNamespace(gather=lambda x: x, gather_for_metrics=lambda x: x, device="cpu"),
        f_divergence_type="reverse_kl", use_weighting=False, loss_types=["sigmoid"], loss_weights=[1.0], beta=BETA,
        label_smoothing=0.0, args=types.SimpleNamespace(discopop_tau=None), _metrics={"train": collections.defaultdict(list)},
        _total_train_tokens=0, _tp_size=1)


def measure(pairs, width, repetitions):
    log_prob, reference, mask = inputs(pairs, width)
    dpo = ol.objective("dpo", beta=BETA)

    def ours():
        log_prob.grad = None
        value, _ = loss(dpo, chosen=(log_prob[:pairs], mask[:pairs], reference[:pairs]),
                        rejected=(log_prob[pairs:], mask[pairs:], reference[pairs:]))
        value.backward()
        return value.item(), log_prob.grad

    chosen, rejected = ((log_prob.detach()[side].clone().requires_grad_(), mask[side], reference[side])
                        for side in (slice(None, pairs), slice(pairs, None)))

    def call():
        chosen[0].grad = rejected[0].grad = None
        value, _ = loss(dpo, chosen=chosen, rejected=rejected)
        value.backward()

    completion = torch.cat([torch.zeros(len(mask), 1, dtype=torch.bool), mask], 1).long()
    totals = (reference * mask).sum(1).chunk(2)
    blank = torch.zeros_like(log_prob)

    def theirs():
        log_prob.grad = None
        outputs = types.SimpleNamespace(log_probs=log_prob * mask, entropy=blank, mean_logits=blank, is_top1=mask)
        value = trl.DPOTrainer._compute_loss(trainer(), lambda **_: outputs, {
            "input_ids": completion, "attention_mask": completion, "completion_mask": completion,
            "ref_chosen_logps": totals[0], "ref_rejected_logps": totals[1]}, False)
        value.backward()
        return value.item(), log_prob.grad

    def arithmetic():
        log_prob.grad = None
        ratio = ((log_prob - reference) * mask).sum(1)
        value = -torch.nn.functional.logsigmoid(BETA * (ratio[:pairs] - ratio[pairs:])).mean()
        value.backward()
        return value.item(), log_prob.grad

    (value, gradient), (other, other_gradient) = ours(), theirs()
    assert abs(value - other) < 1e-5 * abs(other) and torch.allclose(gradient, other_gradient.clone(), rtol=1e-4)
    flat = [{"log_prob": log_prob.detach()[side].numpy(), "reference_log_prob": reference[side].numpy(), "mask": mask[side].numpy()}
            for side in (slice(None, pairs), slice(pairs, None))]
    lists = [{name: side[name][side["mask"]].astype(float) for name in ("log_prob", "reference_log_prob")}
             | {"lengths": side["mask"].sum(1)} for side in flat]
    alone = [({name: value for name, value in side.items() if name != "lengths"}, np.cumsum([0, *side["lengths"]]), None) for side in lists]
    rounds = {"wheel": ours, "call": call, "trl": theirs, "pytorch_eager": arithmetic,
              "loss_alone": lambda: dpo._core.evaluate_flat(alone)}
    times = {name: minimum(function, repetitions) for name, function in rounds.items()}
    for name, function in rounds.items():  # again, so that no order favours one
        times[name] = min(times[name], minimum(function, repetitions))
    return {"pairs": pairs, "width": width, "tokens": int(mask.sum())} | {f"{name}_microseconds": t for name, t in times.items()}


def main():
    large, small = measure(64, 512, 300), measure(2, 1024, 2000)
    record.write(__file__, ["torch", "trl", "objective-lake"], load_average=os.getloadavg()[:2],
                 large=large | {"ratio_trl": large["trl_microseconds"] / large["wheel_microseconds"],
                                "ratio_pytorch_eager": large["pytorch_eager_microseconds"] / large["wheel_microseconds"]},
                 small=small | {"overhead_microseconds": small["call_microseconds"] - small["loss_alone_microseconds"]})


if __name__ == "__main__":
    main()
