"""BCO and PPO of TRL 1.10, the last release that has them, in float64.

`BCOTrainer.bco_loss` runs with a stand-in trainer, kept from rounding its running moments to float32. PPO's loss and its advantage
estimates are lines in the middle of `PPOTrainer.train`: those lines are run as they are installed. Its entropy bonus, which TRL does
not have, is added by the formula.
"""

import inspect
import random
import textwrap
import types
from unittest import mock

import torch
import trl.experimental.bco.bco_trainer as bco_trainer
import trl.experimental.ppo.ppo_trainer as ppo_trainer

import generator
from preference import pad

torch.set_default_dtype(torch.float64)
TRAIN = inspect.getsource(ppo_trainer.PPOTrainer.train)


def installed(first, last):
    """The lines of TRL's training loop from the one that begins with `first` to the one that begins with `last`."""
    lines = TRAIN.splitlines()
    begin = next(place for place, text in enumerate(lines) if text.strip().startswith(first))
    end = next(place for place, text in enumerate(lines) if place >= begin and text.strip().startswith(last))
    return textwrap.dedent("\n".join(lines[begin:end + 1]))


def bco(line, running):
    """Loss and cotangents of one step; `running` is TRL's state."""
    side, beta = line["labelled"], line["objective"]["beta"]
    leaves = [torch.tensor(response).requires_grad_() for response in side["log_prob"]]
    pick = lambda rows, wanted: torch.stack([row for row, label in zip(rows, side["desirable"]) if label == wanted])
    sums, references = [leaf.sum() for leaf in leaves], [torch.tensor(row).sum() for row in side["reference_log_prob"]]
    stand_in = types.SimpleNamespace(beta=beta, running=running, match_underlying_distribution=False)
    with mock.patch.object(torch.Tensor, "float", lambda tensor: tensor):
        losses, w, l, delta = bco_trainer.BCOTrainer.bco_loss(
            stand_in, pick(sums, True), pick(sums, False), pick(references, True), pick(references, False), None, None)
    losses.mean().backward()
    return {"source": "trl", "loss": losses.mean().item(),
            "cotangents": {"labelled": {"log_prob": [leaf.grad.tolist() for leaf in leaves]}},
            "metrics": {"rewards/chosen": w.mean().item(), "rewards/rejected": l.mean().item(), "delta": delta.item()}}


def bco_cases(draw):
    def rows(lengths):
        return [[-0.7 * draw.expovariate(1.0) for _ in range(length)] for length in lengths]

    for beta in (1e-3, 0.1, 50.0):
        accelerator = types.SimpleNamespace(use_distributed=False)
        running, seen, mean = bco_trainer.RunningMoments(accelerator, count=0.0), 0, 0.0
        steps = [([True, False, False], [5, 1, 9]), ([False, True], [1, 1]), ([True, True, False, True], [2, 17, 3, 4])]
        for step, (labels, lengths) in enumerate(steps):
            line = {"objective": {"name": "bco", "beta": beta},
                    "labelled": {"log_prob": rows(lengths), "reference_log_prob": rows(lengths), "desirable": labels}}
            if seen:
                line["state"] = {"rewards": {"count": seen, "mean": mean}}
            yield {"name": f"bco, beta {beta}, step {step}", "line": line, **bco(line, running)}
            seen, mean = int(running.count), float(running.mean)
        edges = {"log_prob": [[-1e-12], [-1e4], [-1.0, 0.0]], "reference_log_prob": [[-0.5], [-1.5], [-2.0, -0.1]], "desirable": [True, False, True]}
        line = {"objective": {"name": "bco", "beta": beta}, "labelled": edges}
        running = bco_trainer.RunningMoments(accelerator, count=0.0)
        yield {"name": f"bco, beta {beta}, near certainty and far from it", "line": line, **bco(line, running)}


def ppo(line):
    objective, side = line["objective"], line["rollouts"]
    names = ["log_prob"] + [name for name in ("value", "entropy") if name in side]
    leaves = {name: [torch.tensor(response).requires_grad_() for response in side[name]] for name in names}
    padding = ~pad([torch.ones(len(response), dtype=torch.long) for response in side["log_prob"]]).bool()
    constant = lambda name: pad([torch.tensor(response) for response in side[name]])
    blank = torch.zeros(padding.shape)
    scope = vars(ppo_trainer) | {
        "vpred": pad(leaves["value"]) if "value" in side else blank, "mb_return": constant("return") if "value" in side else blank,
        "mb_values": constant("behaviour_value") if "behaviour_value" in side else blank,
        "new_logprobs": pad(leaves["log_prob"]), "mb_logprobs": constant("behaviour_log_prob"), "mb_advantage": constant("advantage"),
        "padding_mask": padding, "padding_mask_p1": padding, "micro_batch_inds": slice(None),
        "args": types.SimpleNamespace(cliprange=objective["clip"], cliprange_value=objective.get("value_clip", float("inf")),
                                      vf_coef=objective["value_coefficient"])}
    exec(installed("vpredclipped = ", "loss = pg_loss"), scope)
    entropies = torch.cat(leaves["entropy"]).mean() if "entropy" in side else 0.0
    loss = scope["loss"] - objective["entropy_coefficient"] * entropies
    loss.backward()
    gradient = lambda leaf: (torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).tolist()
    return {"source": "trl", "loss": loss.item(), "metrics": {"value_loss": scope["vf_loss"].item()} if "value" in side else {},
            "cotangents": {"rollouts": {name: [gradient(leaf) for leaf in rows] for name, rows in leaves.items()}}}


