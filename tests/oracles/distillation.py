"""Divergences between a teacher and the policy over small vocabularies, by token, with cotangents on the policy's
logits.

In TRL's `generalized_jsd_loss`, the weight `beta` of the teacher makes the mixture m = beta teacher + (1 - beta)
policy, and the divergence beta KL(teacher || m) + (1 - beta) KL(policy || m); 0 is KL(teacher || policy), and 1 is
KL(policy || teacher), which are not the limits of the former (these are 0). Each answer is TRL's own, and PyTorch's
by the formula, which must agree. `log_prob` is the policy's of all actions.
"""

import random

import torch
from trl.experimental.gkd import GKDTrainer

import generator

torch.set_default_dtype(torch.float64)


def kl(first, second):
    """KL of two distributions by log-probabilities; an action that the first never takes adds nothing."""
    terms = first.exp() * (first - second)
    return torch.where(first.exp() == 0, torch.zeros_like(terms), terms).sum()


def formula(logits, teacher, beta):
    own, other = torch.log_softmax(logits, 0), torch.log_softmax(teacher, 0)
    if beta in (0.0, 1.0):
        return kl(other, own) if beta == 0.0 else kl(own, other)
    weight = torch.tensor(beta)
    mixture = torch.logaddexp(other + weight.log(), own + torch.log1p(-weight))
    return beta * kl(other, mixture) + (1 - beta) * kl(own, mixture)


def answer(logits, teacher, beta, function):
    leaf = torch.tensor(logits).requires_grad_()
    value = function(leaf, torch.tensor(teacher), beta)
    value.backward()
    return value.item(), leaf.grad.tolist()


def peer(logits, teacher, beta):
    return GKDTrainer.generalized_jsd_loss(logits[None, None], teacher[None, None], beta=beta, reduction="sum")


def tokens(draw):
    """Names, logits of the policy and of the teacher."""
    for size in (2, 3, 7, 33):
        for apart in (0.0, 1e-6, 0.3, 3.0):
            logits = [draw.gauss(0.0, 1.5) for _ in range(size)]
            yield f"{size} actions, {apart} apart", logits, [value + apart * draw.gauss(0.0, 1.0) for value in logits]
    for heat in (20.0, 300.0):
        yield f"confident of different actions, {heat}", [heat, 0.0, 0.0], [0.0, heat, 1.0]
        yield f"confident of the same action, {heat}", [heat, 0.0, 0.5], [heat, 1.0, 0.0]
        yield f"a confident teacher, {heat}", [0.1, -0.2, 0.3], [0.0, heat, -heat]
        yield f"a confident policy, {heat}", [0.0, heat, -heat], [0.1, -0.2, 0.3]


def main():
    draw = random.Random(20240517)
    cases = []
    for name, logits, teacher in tokens(draw):
        for beta in (0.0, 0.1, 0.5, 0.9, 1.0):
            value, cotangent = answer(logits, teacher, beta, peer)
            expected, slopes = answer(logits, teacher, beta, formula)
            apart = max(abs(a - b) for a, b in zip([value, *cotangent], [expected, *slopes]))
            assert apart <= 1e-14 * max(1.0, abs(expected)), (name, beta, apart)
            divergence = {0.0: "forward_kl", 1.0: "reverse_kl"}.get(beta, "jsd")
            weight = {"beta": beta} if divergence == "jsd" else {}
            cases.append({
                "name": f"{divergence}, {beta}, {name}", "divergence": divergence, **weight, "logits": logits,
                "teacher": teacher, "value": value, "cotangent": cotangent, "source": "trl"
            })
    steps = []
    for beta in (0.0, 0.3, 1.0):
        lengths, size = (3, 1, 2), 4
        logits, teacher = ([[[draw.gauss(0.0, 1.0) for _ in range(size)] for _ in range(length)] for length in lengths]
                           for _ in range(2))
        leaf = torch.tensor([row for rows in logits for row in rows]).requires_grad_()
        loss = GKDTrainer.generalized_jsd_loss(leaf[None],
                                               torch.tensor([row for rows in teacher for row in rows])[None],
                                               labels=torch.zeros(1, sum(lengths), dtype=torch.long),
                                               beta=beta)
        loss.backward()
        gradient = iter(leaf.grad.tolist())
        steps.append({
            "name": f"mean over the tokens of three responses, beta {beta}", "beta": beta, "logits": logits,
            "teacher": teacher, "loss": loss.item(),
            "cotangent": [[next(gradient) for _ in range(length)] for length in lengths], "source": "trl"
        })
    generator.write(__file__, ["torch", "trl"], cases=cases, steps=steps)


if __name__ == "__main__":
    main()
