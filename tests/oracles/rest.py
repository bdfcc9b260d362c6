"""The objectives of TRL that take their responses from elsewhere, in float64 on given log-probabilities.

A trainer that reads logits gets two a token: the log-probability, and that of all other tokens together. Each group
of cases has its formula. DPOP and weighted pairs, which TRL does not have, come from PyTorch.
"""

import collections
import random
import types

import torch
import trl
import trl.experimental.cpo
from torch.nn.functional import logsigmoid
from trl.experimental.a2po import A2POTrainer
from trl.experimental.iw_opd import IWOPDTrainer
from trl.experimental.tpo import TPOTrainer

import generator
from preference import pad

torch.set_default_dtype(torch.float64)
FORMULAS = {
    "a2po": "mean over responses of (beta (log pi - log pi_ref) - advantage)^2, log pi summed; advantage = R - V*, "
            "V* = value_beta log mean exp(R / value_beta) over responses of the reference",
    "tpo": "mean over pairs of a loss of beta (s_w - s_l), plus alpha times the mean over their tokens of -log pi of "
           "gold responses; s sums, or means for ipo and tpo_l; target_margin is taken off the margin of tpo_l; "
           "label_smoothing weighs the loss of the opposite margin",
    "iw_opd": "mean over tokens of -A_t log pi_t, a_t = log pi_teacher - log pi_behaviour, "
              "A_t = a_t (1 + gamma (1 - sum_(k<t) |a_k| / sum_k |a_k|))",
    "cpo": "mean over pairs of a loss of beta (s_w - s_l), minus alpha times the mean over chosen responses of the "
           "mean of log pi; s sums",
    "simpo": "mean over pairs of -(1 - e) log sig(z) - e log sig(-z), z = beta (m_w - m_l) - target_margin, m means",
    "alphapo": "as simpo, of the means bent to (1 - exp(-alpha m)) / alpha",
    "dpop": "mean over pairs of -log sig(beta (r_w - r_l - penalty max(0, -r_w))), r = log pi - log pi_ref summed "
            "(arXiv 2402.13228)",
    "reward_model": "mean over pairs of -log sig(score_w - score_l - margin) + centring (score_w + score_l)^2",
    "weighted dpo": "mean over pairs of weight (-log sig(beta h)): the weights are not divided by their sum",
}


def leaves_of(rows):
    return [torch.tensor(row).requires_grad_() for row in rows]


def gradients(leaves):
    return [(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).tolist() for leaf in leaves]


def logits_of(leaves):
    """Two logits a token, the second that of all other tokens, with ids and a mask; a prompt of one token is first."""
    rows = [torch.stack([leaf, torch.log(-torch.expm1(leaf))], 1) for leaf in leaves]
    width = max(map(len, rows))
    logits = torch.stack([torch.cat([row, torch.zeros(width - len(row) + 1, 2)]) for row in rows])
    mask = torch.stack([torch.tensor([0] + [1] * len(row) + [0] * (width - len(row))) for row in rows])
    return logits, torch.zeros_like(mask), mask


def stub(**fields):
    identity = lambda value, *_, **__: value
    accelerator = types.SimpleNamespace(gather=identity, gather_for_metrics=identity, reduce=identity, device="cpu")
    return types.SimpleNamespace(model=types.SimpleNamespace(training=True),
                                 accelerator=accelerator,
                                 _total_train_tokens=0,
                                 _tp_size=1,
                                 _metrics={"train": collections.defaultdict(list)},
                                 aux_loss_enabled=False,
                                 **fields)


def rows(draw, lengths, scale=0.7):
    return [[-1e-3 - scale * draw.expovariate(1.0) for _ in range(length)] for length in lengths]


def case(name, objective, line, loss, cotangents, source="trl", **more):
    return {
        "name": name, "formula": FORMULAS[objective["name"]], "line": {"objective": objective, **line},
        "source": source, "loss": loss.item(), "cotangents": cotangents, **more
    }


def label(objective):
    return ", ".join(f"{key} {value}" if key != "name" else value for key, value in objective.items())


