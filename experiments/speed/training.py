"""The default run of IFT beside PyTorch eager and, where it is installed, jitted JAX: one thread each, one run of this script.

Run from the repository's root with PyTorch installed: `python3 experiments/speed/training.py`. A run is 300 full-batch steps
of a policy 16 -> 64 -> 4 in float64, from drawn parameters to its distance from the optimal policy. Seconds are the
processor's, so that a busy machine tells the same; the peers take turns, and medians are over these turns. Our seconds are the
program's from start to end, over all of its seeds. A peer counts only if its mean distance is ours. Writes `training.json`
beside itself.
"""

import functools
import json
import os
import pathlib
import resource
import statistics
import subprocess
import time

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"

import torch

try:
    import jax
    import jax.numpy as jnp
except ImportError:
    jax = None

import record

SEEDS, TURNS, TOLERANCE = 1000, 5, 0.002
LAKE = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "release" / "lake"


def ours(seeds=SEEDS):
    """The report of our program, and its seconds."""
    command = [LAKE, "--method", "ift", "--seeds", str(seeds), "--threads", "1", "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return report, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def following(rows):
    """Where each action leads from each cell, without slipping."""
    height, width, table = len(rows), len(rows[0]), []
    for cell in range(height * width):
        row, column = divmod(cell, width)
        ways = [(row, max(column - 1, 0)), (min(row + 1, height - 1), column), (row, min(column + 1, width - 1)),
                (max(row - 1, 0), column)]
        table.append([cell] * 4 if rows[row][column] in "HG" else [r * width + c for r, c in ways])
    return table


class Problem:
    """The lake, its demonstration and the recipe's numbers, as our report has them."""

    def __init__(self, report):
        recipe, method = report["recipe"], report["results"][0]["parameters"]
        self.next = following(report["map"])
        self.actions = ["LDRU".index(letter) for letter in report["trajectories"]["demonstration"]]
        self.cells = [0]
        for action in self.actions[:-1]:
            self.cells.append(self.next[self.cells[-1]][action])
        letters = "".join(report["map"])
        self.non_terminal = [cell for cell, letter in enumerate(letters) if letter in "SF"]
        self.optimal = report["optimal"]["transition_matrix"]
        self.hidden, self.steps, self.rate = recipe["hidden"], recipe["steps"], recipe["learning_rate"]
        self.smoothing, self.epsilon = recipe["optimizer"]["smoothing"], recipe["optimizer"]["epsilon"]
        self.weight, length = method["lambda"], len(self.actions)
        self.discounts = [[method["gamma"] ** (k - t) if k >= t else 0.0 for k in range(length)] for t in range(length)]


def torch_run(problem, seed):
    """The distance after a run in PyTorch eager, whose initial parameters have our distribution."""
    torch.manual_seed(seed)
    one_hot = torch.eye(len(problem.next))
    encoder = torch.nn.Linear(len(problem.next), problem.hidden)
    head = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(problem.hidden, 4))
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.RMSprop(parameters, lr=problem.rate, alpha=problem.smoothing, eps=problem.epsilon)
    following_cells, discounts = torch.tensor(problem.next), torch.tensor(problem.discounts)
    cells, actions = torch.tensor(problem.cells), torch.tensor(problem.actions)[:, None]
    states = one_hot[cells]
    for _ in range(problem.steps):
        optimizer.zero_grad()
        with torch.no_grad():
            greedy = head(encoder(states)).argmax(1)
            anticipated = torch.cat([cells[:1], following_cells[cells, greedy][:-1]])
        fused = (1 - problem.weight) * encoder(states) + problem.weight * encoder(one_hot[anticipated])
        losses = -torch.log_softmax(head(fused), 1).gather(1, actions)[:, 0]
        sums = discounts @ losses
        ((losses * sums).sum() / sums.sum()).backward()
        optimizer.step()
    with torch.no_grad():
        apart = torch.softmax(head(encoder(one_hot)), 1) - torch.tensor(problem.optimal)
    return (apart[problem.non_terminal] ** 2).mean().item()


