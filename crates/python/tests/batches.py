"""Batches of any objective's data, drawn at random."""

import numpy as np

import objective_lake as ol

METHODS = sorted(ol.methods())
RANGES = {
    "reference_kl": (0.0, 2.0), "entropy": (0.1, 2.0), "value": (-1.0, 1.0), "log_sum_square_prob": (-3.0, -0.1),
    "teacher_divergence": (0.0, 2.0), "score": (-2.0, 2.0), "behaviour_value": (-1.0, 1.0), "advantage": (-1.0, 1.0),
    "returns": (-1.0, 1.0),
}
NEAR = ("reference_log_prob", "behaviour_log_prob", "rollout_log_prob", "teacher_log_prob")


def column(name, log_prob, random):
    if name in NEAR:
        return np.minimum(log_prob + random.uniform(-0.05, 0.05, log_prob.shape), -1e-6)
    low, high = RANGES[name]
    return random.uniform(low, high, log_prob.shape)


def side(objective, place, lengths, random):
    """Lists of columns, one array a response."""
    log_prob = [random.uniform(-3.0, -0.2, length) for length in lengths]
    columns = {}
    for name in objective.columns:
        if name == "log_prob":
            columns[name] = log_prob
        elif name not in ("desirable", "group", "reward", "weight"):
            columns[name] = [column(name, own, random) for own in log_prob]
        elif place == 0 and name == "desirable":
            columns[name] = [index % 2 == 0 for index in range(len(lengths))]
        elif place == 0 and name == "group":
            columns[name] = [index // 2 for index in range(len(lengths))]
        elif place == 0 and name == "reward":
            columns[name] = random.uniform(-1, 1, (len(lengths), objective.rewards or 1)).tolist()
    return columns


def batch(objective, seed=0, lengths=(3, 1, 4, 2)):
    """Columns as lists of arrays."""
    random = np.random.default_rng(seed)
    columns = {}
    for place, name in enumerate(objective.sides):
        own = side(objective, place, random.permutation(lengths), random)
        columns.update({name: own} if name else own)
    return columns


def of_sides(objective, columns, change):
    """The batch with `change` applied to each side."""
    own = {name: value for name, value in columns.items() if name not in objective.sides}
    changed = change(own) if "" in objective.sides else {}
    return changed | {name: change(columns[name]) for name in objective.sides if name}


def is_of_tokens(value):
    return isinstance(value, list) and isinstance(value[0], np.ndarray)


def padded(columns, filler=np.nan, width=None, dtype=np.float64):
    """A side as padded columns with a mask. The places of padding have the filler."""
    own = {name: value for name, value in columns.items() if not is_of_tokens(value)}
    lists = {name: value for name, value in columns.items() if is_of_tokens(value)}
    lengths = [len(part) for part in next(iter(lists.values()))]
    width = width or max(lengths) + 1
    mask = np.arange(width)[None, :] < np.array(lengths)[:, None]
    for name, parts in lists.items():
        own[name] = np.full(mask.shape, filler, dtype=dtype)
        own[name][mask] = np.concatenate(parts)
    return own | {"mask": mask}


def packed(columns, cumulative=False):
    """A side as packed columns."""
    own = {name: np.concatenate(value) if is_of_tokens(value) else value for name, value in columns.items()}
    lengths = [len(part) for part in next(value for value in columns.values() if is_of_tokens(value))]
    return own | ({"cumulative_lengths": np.cumsum([0, *lengths])} if cumulative else {"lengths": lengths})


def flat(cotangents):
    """All cotangents in one row."""
    if isinstance(cotangents, dict):
        return np.concatenate([flat(value) for value in cotangents.values()])
    if isinstance(cotangents, list):
        return np.concatenate(cotangents)
    return np.ravel(cotangents)
