"""Gymnasium's Frozen Lake: its transition model P, and V* and Q* computed from that with numpy."""

import gymnasium
import numpy

import generator

GAMMA = 0.99


def solve(model):
    value = numpy.zeros(len(model))
    while True:
        q = numpy.array([[sum(p * (reward + GAMMA * value[after] * (not terminated))
                              for p, after, reward, terminated in model[cell][action])
                          for action in range(4)] for cell in range(len(model))])
        residual = numpy.abs(q.max(axis=1) - value).max()
        value = q.max(axis=1)
        if residual < 1e-15:
            return value, q


def success_rate_uniform(model, goal, horizon):
    mass = numpy.zeros(len(model))
    mass[0] = 1.0
    success = 0.0
    for _ in range(horizon):
        after = numpy.zeros(len(model))
        for cell in range(len(model)):
            for action in range(4):
                for p, following, _, terminated in model[cell][action]:
                    if not terminated:
                        after[following] += mass[cell] * p / 4
                    elif following == goal:
                        success += mass[cell] * p / 4
        mass = after
    return success


def case(name, slippery):
    identifier = {"4x4": "FrozenLake-v1", "8x8": "FrozenLake8x8-v1"}[name]
    environment = gymnasium.make(identifier, is_slippery=slippery)
    rows = ["".join(letter.decode() for letter in row) for row in environment.unwrapped.desc]
    model = environment.unwrapped.P
    value, q = solve(model)
    horizon = environment.spec.max_episode_steps
    transitions = [[[[float(p), int(after), float(reward), bool(terminated)]
                     for p, after, reward, terminated in model[cell][action]] for action in range(4)]
                   for cell in range(len(model))]
    return {"name": f"{name}, {'slippery' if slippery else 'not slippery'}", "map": name, "slippery": slippery,
            "rows": rows, "gamma": GAMMA, "horizon": horizon, "transitions": transitions, "value": value.tolist(),
            "action_value": q.tolist(),
            "success_rate_uniform": success_rate_uniform(model, "".join(rows).index("G"), horizon)}


if __name__ == "__main__":
    cases = [case(name, slippery) for name in ("4x4", "8x8") for slippery in (False, True)]
    generator.write(__file__, ["gymnasium", "numpy"], cases=cases)
