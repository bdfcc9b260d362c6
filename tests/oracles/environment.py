"""Gymnasium's Frozen Lake: its transition model P and its episodes; V*, Q* and a return from P with numpy."""

import gymnasium
import numpy
from gymnasium.envs.toy_text.frozen_lake import generate_random_map

import generator

GAMMA = 0.99
DEFAULT = (1, 0, 0)
# Lakes of this project's generator, by name: the test checks the rows too.
OURS = {"generated:3x5,holes=0.4,seed=1": ["SFFFH", "FHHFH", "HHFFG"]}


def make(rows, slippery, success_rate, rewards):
    """The lake, and how many steps it lasts."""
    identifier = "FrozenLake-v1" if len("".join(rows)) <= 16 else "FrozenLake8x8-v1"
    environment = gymnasium.make(identifier, desc=rows, is_slippery=slippery, success_rate=success_rate,
                                 reward_schedule=rewards)
    return environment, environment.spec.max_episode_steps


def tensors(model):
    """P(s'|s,a) of outcomes that go on, and the expected reward."""
    going_on, reward = numpy.zeros((len(model), 4, len(model))), numpy.zeros((len(model), 4))
    for cell in range(len(model)):
        for action in range(4):
            for p, after, r, terminated in model[cell][action]:
                reward[cell, action] += p * r
                going_on[cell, action, after] += p * (not terminated)
    return going_on, reward


def solve(model):
    going_on, reward = tensors(model)
    value = numpy.zeros(len(model))
    for _ in range(6000):  # 0.99^6000 < 1e-26
        q = reward + GAMMA * going_on @ value
        value = q.max(axis=1)
    return value, q


def fares_uniform(model, rows, horizon):
    """Success rate and undiscounted return of the uniform policy."""
    letters = "".join(rows)
    mass = numpy.zeros(len(model))
    mass[letters.index("S")] = 1.0
    success, total = 0.0, 0.0
    for _ in range(horizon):
        after = numpy.zeros(len(model))
        for cell in range(len(model)):
            for action in range(4):
                for p, following, reward, terminated in model[cell][action]:
                    total += mass[cell] * p / 4 * reward
                    if not terminated:
                        after[following] += mass[cell] * p / 4
                    elif letters[following] == "G":
                        success += mass[cell] * p / 4
        mass = after
    return success, total


def case(name, rows, slippery, success_rate=1 / 3, rewards=DEFAULT):
    environment, horizon = make(rows, slippery, success_rate, rewards)
    model = environment.unwrapped.P
    value, q = solve(model)
    transitions = [[[[float(p), int(after), float(reward), bool(terminated)]
                     for p, after, reward, terminated in model[cell][action]] for action in range(4)]
                   for cell in range(len(model))]
    success, total = fares_uniform(model, rows, horizon)
    return {"name": f"{name}, {'slippery' if slippery else 'not slippery'}, success rate {success_rate:.3}, {rewards}",
            "map": name, "slippery": slippery, "success_rate": success_rate, "reward_schedule": list(rewards),
            "rows": rows, "gamma": GAMMA, "horizon": horizon, "transitions": transitions, "value": value.tolist(),
            "action_value": q.tolist(), "success_rate_uniform": success, "return_uniform": total}


def rollout(rows, rewards, actions):
    """An episode on a lake that does not slip, until it ends: cell, reward, terminated, truncated after each step."""
    environment, _ = make(rows, False, 1 / 3, rewards)
    environment.reset(seed=0)
    steps = []
    for action in actions:
        cell, reward, terminated, truncated, _ = environment.step(action)
        steps.append([int(cell), float(reward), bool(terminated), bool(truncated)])
        if terminated or truncated:
            break
    return {"name": f"{len(rows)}x{len(rows[0])}, {rewards}", "rows": rows, "reward_schedule": list(rewards),
            "actions": actions[:len(steps)], "steps": steps}


def own(size):
    rows = gymnasium.make("FrozenLake-v1" if size == "4x4" else "FrozenLake8x8-v1").unwrapped.desc
    return ["".join(letter.decode() for letter in row) for row in rows]


if __name__ == "__main__":
    cases = [case(name, own(name), slippery) for name in ("4x4", "8x8") for slippery in (False, True)]
    cases += [case("4x4", own("4x4"), True, success_rate) for success_rate in (0.0, 0.1, 0.75, 1.0)]
    cases += [case("4x4", own("4x4"), slippery, 1 / 3, rewards) for slippery in (False, True)
              for rewards in ((1, -1, -0.1), (0, -1, 0.5), (-2, -1, -3))]
    for seed, (size, p) in enumerate([(3, 0.7), (5, 0.8), (5, 0.65), (6, 0.9)]):
        rows = generate_random_map(size, p, seed)
        cases += [case("desc", rows, False), case("desc", rows, True, 0.6, (1, -1, -0.01))]
    cases += [case("desc", ["FFHFG", "SHFFF", "FFFHG"], True, 0.4, (2.5, -0.5, 0.01))]
    cases += [case(name, rows, True, 0.9, (10, -1, -0.1)) for name, rows in OURS.items()]

    random = numpy.random.default_rng(0)
    rollouts = []
    for rows in [own("4x4"), own("8x8"), generate_random_map(5, 0.9, 5), generate_random_map(7, 0.95, 6)]:
        for rewards in [DEFAULT, (1, -1, -0.1)]:
            rollouts += [rollout(rows, rewards, random.integers(0, 4, 200).tolist()) for _ in range(4)]
            # Into the wall, until the episode is truncated.
            rollouts.append(rollout(rows, rewards, [0] * 201))
    rollouts.append(rollout(own("4x4"), (1, -1, -0.1), [1, 1, 2, 1, 2, 2]))
    generator.write(__file__, ["gymnasium", "numpy"], cases=cases, rollouts=rollouts)
