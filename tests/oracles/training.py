"""Training on the 4x4 lake by PyTorch autograd in float64, independent of the Rust code.

The policy is softmax(relu(W1[s] + b1) W2 + b2); parameters are flat: W1 (a row a cell), b1, W2 (a row a hidden unit), b2.
sft, dpo, orpo and ift are differentiated as a whole. Of the other losses on pairs and of those on labelled responses,
`preference.py` and `labelled.py` answer loss and cotangents from TRL's code, and autograd pulls the cotangents back through the
network.
"""

import math

import torch

import generator
import labelled
import objective
import preference

torch.set_default_dtype(torch.float64)
ROWS = ["SFFF", "FHFH", "FFFH", "HFFG"]
HIDDEN, ACTIONS, CELLS = 8, 4, 16
STEPS, MEASURED = 40, [0, 1, 2, 5, 10, 20, 40]
LETTERS = "".join(ROWS)
NON_TERMINAL = [cell for cell in range(CELLS) if LETTERS[cell] in "SF"]
DEMONSTRATION = "DDRDRR"
RMSPROP = {"name": "rmsprop", "smoothing": 0.99, "epsilon": 1e-8, "momentum": 0.0, "weight_decay": 0.0}
ADAMW = {"name": "adamw", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.0}
SGD = {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0}
PAIRED = [{"name": name, "beta": 0.1} for name in (
    "hinge", "ipo", "nca_pair", "bco_pair", "sppo_hard", "apo_zero", "apo_down", "sigmoid_norm")]
PAIRED += [{"name": name, "beta": 0.1, "label_smoothing": 0.1} for name in ("robust", "exo_pair", "aot", "aot_unpaired")]
PAIRED += [{"name": "discopop", "beta": 0.1, "tau": 0.05}, {"name": "simpo", "beta": 2.0, "target_margin": 1.6},
           {"name": "alphapo", "beta": 2.5, "alpha": 0.25, "target_margin": 0.25}, {"name": "cpo", "beta": 0.1, "alpha": 1.0},
           {"name": "tdpo", "beta": 0.1, "variant": 1}, {"name": "tdpo", "beta": 0.1, "variant": 2, "alpha": 0.5},
           {"name": "sum", "terms": [{"name": "dpo", "beta": 0.1, "weight": 0.5}, {"name": "apo_zero", "beta": 0.1}]}]
LABELLED = [{"name": name, "beta": 0.1} for name in ("kto", "apo_zero_unpaired")]


def move(cell, action):
    """The cell to the left of, below, to the right of or above this one; walls and terminal cells stay."""
    if LETTERS[cell] in "HG":
        return cell
    row, column = divmod(cell, 4)
    row = min(max(row + (action == 1) - (action == 3), 0), 3)
    column = min(max(column + (action == 2) - (action == 0), 0), 3)
    return 4 * row + column


def walk(word):
    cell, cells, actions = 0, [], ["LDRU".index(letter) for letter in word]
    for action in actions:
        cells.append(cell)
        cell = move(cell, action)
    return cells, actions


def optimal_actions(gamma=0.99):
    value = [0.0] * CELLS
    for _ in range(1000):
        q = [[(LETTERS[n] == "G") + gamma * value[n] * (LETTERS[n] in "SF") for n in (move(s, a) for a in range(4))]
             for s in range(CELLS)]
        value = [max(q[s]) if LETTERS[s] in "SF" else 0.0 for s in range(CELLS)]
    return [next(a for a in range(4) if q[s][a] >= max(q[s]) - 1e-9) if LETTERS[s] in "SF" else None
            for s in range(CELLS)]


OPTIMAL = optimal_actions()


def layers(flat):
    sizes = [CELLS * HIDDEN, HIDDEN, HIDDEN * ACTIONS, ACTIONS]
    w1, b1, w2, b2 = torch.split(flat, sizes)
    return w1.view(CELLS, HIDDEN), b1, w2.view(HIDDEN, ACTIONS), b2


def encode(flat, cells):
    w1, b1, _, _ = layers(flat)
    return w1[cells] + b1


def log_policy(flat, encoding):
    _, _, w2, b2 = layers(flat)
    return torch.log_softmax(torch.relu(encoding) @ w2 + b2, dim=-1)


def log_prob(flat, word):
    cells, actions = walk(word)
    return log_policy(flat, encode(flat, cells))[range(len(actions)), actions]


def ift(flat, word, method):
    cells, actions = walk(word)
    with torch.no_grad():
        greedy = log_policy(flat, encode(flat, cells)).argmax(dim=-1).tolist()
    anticipated = cells[:1] + [move(cell, action) for cell, action in zip(cells, greedy)][:-1]
    own, other = encode(flat, cells), encode(flat, anticipated)
    freeze = method.get("freeze_embeddings", "none")
    own = own.detach() if freeze == "all" else own
    other = other.detach() if freeze in ("anticipated", "all") else other
    weight = method["lambda"]
    losses = -log_policy(flat, (1 - weight) * own + weight * other)[range(len(actions)), actions]
    return objective.propagated(losses, method["propagation"], method.get("gamma"))


def loss(flat, reference, method, rejected):
    chosen = [log_prob(flat, DEMONSTRATION)]
    match method["name"]:
        case "sft":
            return objective.sft(chosen)
        case "dpo":
            words = [DEMONSTRATION, rejected]
            return objective.dpo(*([log_prob(policy, word)] for policy in (flat, reference) for word in words),
                                 method["beta"])
        case "orpo":
            return objective.orpo(chosen, [log_prob(flat, rejected)], method["beta"])
        case "ift":
            return ift(flat, DEMONSTRATION, method)
        case "kto" | "apo_zero_unpaired":
            return by_labels(flat, reference, method, rejected)
        case _:
            return by_columns(flat, reference, method, rejected)