def a2po(draw):
    for beta, value_beta in ((1e-3, 0.5), (0.1, 0.5), (2.0, 1e-2)):
        lengths = [3, 1, 5, 2]
        own, reference = rows(draw, lengths), rows(draw, lengths)
        rewards, samples = [1.0, 0.0, 0.0, 1.0], [[1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 0.0, 1.0], [0.0] * 4, [1.0] * 4]
        values = [(value_beta * (torch.logsumexp(torch.tensor(row) / value_beta, 0) - torch.tensor(4.0).log())).item()
                  for row in samples]
        leaves = leaves_of(own)
        trainer = stub(args=types.SimpleNamespace(beta2=beta),
                       _get_sequence_logps=lambda *_: torch.stack([leaf.sum() for leaf in leaves]))
        inputs = {
            "input_ids": None, "attention_mask": None, "logits_to_keep": None, "rewards": torch.tensor(rewards),
            "ref_logps": torch.stack([torch.tensor(row).sum() for row in reference]), "v_star": torch.tensor(values)
        }
        loss = A2POTrainer.compute_loss(trainer, None, inputs)
        loss.backward()
        objective = {"name": "a2po", "beta": beta}
        columns = {
            "log_prob": own, "reference_log_prob": reference, "advantage": [[r - v] for r, v in zip(rewards, values)]
        }
        yield case(label(objective),
                   objective, {"groups": columns},
                   loss, {"groups": {"log_prob": gradients(leaves)}},
                   rewards=rewards,
                   value_beta=value_beta,
                   reference_rewards=samples,
                   values=values)


def tpo(draw):
    for kind in ("sigmoid", "hinge", "ipo", "tpo_l"):
        for beta, alpha, smoothing in ((0.1, 0.0, 0.0), (0.1, 1.0, 0.0), (2.0, 0.5, 0.2)):
            if smoothing and kind in ("hinge", "ipo"):
                continue
            sides = [rows(draw, lengths) for lengths in ([3, 1, 4], [2, 5, 1], [1, 2, 3])]
            count = 3 if alpha else 2
            leaves = [leaves_of(side) for side in sides[:count]]
            logits, ids, mask = logits_of([leaf for side in leaves for leaf in side])
            margin = {"target_margin": 0.5} if kind == "tpo_l" else {}
            trainer = stub(tpo_alpha=alpha,
                           loss_type=kind.replace("_", "-"),
                           beta=beta,
                           label_smoothing=smoothing,
                           tpo_l_gamma=0.5)
            model = lambda **_: types.SimpleNamespace(logits=logits)
            loss = TPOTrainer._compute_loss(trainer, model,
                                            {"input_ids": ids, "attention_mask": mask, "completion_mask": mask}, False)
            loss.backward()
            objective = {"name": "tpo", "loss": kind, "beta": beta, "alpha": alpha, "label_smoothing": smoothing
                         } | margin
            names = ("chosen", "rejected", "gold")[:count]
            yield case(label(objective), objective, {name: {"log_prob": side}
                                                     for name, side in zip(names, sides)}, loss,
                       {name: {"log_prob": gradients(side)}
                        for name, side in zip(names, leaves)})


def iw_opd(draw):
    for gamma in (0.0, 0.5, 2.0):
        for on_policy in (True, False):
            lengths = [4, 1, 3]
            own, teacher, behaviour = (rows(draw, lengths) for _ in range(3))
            leaves = leaves_of(own)
            logits, ids, _ = logits_of(leaves)
            labels = torch.where(pad([torch.ones(length) for length in lengths]) > 0, 0, -100)
            trainer = stub(temperature=1.0, iw_opd_epsilon=1e-12, iw_opd_gamma=gamma)
            loss = IWOPDTrainer._compute_iw_opd_loss(
                trainer, logits[:, :-1], torch.zeros_like(labels), labels, pad([torch.tensor(row) for row in teacher]),
                None if on_policy else pad([torch.tensor(row) for row in behaviour]))
            loss.backward()
            before = own if on_policy else behaviour
            advantages = []
            for one, other in zip(teacher, before):
                a = torch.tensor(one) - torch.tensor(other)
                prefix = a.abs().cumsum(0) - a.abs()
                advantages.append((a * (1 + gamma * (1 - prefix / a.abs().sum()))).tolist())
            objective = {"name": "iw_opd", "gamma": gamma}
            line = {"groups": {"log_prob": own, "behaviour_log_prob": before, "teacher_log_prob": teacher}}
            yield case(f"{label(objective)}, {'on' if on_policy else 'off'} policy",
                       objective,
                       line,
                       loss, {"groups": {"log_prob": gradients(leaves)}},
                       advantage=advantages)