def jax_run(problem):
    """The same as a function of a seed, for JAX to compile."""
    following_cells, discounts = jnp.array(problem.next), jnp.array(problem.discounts)
    cells, actions = jnp.array(problem.cells), jnp.array(problem.actions)
    optimal, non_terminal = jnp.array(problem.optimal), jnp.array(problem.non_terminal)

    def logits(parameters, encoding):
        return jax.nn.relu(encoding) @ parameters["w2"] + parameters["b2"]

    def loss(parameters):
        # A row of W1 rather than a product with a one-hot vector.
        encodings = parameters["w1"][cells] + parameters["b1"]
        greedy = jax.lax.stop_gradient(logits(parameters, encodings)).argmax(1)
        anticipated = jnp.concatenate([cells[:1], following_cells[cells, greedy][:-1]])
        other = parameters["w1"][anticipated] + parameters["b1"]
        fused = (1 - problem.weight) * encodings + problem.weight * other
        losses = -jax.nn.log_softmax(logits(parameters, fused))[jnp.arange(len(cells)), actions]
        sums = discounts @ losses
        return (losses * sums).sum() / sums.sum()

    def step(_, state):
        parameters, squares = state
        gradient = jax.grad(loss)(parameters)
        decay = problem.smoothing
        squares = jax.tree.map(lambda v, g: decay * v + (1 - decay) * g * g, squares, gradient)
        moved = lambda p, g, v: p - problem.rate * g / (jnp.sqrt(v) + problem.epsilon)
        return jax.tree.map(moved, parameters, gradient, squares), squares

    def run(seed):
        shapes = {"w1": (len(problem.next), problem.hidden), "b1": (problem.hidden,), "w2": (problem.hidden, 4), "b2": (4,)}
        fan_in = {"w1": len(problem.next), "b1": len(problem.next), "w2": problem.hidden, "b2": problem.hidden}
        keys = dict(zip(shapes, jax.random.split(jax.random.key(seed), len(shapes))))
        draw = lambda name: jax.random.uniform(keys[name], shapes[name], minval=-1.0, maxval=1.0) / fan_in[name] ** 0.5
        parameters = {name: draw(name) for name in shapes}
        parameters, _ = jax.lax.fori_loop(0, problem.steps, step, (parameters, jax.tree.map(jnp.zeros_like, parameters)))
        policy = jax.nn.softmax(logits(parameters, parameters["w1"] + parameters["b1"]))
        return ((policy - optimal)[non_terminal] ** 2).mean()

    return run


def timed(count, distances):
    """Processor seconds a run, and the mean distance, of a function that answers as many distances."""
    start = time.process_time()
    answered = distances()
    return (time.process_time() - start) / count, statistics.fmean(answered)


def peers(problem, turn):
    """What a peer does in a turn: its runs, and their distances. Each turn has its own seeds, so that they add up."""
    found = {"pytorch": (32, lambda: [torch_run(problem, 32 * turn + seed) for seed in range(32)])}
    if jax is not None:
        one, many = compiled(problem)
        found["jax"] = (64, lambda: [float(one(64 * turn + seed)) for seed in range(64)])
        seeds = jnp.arange(SEEDS * turn, SEEDS * (turn + 1))
        found["jax_vmapped"] = (SEEDS, lambda: many(seeds).tolist())
    return found


@functools.cache
def compiled(problem):
    """JAX's functions, compiled before any is timed."""
    one, many = jax.jit(jax_run(problem)), jax.jit(jax.vmap(jax_run(problem)))
    one(0).block_until_ready()
    many(jnp.arange(SEEDS)).block_until_ready()
    return one, many


def main():
    subprocess.run(["cargo", "build", "-q", "--release", "-p", "lake"], check=True)
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    if jax is not None:
        jax.config.update("jax_enable_x64", True)
    report, _ = ours()
    problem, expected = Problem(report), report["results"][0]["distance"]["mean"]

    seconds, distances = {"lake": []}, {"lake": [expected]}
    for turn in range(TURNS):
        seconds["lake"].append(ours()[1] / SEEDS)
        for name, (count, run) in peers(problem, turn).items():
            spent, distance = timed(count, run)
            seconds.setdefault(name, []).append(spent)
            distances.setdefault(name, []).append(distance)

    rows = {}
    for name, turns in seconds.items():
        distance, median = statistics.fmean(distances[name]), statistics.median(turns)
        assert abs(distance - expected) <= TOLERANCE, f"{name}: distance {distance}, ours {expected}"
        ratio = median / statistics.median(seconds["lake"])
        rows[name] = {"seconds_a_run": median, "turns": turns, "ratio": ratio, "distance": distance}
        print(f"{name}: {median * 1e3:.3f} ms a run, {ratio:.1f} times ours, distance {distance:.4f}")
    record.write(__file__, ("torch", "jax", "jaxlib"), recipe=report["recipe"], seeds=SEEDS, results=rows)


if __name__ == "__main__":
    main()