def by_columns(flat, reference, method, rejected):
    """A loss on one pair whose value is TRL's and whose gradient is that of TRL's cotangents."""
    line, statistics = {"objective": method}, {}
    for side, word in (("chosen", DEMONSTRATION), ("rejected", rejected)):
        cells, actions = walk(word)
        own, other = (log_policy(policy, encode(policy, cells)) for policy in (flat, reference))
        columns = {"log_prob": own[range(len(actions)), actions]}
        if method["name"] == "tdpo":
            columns["reference_kl"] = (other.exp() * (other - own)).sum(dim=1)
        statistics[side] = columns
        line[side] = {name: [column.tolist()] for name, column in columns.items()}
        if method["name"] not in ("simpo", "alphapo", "cpo"):
            line[side]["reference_log_prob"] = [other[range(len(actions)), actions].tolist()]
    answer = preference.evaluate(line)
    pulled = sum((torch.tensor(answer["cotangents"][side][name][0]) * column).sum()
                 for side, columns in statistics.items() for name, column in columns.items())
    return pulled + (answer["loss"] - pulled).detach()


def by_labels(flat, reference, method, rejected):
    """The same with the demonstration labelled desirable and the rejected trajectory undesirable."""
    words = [DEMONSTRATION, rejected]
    own = [log_prob(flat, word) for word in words]
    columns = {"log_prob": [column.tolist() for column in own],
               "reference_log_prob": [log_prob(reference, word).tolist() for word in words]}
    line = {"objective": method, "labelled": columns | {"desirable": [True, False]}}
    if method["name"] == "kto":
        line["mismatched"] = {name: rows[::-1] for name, rows in columns.items()}
    answer = labelled.evaluate(line)
    rows = answer["cotangents"]["labelled"]["log_prob"]
    pulled = sum((torch.tensor(row) * column).sum() for row, column in zip(rows, own))
    return pulled + (answer["loss"] - pulled).detach()


def distance(flat):
    policy = log_policy(flat, encode(flat, list(range(CELLS)))).exp()
    target = torch.zeros_like(policy)
    for cell in NON_TERMINAL:
        target[cell, OPTIMAL[cell]] = 1.0
    return ((policy - target)[NON_TERMINAL] ** 2).mean().item()


def optimizer(settings, flat, rate):
    match settings["name"]:
        case "rmsprop":
            return torch.optim.RMSprop([flat], lr=rate, alpha=settings["smoothing"], eps=settings["epsilon"])
        case "adamw":
            betas = (settings["beta1"], settings["beta2"])
            return torch.optim.AdamW([flat], lr=rate, betas=betas, eps=settings["epsilon"], weight_decay=0.0)
        case "sgd":
            return torch.optim.SGD([flat], lr=rate)


def run(initial, name, method, rejected, settings, rate):
    flat = initial.clone().requires_grad_()
    update = optimizer(settings, flat, rate)
    case = {"name": name, "method": method, "rejected": rejected, "optimizer": settings, "learning_rate": rate}
    losses, distances = [], {"0": distance(flat)}
    for step in range(1, STEPS + 1):
        update.zero_grad()
        value = loss(flat, initial, method, rejected)
        value.backward()
        if step == 1:
            case["initial_gradient"] = flat.grad.tolist()
        losses.append(value.item())
        update.step()
        if step in MEASURED:
            distances[str(step)] = distance(flat)
    return case | {"losses": losses, "distance": distances}


def main():
    draw = torch.Generator().manual_seed(20240517)
    bounds = torch.cat([torch.full((CELLS * HIDDEN + HIDDEN,), 1 / math.sqrt(CELLS)),
                        torch.full((HIDDEN * ACTIONS + ACTIONS,), 1 / math.sqrt(HIDDEN))])
    initial = bounds * (2 * torch.rand(len(bounds), generator=draw) - 1)
    cases = [run(initial, f"sft, {settings['name']}", {"name": "sft"}, None, settings, rate)
             for settings, rate in [(RMSPROP, 1e-3), (ADAMW, 1e-3), (SGD, 0.1)]]
    for rejected in ["RD", "RRDDLDRR"]:
        for method in [{"name": "orpo", "beta": 0.25}, {"name": "dpo", "beta": 0.1}]:
            cases.append(run(initial, f"{method['name']}, {rejected}", method, rejected, RMSPROP, 1e-3))
    for propagation in ["released", "algorithm1", "equation21", "none"]:
        for freeze in ["none", "anticipated", "all"]:
            method = {"name": "ift", "lambda": 0.2, "propagation": propagation, "freeze_embeddings": freeze}
            if propagation in ("released", "algorithm1"):
                method["gamma"] = 0.95
            cases.append(run(initial, f"ift, {propagation}, freeze {freeze}", method, None, RMSPROP, 1e-3))
    for method in PAIRED + LABELLED:
        cases.append(run(initial, f"{method['name']}, RD", method, "RD", RMSPROP, 1e-3))
    generator.write(__file__, ["torch", "trl"], rows=ROWS, demonstration=DEMONSTRATION, hidden=HIDDEN,
                    optimal_actions=OPTIMAL, initial_parameters=initial.tolist(), cases=cases)


if __name__ == "__main__":
    main()