def cpo(draw):
    """CPO's variants, and SimPO and AlphaPO with label smoothing."""
    choices = [{"name": "cpo", "loss": "sigmoid", "alpha": alpha, "label_smoothing": smoothing} for alpha in (0.0, 1.0)
               for smoothing in (0.0, 0.1, 0.5)]
    choices += [{"name": "cpo", "loss": kind, "alpha": alpha} for kind in ("hinge", "ipo") for alpha in (0.0, 0.7)]
    choices += [{"name": "simpo", "target_margin": margin, "label_smoothing": smoothing} for margin in (0.0, 0.8)
                for smoothing in (0.1, 0.5)]
    choices += [{"name": "alphapo", "alpha": bend, "target_margin": 0.1, "label_smoothing": 0.2}
                for bend in (0.25, -0.5)]
    for choice in choices:
        for beta in (1e-3, 0.1, 10.0):
            objective, mean = choice | {"beta": beta}, choice["name"] != "cpo"
            sides = [rows(draw, lengths) for lengths in ([5, 1, 3], [2, 4, 1])]
            leaves = [leaves_of(side) for side in sides]
            scores = [torch.stack([leaf.mean() if mean else leaf.sum() for leaf in side]) for side in leaves]
            trainer = stub(alpha=choice["alpha"] if choice["name"] == "alphapo" else 0.0,
                           beta=beta,
                           simpo_gamma=choice.get("target_margin"),
                           label_smoothing=choice.get("label_smoothing", 0.0),
                           loss_type="simpo" if mean else choice["loss"])
            losses, _, _ = trl.experimental.cpo.CPOTrainer.cpo_loss(trainer, *scores)
            loss = losses.mean()
            if not mean:
                # The trainer adds the likelihood outside of its loss, over the step's tokens; here over each response.
                loss = loss - choice["alpha"] * torch.stack([leaf.mean() for leaf in leaves[0]]).mean()
            loss.backward()
            names = ("chosen", "rejected")
            yield case(label(objective), objective, {name: {"log_prob": side}
                                                     for name, side in zip(names, sides)}, loss,
                       {name: {"log_prob": gradients(side)}
                        for name, side in zip(names, leaves)})


def referenced(draw, objective, loss_of):
    sides = [{"log_prob": rows(draw, lengths), "reference_log_prob": rows(draw, lengths)}
             for lengths in ([5, 1, 3, 2], [2, 4, 1, 2])]
    leaves = [leaves_of(side["log_prob"]) for side in sides]
    ratios = [
        torch.stack([(leaf - torch.tensor(row)).sum() for leaf, row in zip(own, side["reference_log_prob"])])
        for own, side in zip(leaves, sides)
    ]
    loss = loss_of(*ratios)
    loss.backward()
    names = ("chosen", "rejected")
    return dict(zip(names, sides)), loss, {name: {"log_prob": gradients(side)} for name, side in zip(names, leaves)}


def dpop(draw):
    for beta in (1e-3, 0.1, 2.0):
        for penalty in (0.0, 5.0, 50.0):
            objective = {"name": "dpop", "beta": beta, "penalty": penalty}
            line, loss, cotangents = referenced(
                draw, objective, lambda w, l: -logsigmoid(beta * (w - l - penalty * torch.relu(-w))).mean())
            yield case(label(objective), objective, line, loss, cotangents, "torch")


def weighted(draw):
    for beta in (0.1, 2.0):
        objective, weights = {"name": "weighted dpo", "beta": beta}, torch.tensor([1.0, 0.0, 2.5, 0.3])
        line, loss, cotangents = referenced(draw, objective, lambda w, l: (weights * -logsigmoid(beta *
                                                                                                 (w - l))).mean())
        line["chosen"]["weight"] = weights.tolist()
        yield case(label(objective), objective, line, loss, cotangents, "torch")


def reward_model(draw):
    for margins in (None, [0.0, 1.0, 0.25]):
        for centring in (0.0, 0.01):
            for scale in (1.0, 100.0):
                chosen, rejected = ([scale * draw.gauss(0.0, 1.0) for _ in range(3)] for _ in range(2))
                leaf = torch.tensor(chosen + rejected).requires_grad_()
                trainer = stub(args=types.SimpleNamespace(center_rewards_coefficient=centring or None))
                inputs = {"attention_mask": torch.ones(6, 2, dtype=torch.long)
                          } | ({} if margins is None else {"margin": torch.tensor(margins)})
                loss = trl.RewardTrainer.compute_loss(trainer, lambda **_: types.SimpleNamespace(logits=leaf[:, None]),
                                                      inputs)
                loss.backward()
                objective = {"name": "reward_model", "centring": centring}
                line = {"chosen": {"score": chosen}, "rejected": {"score": rejected}
                        } | ({} if margins is None else {"margin": margins})
                gradient = leaf.grad.tolist()
                yield case(f"{label(objective)}, margins {margins}, scores of {scale}", objective, line, loss,
                           {"chosen": {"score": gradient[:3]}, "rejected": {"score": gradient[3:]}})


def main():
    draw = random.Random(20240517)
    cases = [made for make in (a2po, tpo, iw_opd, cpo, dpop, weighted, reward_model) for made in make(draw)]
    generator.write(__file__, ["torch", "trl"], cases=cases)


if __name__ == "__main__":
    main()