def ppo_cases(draw):
    parameters = [(clip, value, value_clip, entropy) for clip in (0.2, 0.05) for value, value_clip in ((1.0, None), (0.1, 0.2), (0.0, None))
                  for entropy in (0.0, 0.01)]
    for clip, value, value_clip, entropy in parameters:
        objective = {"name": "ppo", "clip": clip, "value_coefficient": value, "entropy_coefficient": entropy}
        objective |= {} if value_clip is None else {"value_clip": value_clip}
        for apart in (0.0, 0.3):
            lengths = [5, 1, 9, 2]
            log_prob = [[-draw.expovariate(1.0) for _ in range(length)] for length in lengths]
            normal = lambda: [[draw.gauss(0.0, 1.0) for _ in range(length)] for length in lengths]
            side = {"log_prob": log_prob, "advantage": normal(),
                    "behaviour_log_prob": [[min(value + apart * draw.gauss(0.0, 1.0), 0.0) for value in row] for row in log_prob]}
            if value > 0:
                side |= {"value": normal(), "return": normal()}
            if value_clip is not None:
                side["behaviour_value"] = [[v + 0.3 * draw.gauss(0.0, 1.0) for v in row] for row in side["value"]]
            if entropy > 0:
                side["entropy"] = [[draw.expovariate(1.0) for _ in row] for row in log_prob]
            line = {"objective": objective, "rollouts": side}
            label = ", ".join(f"{key} {value}" if key != "name" else value for key, value in objective.items())
            yield {"name": f"{label}, policies {apart} apart", "line": line, **ppo(line)}
    edges = {"log_prob": [[-1e-12, -30.0], [0.0]], "behaviour_log_prob": [[-30.0, -1e-12], [-0.5]], "advantage": [[-1.0, 2.0], [1.0]]}
    line = {"objective": {"name": "ppo", "clip": 0.2, "value_coefficient": 0.0, "entropy_coefficient": 0.0}, "rollouts": edges}
    yield {"name": "ppo, near certainty and far from it", "line": line, **ppo(line)}


def long_cases(draw):
    rows = lambda scale=0.05: [[-scale * draw.expovariate(1.0) for _ in range(16)] for _ in range(2)]
    labelled = {"log_prob": rows(), "reference_log_prob": rows(), "desirable": [True, False]}
    first = bco_trainer.RunningMoments(types.SimpleNamespace(use_distributed=False), count=0.0)
    yield generator.long_case("bco", {"objective": {"name": "bco", "beta": 0.1}, "labelled": labelled}, lambda line: bco(line, first))
    objective = {"name": "ppo", "clip": 0.2, "value_coefficient": 1.0, "entropy_coefficient": 0.01}
    columns = ("log_prob", "behaviour_log_prob", "value", "return", "advantage")
    rollouts = {column: rows(1.0) for column in columns} | {"entropy": [[-value for value in row] for row in rows(1.0)]}
    yield generator.long_case("ppo", {"objective": objective, "rollouts": rollouts}, ppo)


def advantages(draw):
    """TRL's estimates of episodes that end; `args` are its names of the discount and of λ."""
    for discount, trace in ((1.0, 0.95), (0.99, 0.95), (0.9, 0.0), (0.9, 1.0)):
        rewards, values = ([draw.gauss(0.0, 1.0) for _ in range(12)] for _ in range(2))
        scope = vars(ppo_trainer) | {"rewards": torch.tensor([rewards]), "values": torch.tensor([values]), "responses": torch.zeros(1, 12),
                                     "args": types.SimpleNamespace(gamma=discount, lam=trace)}
        exec(installed("lastgaelam = 0", "returns = "), scope)
        yield {"discount": discount, "lambda": trace, "rewards": rewards, "values": values,
               "advantages": scope["advantages"][0].tolist(), "returns": scope["returns"][0].tolist()}


def main():
    draw = random.Random(20240517)
    cases = [*bco_cases(draw), *ppo_cases(draw), *long_cases(draw)]
    generator.write(__file__, ["torch", "trl"], cases=cases, advantages=list(advantages(draw)))


if __name__ == "__main__":
    main()
