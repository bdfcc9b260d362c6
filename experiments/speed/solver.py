"""Solving lakes beside QuantEcon, and stepping on them beside Gymnasium and EnvPool: one thread each, one run.

Run from the repository's root with `quantecon` and `gymnasium` installed, and `envpool` where it installs:
`python3 experiments/speed/solver.py`. The lakes are slippery, one cell in ten is a hole, the discount is 0.99, and V*
is computed to 1e-8: QuantEcon's `epsilon` is twice the error of its values, so it gets 2e-8. What it solves is built
beforehand. Writes `solver.json` beside itself.
"""

import json
import os
import pathlib
import statistics
import subprocess
import time

for variable in ("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

import gymnasium
import numpy
import quantecon
import scipy.sparse

import record

GAMMA, ERROR = 0.99, 1e-8
PEER_SIDES, SIDES = (64, 200), (64, 200, 1000, 2000)
PEER_METHODS = ("value_iteration", "policy_iteration", "modified_policy_iteration")
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target"))
LAKE = TARGET / "release" / "lake"


def name(side):
    return f"generated:{side}x{side},holes=0.1,seed=0"


def bench(bench_name, group):
    """Medians of our benchmark, seconds by identifier."""
    command = ["cargo", "bench", "-p", "lake", "--bench", bench_name]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    medians = {}
    for path in (TARGET / "criterion" / group).glob("**/new/estimates.json"):
        identifier = "/".join(path.relative_to(TARGET / "criterion" / group).parts[:-2])
        medians[identifier] = json.loads(path.read_text())["median"]["point_estimate"] * 1e-9
    return medians


def solve(side, solver):
    """Our solution of a lake, from the program."""
    command = [LAKE, "solve", "--map", name(side), "--slippery", "--solver", solver, "--accuracy", str(ERROR), "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True).stdout)


def peak_memory(side, solver):
    """Bytes that the program held at most, Q* and T* included, and its seconds from start to end.

    A child's peak begins at what its parent holds: so a small parent starts it.
    """
    command = [LAKE, "solve", "--map", name(side), "--slippery", "--solver", solver, "--accuracy", str(ERROR),
               "--threads", "1"]
    parent = ("import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL);"
              "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)")
    start = time.perf_counter()
    output = subprocess.run(["/usr/bin/env", "python3", "-c", parent, *command], check=True, capture_output=True).stdout
    return int(output) * 1024, time.perf_counter() - start


def discrete_dp(rows):
    """The lake as QuantEcon takes it: state-action pairs with a sparse P."""
    height, width = len(rows), len(rows[0])
    letters = numpy.array([list(row) for row in rows]).ravel()
    terminal = numpy.isin(letters, ["G", "H"])
    cells = numpy.arange(height * width)
    row, column = cells // width, cells % width
    ways = numpy.stack([cells - (column > 0), cells + width * (row + 1 < height),
                        cells + (column + 1 < width), cells - width * (row > 0)], axis=1)
    pairs, after, probability = [], [], []
    reward = numpy.zeros((len(cells), 4))
    for action in range(4):
        for turn, p in ((3, 1 / 3), (0, 1 / 3), (1, 1 / 3)):
            following = numpy.where(terminal, cells, ways[:, (action + turn) % 4])
            reward[:, action] += numpy.where(terminal, 0, p * (letters[following] == "G"))
            pairs.append(4 * cells + action)
            after.append(following)
            probability.append(numpy.full(len(cells), p))
    coordinates = (numpy.concatenate(pairs), numpy.concatenate(after))
    transitions = scipy.sparse.csr_matrix((numpy.concatenate(probability), coordinates), (4 * len(cells), len(cells)))
    states, actions = numpy.repeat(cells, 4), numpy.tile(numpy.arange(4), len(cells))
    return quantecon.markov.DiscreteDP(reward.ravel(), transitions, GAMMA, states, actions)


def peer(side):
    """Seconds of each of QuantEcon's methods, and how far its values are from ours."""
    ours = solve(side, "prioritised")
    problem = discrete_dp(ours["map"])
    rows = {}
    for method in PEER_METHODS:
        times = []
        for _ in range(3):
            start = time.perf_counter()
            result = problem.solve(method=method, epsilon=2 * ERROR, max_iter=100_000)
            times.append(time.perf_counter() - start)
        apart = float(numpy.abs(result.v - numpy.array(ours["value"])).max())
        seconds = statistics.median(times)
        rows[method] = {"seconds": seconds, "iterations": int(result.num_iter), "apart_from_ours": apart}
    return {"error_bound": ours["error_bound"], "quantecon": rows}


def gymnasium_steps(identifier, slippery, count=200_000):
    environment = gymnasium.make(identifier, is_slippery=slippery)
    actions = numpy.random.default_rng(0).integers(0, 4, count).tolist()
    environment.reset(seed=0)
    start = time.perf_counter()
    for action in actions:
        _, _, terminated, truncated, _ = environment.step(action)
        if terminated or truncated:
            environment.reset()
    return count / (time.perf_counter() - start)


def envpool_steps(size, batch=1024, count=2000):
    """EnvPool's FrozenLake always slips; None where it is not installed."""
    try:
        import envpool
    except ImportError:
        return None
    environment = envpool.make(f"FrozenLake{size}-v1" if size == "8x8" else "FrozenLake-v1", env_type="gymnasium",
                               num_envs=batch, num_threads=1)
    environment.reset()
    actions = numpy.random.default_rng(0).integers(0, 4, (count, batch)).astype(numpy.int32)
    start = time.perf_counter()
    for action in actions:
        environment.step(action)
    return count * batch / (time.perf_counter() - start)


def main():
    subprocess.run(["cargo", "build", "-q", "--release", "-p", "lake"], check=True)
    discrete_dp(["SFF", "FHG"]).solve(method="modified_policy_iteration")  # compiles

    solver_times = bench("solvers", "solvers")
    lakes = {}
    for side in SIDES:
        ours = {key.split("/")[0]: seconds for key, seconds in solver_times.items() if key.endswith(f"/{side}")}
        best = min(ours, key=ours.get)
        row = {"map": name(side), "seconds": ours, "best": best, "nanoseconds_per_cell": ours[best] / side**2 * 1e9}
        if side in PEER_SIDES:
            row |= peer(side)
            theirs = min(method["seconds"] for method in row["quantecon"].values())
            row["ratio_of_best"] = theirs / ours[best]
        else:
            row["peak_bytes"], row["program_seconds"] = peak_memory(side, best)
            row["peak_bytes_per_cell"] = row["peak_bytes"] / side**2
        lakes[f"{side}x{side}"] = row
        more = (f"QuantEcon's best {row['ratio_of_best']:.0f}x" if "ratio_of_best" in row
                else f"{row['peak_bytes'] / 1e6:.0f} MB")
        print(f"{side}x{side}: {best} {ours[best] * 1e3:.3f} ms, {row['nanoseconds_per_cell']:.0f} ns a cell; {more}",
              flush=True)

    step_times = bench("environment", "steps")
    steps = {}
    for key, identifier, slippery, size in (("4x4", "FrozenLake-v1", False, "4x4"),
                                            ("4x4-slippery", "FrozenLake-v1", True, "4x4"),
                                            ("8x8-slippery", "FrozenLake8x8-v1", True, "8x8")):
        row = {"steps_per_second": 100_000 / step_times[key], "gymnasium": gymnasium_steps(identifier, slippery)}
        row["ratio_gymnasium"] = row["steps_per_second"] / row["gymnasium"]
        if slippery and (theirs := envpool_steps(size)):
            row |= {"envpool": theirs, "ratio_envpool": row["steps_per_second"] / theirs}
        steps[key] = row
        print(key, {field: f"{value:.3g}" for field, value in row.items()}, flush=True)

    record.write(__file__, ("quantecon", "numba", "numpy", "scipy", "gymnasium", "envpool"), gamma=GAMMA, error=ERROR, lakes=lakes, steps=steps)


if __name__ == "__main__":
    main()
