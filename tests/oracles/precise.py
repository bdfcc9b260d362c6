"""Every loss in 256 bits, with the condition of each answer, so that answers in doubles can be judged in units of
their last place.

Reads lines of the `evaluate` protocol and writes one a line: loss and cotangents as hexadecimal doubles, and the
condition of each in the same places. With `check PROGRAM [COUNT [SEED [NAME...]]]` it draws hostile lines instead,
asks the program for their answers, and prints for each objective by how many units in the last place of the condition
they are off, most first. With `record PROGRAM [INPUTS [RESPONSES [FAMILY...]]]` it does so for each family of objectives, or for
those that are named, on RESPONSES (20) of 32k tokens and on short ones until so many numbers of these were inputs (a million),
on all processors, and writes what it found to `precise.json`. mpmath is several times faster where gmpy2 is installed. With `lines [COUNT]` it writes hostile lines and their answers to `precise_lines.json`, for a test that has
no need of Python.

The condition of a number says how far an error of one unit in every step may move it. That of an input, and of the
difference of two inputs, is its magnitude. That of a sum is the sum of its terms' conditions. A product adds the
conditions of its factors relative to their sizes, less one. A function's value f adds to |f| what f changes by as its
argument moves by four units of its own condition, divided by four: |f'| times the condition of an argument that is
well known. Exponentials go on along their tangent beyond 100 nats, as documented.
"""

import functools
import itertools
import json
import math
import multiprocessing
import os
import random
import subprocess
import sys

import mpmath
from mpmath import mp, mpf

mp.prec = 256
STEEPEST = mpf(100)
CERTAINTY = -(mpf(2)**-52)
LEAST_SUM = mpf(1e-100)
UNIT = mpf(2)**-53


@functools.total_ordering
class Number:
    """A value and its condition."""

    __slots__ = ("value", "condition")

    def __init__(self, value, condition=None):
        self.value = mpf(value)
        self.condition = abs(self.value) if condition is None else condition

    def __add__(self, other):
        other = number(other)
        return Number(self.value + other.value, self.condition + other.condition)

    __radd__ = __add__

    def __neg__(self):
        return Number(-self.value, self.condition)

    def __sub__(self, other):
        return self + -number(other)

    def __rsub__(self, other):
        return number(other) - self

    def __mul__(self, other):
        other = number(other)
        product = self.value * other.value
        both = 4 * UNIT * self.condition * other.condition
        return Number(product,
                      abs(self.value) * other.condition + abs(other.value) * self.condition - abs(product) + both)

    __rmul__ = __mul__

    def __truediv__(self, other):
        other = number(other)
        quotient = self.value / other.value
        return Number(quotient, (self.condition + abs(quotient) * other.condition) / abs(other.value) - abs(quotient))

    def __rtruediv__(self, other):
        return number(other) / self

    def __eq__(self, other):
        return self.value == number(other).value

    def __lt__(self, other):
        return self.value < number(other).value


def number(value):
    return value if isinstance(value, Number) else Number(value)


def of(function, argument, *turns):
    """A function of an argument. `turns` are points about which it changes most."""
    argument = number(argument)
    value, reach = function(argument.value), 4 * UNIT * argument.condition
    low, high = argument.value - reach, argument.value + reach
    points = [low, high] + [mpf(turn) for turn in (0, *turns) if low < turn < high]
    moved = max(abs(function(point) - value) for point in points) if reach else mpf(0)
    return Number(value, abs(value) + moved / (4 * UNIT))


def total(terms):
    return sum(terms, Number(0))


def difference(a, b):
    """Of two inputs: one rounding."""
    return Number(mpf(a) - mpf(b))


def sigmoid_value(x):
    tail = mp.exp(-abs(x))
    return 1 / (1 + tail) if x >= 0 else tail / (1 + tail)


def softplus_value(x):
    return max(x, mpf(0)) + mp.log1p(mp.exp(-abs(x)))


def exponential_values(x):
    slope = mp.exp(min(x, STEEPEST))
    return slope * (1 + max(x - STEEPEST, mpf(0))), slope


def sigmoid(x):
    return of(sigmoid_value, x)


def softplus(x):
    return of(softplus_value, x)


def density(x):
    """sig(x) sig(-x)."""
    return of(lambda x: sigmoid_value(x) * sigmoid_value(-x), x)


def exponential(x):
    return of(lambda x: exponential_values(x)[0], x)


def exponential_slope(x):
    return of(lambda x: exponential_values(x)[1], x)


def excess(x):
    """exp x - x - 1 and its slope."""
    return (of(lambda x: mp.expm1(x) - x
               if x <= STEEPEST else exponential_values(x)[0] - x - 1, x), of(lambda x: mp.expm1(min(x, STEEPEST)), x))


def box_cox(order, x):
    """(exp(order x) - 1) / order, and its slope."""
    return (of(
        lambda x: (mp.expm1(order * x) if order * x <= STEEPEST else exponential_values(order * x)[0] - 1) / order,
        x), of(lambda x: exponential_values(order * x)[1], x))


def root(x):
    return of(lambda x: mp.sqrt(max(x, mpf(0))), x)


# What a response is scored by.


def divergence(name, order, u):
    if name == "forward_kl":
        return box_cox(mpf(-1), u)
    if name == "js":
        return of(lambda u: mp.log1p(mp.tanh(u / 2)) if abs(u) < 1 else mp.log(2) - softplus_value(-u), u), sigmoid(-u)
    if name == "alpha" and order != 1:
        return box_cox(mpf(order) - 1, u)
    return u, Number(1)


class Response:
    """Sums of a response's columns."""
    def __init__(self, side, index, shared=None):
        self.log_prob = side["log_prob"][index]
        self.tokens = len(self.log_prob)
        self.sum = total(map(Number, self.log_prob))
        self.mean = self.sum / self.tokens
        if "reference_log_prob" in side:
            self.reference = side["reference_log_prob"][index]
            self.ratios = [difference(a, b) for a, b in zip(self.log_prob, self.reference)]
            self.ratio = total(self.ratios)
        shared = self.tokens if shared is None else shared
        self.shared = shared


# Losses of a pair's scores: (loss, slope by the chosen score, slope by the rejected one).


def of_margin(function):
    def loss(objective, chosen, rejected):
        beta = mpf(objective["beta"])
        value, slope = function(objective, beta * (chosen - rejected))
        return value, beta * slope, -(beta * slope)

    return loss


def dpo(objective, z):
    smoothing = mpf(objective.get("label_smoothing", 0.0))
    return softplus(-z) + smoothing * z, number(smoothing) - sigmoid(-z)


def smoothed(objective, z):
    """-(1 - e) log sig(z) - e log sig(-z): terms that do not cancel."""
    smoothing = mpf(objective.get("label_smoothing", 0.0))
    return (1 - smoothing) * softplus(-z) + smoothing * softplus(z), (smoothing * sigmoid(z) -
                                                                      (1 - smoothing) * sigmoid(-z))


def robust(objective, z):
    smoothing = mpf(objective["label_smoothing"])
    bias = smoothing / (1 - 2 * smoothing)
    return softplus(-z) - bias * z, -sigmoid(-z) - bias


def exo_pair(objective, z):
    smoothing = mpf(objective["label_smoothing"])
    right, wrong = sigmoid(z), sigmoid(-z)
    log_right, log_wrong = mp.log1p(-smoothing), mp.log(smoothing)
    return right * (-softplus(-z) - log_right) + wrong * (-softplus(z) - log_wrong), right * wrong * (z - log_right +
                                                                                                      log_wrong)


def hinge(objective, z):
    slack = 1 - z
    return of(lambda slack: max(slack, mpf(0)), slack), -of(lambda slack: mpf(slack > 0), slack)


def discopop(objective, z):
    tau, logistic = mpf(objective["tau"]), softplus(-z)
    exponential = of(lambda z: mp.exp(-z - softplus_value(-z / tau)), z, -tau, tau)
    right, wrong = sigmoid(z / tau), sigmoid(-z / tau)
    turning = wrong * (exponential - right * logistic) / tau
    return wrong * logistic + exponential, turning - wrong * sigmoid(-z) - exponential


def simpo(objective, chosen, rejected):
    beta = mpf(objective["beta"])
    z = beta * (chosen - rejected) - mpf(objective["target_margin"])
    value, slope = dpo(objective, z)
    return value, beta * slope, -(beta * slope)


def alphapo(objective, chosen, rejected):
    beta, order = mpf(objective["beta"]), -mpf(objective["alpha"])
    (w, w_slope), (l, l_slope) = ((score, Number(1)) if order == 0 else box_cox(order, score)
                                  for score in (chosen, rejected))
    value, slope = dpo(objective, beta * (w - l) - mpf(objective["target_margin"]))
    return value, beta * slope * w_slope, -(beta * slope * l_slope)


def ipo(objective, chosen, rejected):
    gap = chosen - rejected - 1 / (2 * mpf(objective["beta"]))
    return gap * gap, 2 * gap, -(2 * gap)


def sppo_hard(objective, chosen, rejected):
    target = 1 / (2 * mpf(objective["beta"]))
    w, l = chosen - target, rejected + target
    return w * w + l * l, 2 * w, 2 * l


def of_two(function):
    def loss(objective, chosen, rejected):
        beta = mpf(objective["beta"])
        value, w, l = function(beta * chosen, beta * rejected, beta * (chosen - rejected))
        return value, beta * w, beta * l

    return loss


PAIRS = {
    "dpo": of_margin(dpo), "robust": of_margin(robust), "exo_pair": of_margin(exo_pair), "hinge": of_margin(hinge),
    "discopop": of_margin(discopop), "sigmoid_norm": of_margin(dpo), "cpo": of_margin(dpo), "simpo": simpo,
    "alphapo": alphapo, "ipo": ipo, "sppo_hard": sppo_hard, "nca_pair": of_two(lambda a, b, _: (softplus(
        -a) + 0.5 * softplus(a) + 0.5 * softplus(b), 0.5 * sigmoid(a) - sigmoid(-a), 0.5 * sigmoid(b))),
    "bco_pair": of_two(lambda a, b, _: (softplus(-a) + softplus(b), -sigmoid(-a), sigmoid(b))),
    "apo_zero": of_two(lambda a, b, _: (sigmoid(-a) + sigmoid(b), -density(a), density(b))),
    "apo_down": of_two(lambda a, _, z: (sigmoid(a) + sigmoid(-z), density(a) - density(z), density(z))),
}
LIKELIHOODS = {"simpo": "mean", "alphapo": "mean", "cpo": "sum"}


def score(objective, response):
    """A response's score, its slopes by a log-probability of the body and of the tail."""
    name = objective["name"]
    if name in LIKELIHOODS:
        mean = LIKELIHOODS[name] == "mean"
        scale = mpf(1) / response.tokens if mean else mpf(1)
        return scale * response.sum, Number(scale), Number(scale)
    tail = mpf(objective.get("tail_weight", 1.0))
    u = total(response.ratios[:response.shared]) + tail * total(response.ratios[response.shared:])
    mean = name == "sigmoid_norm" or name == "ipo" and objective.get("normalisation", "mean") == "mean"
    scale = mpf(1) / response.tokens if mean else mpf(1)
    value, slope = divergence(objective.get("divergence", "reverse_kl"), objective.get("divergence_alpha", 0.5), u)
    return scale * value, scale * slope, scale * tail * slope


def pairs_of(line):
    for index in range(len(line["chosen"]["log_prob"])):
        shared = min(len(line[side]["log_prob"][index]) for side in ("chosen", "rejected"))
        yield Response(line["chosen"], index, shared), Response(line["rejected"], index, shared)


def pairwise(objective, line, step):
    loss, slots = Number(0), {"chosen": {"log_prob": []}, "rejected": {"log_prob": []}}
    for index, (chosen, rejected) in enumerate(pairs_of(line)):
        (w, *w_slopes), (l, *l_slopes) = score(objective, chosen), score(objective, rejected)
        value, w_slope, l_slope = PAIRS[objective["name"]](objective, w, l)
        weight = mpf(1) / step["pairs"] * number(1)
        if objective.get("weighting") == "wpo":
            alike = [(response.sum - total(map(Number, line[side]["log_sum_square_prob"][index]))) / response.tokens
                     for side, response in (("chosen", chosen), ("rejected", rejected))]
            weight = weight * of(mp.exp, alike[0] + alike[1])
        imitation = mpf(objective["alpha"]) / chosen.tokens if objective["name"] == "cpo" else mpf(0)
        loss = loss + weight * (value - imitation * w)
        for side, response, slope, (body, tail) in (("chosen", chosen, w_slope - imitation, w_slopes),
                                                    ("rejected", rejected, l_slope, l_slopes)):
            slots[side]["log_prob"].append(
                [weight * slope * (body if t < response.shared else tail) for t in range(response.tokens)])
    return loss, slots


def orpo(objective, line, step):
    beta, share = mpf(objective["beta"]), mpf(1) / step["pairs"]
    loss, slots = Number(0), {"chosen": {"log_prob": []}, "rejected": {"log_prob": []}}

    def odds(mean):
        held = lambda m: min(m, CERTAINTY)
        return (of(lambda m: held(m) - mp.log(-mp.expm1(held(m))), mean,
                   CERTAINTY), of(lambda m: mpf(0) if m > CERTAINTY else -1 / mp.expm1(m), mean, CERTAINTY))

    for chosen, rejected in pairs_of(line):
        (w, w_slope), (l, l_slope) = odds(chosen.mean), odds(rejected.mean)
        loss = loss + share * (beta * softplus(l - w) - chosen.mean)
        pull = -(beta * sigmoid(l - w))
        slots["chosen"]["log_prob"].append([share / chosen.tokens * (pull * w_slope - 1)] * chosen.tokens)
        slots["rejected"]["log_prob"].append([-(share / rejected.tokens * pull * l_slope)] * rejected.tokens)
    return loss, slots


def tdpo(objective, line, step):
    beta, first = mpf(objective["beta"]), str(objective.get("variant", "2")) == "1"
    alpha, share = mpf(1) if first else mpf(objective.get("alpha", 0.5)), mpf(1) / step["pairs"]
    loss, slots = Number(0), {side: {"log_prob": [], "reference_kl": []} for side in ("chosen", "rejected")}
    for index, (chosen, rejected) in enumerate(pairs_of(line)):
        w, l = (total(map(Number, line[side]["reference_kl"][index])) for side in ("chosen", "rejected"))
        z = beta * (chosen.ratio - rejected.ratio) - alpha * beta * (l - w)
        loss = loss + share * softplus(-z)
        slope = -(share * beta * sigmoid(-z))
        slots["chosen"]["log_prob"].append([slope] * chosen.tokens)
        slots["rejected"]["log_prob"].append([-slope] * rejected.tokens)
        slots["chosen"]["reference_kl"].append([alpha * slope if first else Number(0)] * chosen.tokens)
        slots["rejected"]["reference_kl"].append([-(alpha * slope)] * rejected.tokens)
    return loss, slots


def transport(objective, line, step):
    beta, share = mpf(objective["beta"]), mpf(1) / step["pairs"]
    pairs = list(pairs_of(line))
    if objective["name"] == "aot":
        reference = lambda response: total(map(Number, response.reference))
        u, v = [w.sum - l.sum for w, l in pairs], [reference(w) - reference(l) for w, l in pairs]
    else:
        u, v = [w.ratio for w, _ in pairs], [l.ratio for _, l in pairs]
    orders = [sorted(range(len(pairs)), key=lambda place: values[place].value) for values in (u, v)]
    loss, slopes = Number(0), []
    for above, below in zip(*orders):
        value, slope = dpo(objective, beta * (u[above] - v[below]))
        loss = loss + share * value
        slopes.append(share * beta * slope)

    for values, order in zip((u, v), orders):
        for low, high in itertools.pairwise(values[place] for place in order):
            # Neighbours whose order an error may turn leave all slopes unknown, unless they are the same sums.
            if high.value - low.value <= 4 * UNIT * (low.condition + high.condition) and (low.value, low.condition) != (
                    high.value, high.condition):
                slopes = [Number(slope.value, beta / UNIT) for slope in slopes]

    def shared(values, order, slopes):
        result = [None] * len(values)
        for _, tied in itertools.groupby(range(len(order)), key=lambda rank: values[order[rank]].value):
            ranks = list(tied)
            mean = total(slopes[rank] for rank in ranks) / len(ranks)
            for rank in ranks:
                result[order[rank]] = mean
        return result

    above, below = shared(u, orders[0], slopes), shared(v, orders[1], [-slope for slope in slopes])
    if objective["name"] == "aot":
        below = [-slope for slope in above]
    return loss, {
        "chosen": {"log_prob": [[slope] * w.tokens for slope, (w, _) in zip(above, pairs)]},
        "rejected": {"log_prob": [[slope] * l.tokens for slope, (_, l) in zip(below, pairs)]}
    }


def labelled(objective, line, step):
    name, beta, side = objective["name"], mpf(objective["beta"]), line["labelled"]
    responses = [Response(side, index) for index in range(len(side["log_prob"]))]
    rewards, shift = [beta * response.ratio for response in responses], Number(0)
    if name == "kto":
        other = line["mismatched"]
        count = len(other["log_prob"])
        mean = total(beta * Response(other, index).ratio for index in range(count)) / count
        shift = of(lambda mean: max(mean, mpf(0)), mean)
    elif name == "bco":
        shift = total(rewards) / len(rewards)
    loss, slots = Number(0), []
    for response, reward, desirable in zip(responses, rewards, side["desirable"]):
        sign = 1 if desirable else -1
        weight = mpf(objective.get("desirable_weight" if desirable else "undesirable_weight", 1.0)) / step["responses"]
        x = sign * (reward - shift)
        value, slope = (softplus(-x), -sigmoid(-x)) if name == "bco" else (sigmoid(-x), -density(x))
        loss = loss + weight * value
        slots.append([weight * sign * beta * slope] * response.tokens)
    cotangents = {"labelled": {"log_prob": slots}}
    if "mismatched" in line:
        cotangents["mismatched"] = {"log_prob": [[Number(0)] * len(row) for row in line["mismatched"]["log_prob"]]}
    return loss, cotangents


# Demonstrations.


def sft(objective, line, step):
    by_response, weighted = objective.get("normalisation", "token") == "response", objective.get("weighting") == "dft"
    loss, slots = Number(0), []
    for row in line["chosen"]["log_prob"]:
        share = mpf(1) / (len(row) * step["responses"]) if by_response else mpf(1) / step["tokens"]
        weights = [of(mp.exp, own) if weighted else Number(1) for own in row]
        loss = loss - share * total(weight * own for weight, own in zip(weights, row))
        slots.append([-(share * weight) for weight in weights])
    return loss, {"chosen": {"log_prob": slots}}


def discounted(gamma, items):
    """Sums of what comes before, discounted; reversed lists for what comes after."""
    result, running = [], Number(0)
    for item in items:
        running = item + gamma * running
        result.append(running)
    return result


def released(objective, losses):
    """A response's loss and its derivatives by the losses."""
    gamma, count = mpf(objective.get("gamma", 0.95)), len(losses)
    item, side, norm = objective.get("item", "loss"), objective.get("side", "left"), objective.get("norm", "L1")
    items = {"loss": [own / count for own in losses], "logps": losses, "mask": [Number(1)] * count}[item]
    slope = {"loss": mpf(1) / count, "logps": mpf(1), "mask": mpf(0)}[item]
    left = side == "left"
    sums = discounted(gamma, items[::-1])[::-1] if left else discounted(gamma, items)
    least = None
    if not left:
        positive = [place for place in range(count) if sums[place] > 0]
        if positive:
            least = min(positive, key=lambda place: sums[place].value)
            sums = [own + sums[least] for own in sums]
    if all(own == 0 for own in sums):
        return Number(0), [Number(mpf(1) / count)] * count
    # Weights relative to the greatest one, a factor that cancels and has the slopes of no argument.
    if norm == "softmax":
        held = [own if left or own.value >= LEAST_SUM else Number(LEAST_SUM) for own in sums]
        exponents = held if left else [1 / own for own in held]
        top = max(exponents)
        apart = [own - top.value for own in exponents]
        weights = [of(mp.exp, Number(x.value, own.condition)) for x, own in zip(apart, exponents)]
        slopes = [
            weight if left else (Number(0) if own.value < LEAST_SUM else -(weight / (own * own)))
            for weight, own in zip(weights, sums)
        ]
    else:
        inner = {
            "L1": lambda c: (c, Number(1)), "L2": lambda c: (c * c, 2 * c), "log": lambda c: (of(mp.log1p, c), 1 /
                                                                                              (1 + c))
        }[norm]
        made = [inner(own) for own in sums]
        weights = [value if left else 1 / value for value, _ in made]
        slopes = [derivative if left else -(derivative / (value * value)) for value, derivative in made]
    whole = total(weights)
    loss = total(weight * own for weight, own in zip(weights, losses)) / whole
    pulls = [derivative * (own - loss) / whole for derivative, own in zip(slopes, losses)]
    if least is not None:
        pulls[least] = pulls[least] + total(pulls)
    through = discounted(gamma, pulls) if left else discounted(gamma, pulls[::-1])[::-1]
    return loss, [weight / whole + slope * own for weight, own in zip(weights, through)]


def ift(objective, line, step):
    gamma, way = mpf(objective.get("gamma", 0.95)), objective.get("propagation", "released")
    share, loss, slots = mpf(1) / step["responses"], Number(0), []
    for row in line["chosen"]["log_prob"]:
        losses, count = [Number(-mpf(own)) for own in row], len(row)
        if way == "none" or way == "released" and gamma == 0:
            own, derivatives = total(losses) / count, [Number(mpf(1) / count)] * count
        elif way == "equation21":
            own, derivatives = total(
                (t + 1) * value for t, value in enumerate(losses)), [Number(t + 1) for t in range(count)]
        elif way == "algorithm1":
            after, before = discounted(mpf(1), losses[::-1])[::-1], discounted(gamma, losses)
            powers = [gamma**(count - 1 - t) for t in range(count)]
            own = total(power * value * tail for power, value, tail in zip(powers, losses, after))
            derivatives = [power * (tail + head) for power, tail, head in zip(powers, after, before)]
        else:
            own, derivatives = released(objective, losses)
        loss = loss + share * own
        slots.append([-(share * derivative) for derivative in derivatives])
    return loss, {"chosen": {"log_prob": slots}}


# Policy gradients.


def advantages(objective, side):
    """Advantages of groups' rewards."""
    name, rewards = objective["name"], [Number(reward) for reward in side["reward"]]
    if name == "rloo" and objective["beta"] > 0:
        drift = [
            total(difference(a, b) for a, b in zip(*rows))
            for rows in zip(side["behaviour_log_prob"], side["reference_log_prob"])
        ]
        rewards = [reward - mpf(objective["beta"]) * own for reward, own in zip(rewards, drift)]

    def deviation(values):
        if len(values) < 2:
            return Number(0)
        mean = total(values) / len(values)
        return root(total((value - mean) * (value - mean) for value in values) / (len(values) - 1))

    result, scale, whole = [], objective.get("scale", "group"), deviation(rewards)
    for _, members in itertools.groupby(range(len(rewards)), key=lambda place: side["group"][place]):
        places = list(members)
        if len(places) == 1:
            result.append(Number(0))
            continue
        apart = [rewards[place] - rewards[places[0]] for place in places]
        apart = [
            Number(0) if side["reward"][place] == side["reward"][places[0]] and name != "rloo" else own
            for place, own in zip(places, apart)
        ]
        mean, offset = total(apart) / len(places), mpf(1e-4)
        divisor = Number(mpf(len(places) - 1) / len(places)) if name == "rloo" else {
            "group": lambda: deviation(apart) + offset, "batch": lambda: whole + offset, "none": lambda: Number(1)
        }[scale]()
        result.extend((own - mean) / divisor for own in apart)
    return result


def surrogate(objective, x, advantage):
    """The clipped surrogate of a log-ratio, and its slope."""
    low = objective.get("clip", 0.2)
    # The bounds are those of doubles.
    low, high, delta = mpf(1.0 - low), mpf(1.0 + objective.get("clip_high", low)), objective.get("delta", math.inf)
    if advantage > 0:
        least, most = mpf(0), min(high, mpf(delta))
    else:
        least, most = low, max(high, mpf(delta)) if delta != math.inf else mpf("inf")
    if advantage == 0:
        least, most = mpf(0), mpf("inf")
    if 0 < abs(advantage.value) <= 4 * UNIT * advantage.condition:
        # Its sign is not known, and so whether the ratio is clipped.
        return tuple(Number(0, exponential(x).value * advantage.condition / UNIT) for _ in range(2))
    ratio = exponential(x)
    value = of(lambda ratio: max(min(ratio, most), least), ratio)
    slope = of(lambda ratio: mpf(least <= ratio <= most), ratio) * exponential_slope(x)
    return -(value * advantage), -(slope * advantage)


def corrected(own, behaviour, reference):
    """rho (exp u - u - 1) of a token and its derivative."""
    x, u = difference(own, behaviour), difference(reference, own)
    ratio, ratio_slope = exponential(x), exponential_slope(x)
    over, over_slope = excess(u)
    if x.value > STEEPEST:
        return ratio * over, ratio_slope * over - ratio * over_slope
    value = ratio * over if u.value <= STEEPEST else exponential(difference(reference, behaviour)) - ratio * (1 + u)
    return value, -(ratio * u)


def groups(objective, line, step):
    side, name, beta = line["groups"], objective["name"], mpf(objective.get("beta", 0.0))
    loss, slots = Number(0), []
    for index, advantage in enumerate(advantages(objective, side)):
        row, behaviour = side["log_prob"][index], side["behaviour_log_prob"][index]
        count = len(row)
        ratios = [difference(a, b) for a, b in zip(row, behaviour)]
        ways = {"response_mean": "grpo", "token_mean": "dapo", "fixed_length": "dr_grpo"}
        way = ways[objective.get("aggregation", "response_mean")] if name == "grpo" else name
        share = {
            "grpo": mpf(1) / (count * step["responses"]), "sapo": mpf(1) / (count * step["responses"]),
            "rloo": mpf(1) / (count * step["responses"]), "bnpo": mpf(1) / step["tokens"],
            "dapo": mpf(1) / step["tokens"], "cispo": mpf(1) / step["tokens"], "vespo": mpf(1) / step["tokens"],
            "luspo": mpf(1) / step["responses"],
            "dr_grpo": mpf(1) / (mpf(objective.get("max_tokens", 256)) * step["responses"])
        }[way]
        if name in ("grpo", "luspo") and (name == "luspo" or objective.get("ratio") == "sequence"):
            value, slope = surrogate(objective, total(ratios) / count, advantage)
            own, slopes = share * count * value, [share * slope] * count
        elif name == "rloo":
            value, slope = surrogate(objective, total(ratios), advantage)
            own, slopes = share * count * value, [share * count * slope] * count
        elif name == "grpo":
            made = [surrogate(objective, x, advantage) for x in ratios]
            own, slopes = share * total(value for value, _ in made), [share * slope for _, slope in made]
        elif name == "cispo":
            most = mpf(objective.get("max_ratio", 5.0))
            weights = [of(lambda x: min(exponential_values(x)[0], most), x) for x in ratios]
            slopes = [-(share * weight * advantage) for weight in weights]
            own = total(slope * value for slope, value in zip(slopes, row))
        elif name == "sapo":
            made = [gated(objective, "sapo", x, advantage) for x in ratios]
            own, slopes = share * total(value for value, _ in made), [share * slope for _, slope in made]
        else:
            kind = "positive" if advantage >= 0 else "negative"
            k, decay = (mpf(objective.get(f"{kind}_{name}", value))
                        for name, value in (("k", 2.0 if kind == "positive" else 3.0),
                                            ("lambda", 3.0 if kind == "positive" else 2.0)))
            bounded = total(of(lambda x: max(min(x, mpf(20)), mpf(-20)), x) for x in ratios)
            bounded = of(lambda x: max(min(x, mpf(20)), mpf(-18.420680743952367)), bounded)
            weight = of(lambda x: mp.exp(min(x, STEEPEST)), decay + k * bounded - decay * of(mp.exp, bounded))
            slopes = [-(share * weight * advantage)] * count
            own = slopes[0] * total(map(Number, row))
        if beta > 0 and name != "rloo":
            for token, columns in enumerate(zip(row, behaviour, side["reference_log_prob"][index])):
                value, slope = corrected(*columns)
                own, slopes[token] = own + share * beta * value, slopes[token] + share * beta * slope
        loss = loss + own
        slots.append(slopes)
    return loss, {"groups": {"log_prob": slots}}


def estimate(name, drift):
    """An estimate of the divergence from log pi - log pi_ref, and its slope."""
    if name == "k1":
        return drift, Number(1)
    if name == "k2":
        return drift * drift / 2, drift
    value, slope = excess(-drift)
    return value, -slope


def estimated(objective, own, behaviour, reference):
    """The divergence of a token in the loss, and its derivative."""
    name, drift = objective.get("divergence", "k3"), difference(own, reference)
    if objective.get("divergence_place", "corrected") == "loss":
        return estimate(name, drift)
    if name == "k3":
        return corrected(own, behaviour, reference)
    x, (value, slope) = difference(own, behaviour), estimate(name, drift)
    return exponential(x) * value, exponential_slope(x) * value + exponential(x) * slope


def correction(objective, row, behaviour, rollout, gains):
    """Weights of a response's tokens, and which of them stay in the step."""
    name = objective.get("correction", "none")
    least, most = (mpf(objective.get(
        f"correction_{side}",
        value)) for side, value in zip(("min",
                                        "max"), {"icepop": (0.5,
                                                            5.0), "off_policy_sequence": (0.0,
                                                                                          0.5)}.get(name, (0.0, 2.0))))
    if name == "none":
        return [Number(1)] * len(row), [True] * len(row)
    if name == "off_policy_sequence":
        stale = total(difference(a, b) for a, b in zip(rollout, row)) / len(row)
        return [Number(1) if gain >= 0 else of(lambda x: mpf(x <= most), stale) for gain in gains], [True] * len(row)
    ratios = [difference(a, b) for a, b in zip(behaviour, rollout)]
    if name.endswith("sequence") or name.endswith("geometric"):
        ratios = [total(ratios) / (len(row) if name.endswith("geometric") else 1)] * len(row)
    weights = [exponential(x) for x in ratios]
    if name.startswith("truncate"):
        return [of(lambda w: max(min(w, most), least), weight) for weight in weights], [True] * len(row)
    inside = [least <= weight.value <= most for weight in weights]
    held = [weight * of(lambda w: mpf(least <= w <= most), weight) for weight in weights]
    return held, [True] * len(row) if name == "icepop" else inside


def covariance_of(columns):
    """Covariances of the tokens' advantages and log-probabilities: each is a sum of two differences to means."""
    gains, own = ([value for row in rows for value in row] for rows in columns)
    means = [total(values) / len(values) for values in (gains, own)]
    return [(gain - means[0]) * (value - means[1]) for gain, value in zip(gains, own)]


def given(objective, line, step):
    """`policy_gradient` with advantages that are given."""
    side, region, level = line["groups"], objective.get("trust_region", "clip"), objective.get("ratio", "token")
    rows, behaviours = side["log_prob"], side.get("behaviour_log_prob", side["log_prob"])
    rollouts, references = side.get("rollout_log_prob", rows), side.get("reference_log_prob", rows)
    low = mpf(objective.get("clip", 0.2))
    high, beta = mpf(objective.get("clip_high", objective.get("clip", 0.2))), mpf(objective.get("beta", 0.0))
    cap = mpf(objective.get("max_ratio", 5.0 if region == "cispo" else 20.0))
    gains = [[Number(gain) for gain in (given * len(row) if len(given) == 1 else given)]
             for given, row in zip(side["advantage"], rows)]
    made = [correction(objective, *columns) for columns in zip(rows, behaviours, rollouts, gains)]
    counts = [sum(kept) for _, kept in made]
    way = objective.get("aggregation", "response_mean")
    whole = {
        "token_mean": step["tokens"], "response_mean": step["responses"], "response_sum": step["responses"],
        "fixed_length": step["responses"] * objective.get("max_tokens", 256)
    }.get(way)
    if any(not all(kept) for _, kept in made):
        some = sum(count > 0 for count in counts)
        whole = {
            "token_mean": sum(counts), "response_mean": some, "response_sum": some,
            "fixed_length": some * objective.get("max_tokens", 256)
        }.get(way)
    members = {
        group: [place for place, own in enumerate(side["group"]) if own == group]
        for group in side.get("group", ())
    }
    tokens = {group: sum(counts[place] for place in places) for group, places in members.items()}
    chosen = set()
    if region.endswith("_cov"):
        flat = [(index, token) for index, row in enumerate(rows) for token in range(len(row))]
        covariances = dict(zip(flat, covariance_of((gains, [[Number(own) for own in row] for row in rows]))))

        def admits(place):
            index, token = place
            between = objective.get("covariance_min", 1.0) < covariances[place].value < objective.get(
                "covariance_max", 5.0)
            x, gain = difference(rows[index][token], behaviours[index][token]), gains[index][token]
            return region == "kl_cov" or between and (gain == 0 or surrogate(objective | {"delta": math.inf}, x,
                                                                             gain)[1].value != 0)

        admitted = [place for place in flat if admits(place)]
        admitted.sort(key=lambda place: -covariances[place].value)
        chosen = set(admitted[:max(1, int(objective["covariance_share"] * len(flat)))])
    least = None
    if objective.get("entropy_share", 1.0) < 1:
        ordered = sorted(mpf(value) for row in side["entropy"] for value in row)
        place = (1 - mpf(objective["entropy_share"])) * (len(ordered) - 1)
        below = int(mp.floor(place))
        least = ordered[below] + (place - below) * (ordered[min(below + 1, len(ordered) - 1)] - ordered[below])

    loss, slots, entropy_slots = Number(0), [], []
    for index, (row, behaviour, gain, (weights, kept)) in enumerate(zip(rows, behaviours, gains, made)):
        count = counts[index]
        if count == 0:
            slots.append([Number(0)] * len(row))
            entropy_slots.append([Number(0)] * len(row))
            continue
        share = {
            "response_mean": lambda: mpf(1) / (count * whole), "prompt_mean": lambda: mpf(1) /
            (tokens[side["group"][index]] * sum(value > 0 for value in tokens.values()))
        }.get(way, lambda: mpf(1) / whole)()
        drifts = [difference(a, b) for a, b in zip(row, behaviour)]
        sum_of = total(drift for drift, own in zip(drifts, kept) if own)
        if least is not None:
            weights = [
                weight if mpf(entropy) >= least else Number(0)
                for weight, entropy in zip(weights, side["entropy"][index])
            ]
        weights = [share * weight if own else Number(0) for weight, own in zip(weights, kept)]
        own_slots = [Number(0)] * len(row)
        if region == "geometric_mean":
            clamp = lambda a: (lambda x: min(x, high)) if a > 0 else (lambda x: max(x, -low)) if a < 0 else (lambda x: x
                                                                                                             )
            inside = lambda a: (lambda x: mpf(x <= high)) if a > 0 else (lambda x: mpf(x >= -low)) if a < 0 else (
                lambda x: mpf(1))
            mean = total(of(clamp(a), x) for a, x, own in zip(gain, drifts, kept) if own) / count
            advantage = total(a for a, own in zip(gain, kept) if own) / count
            scale = -(advantage * share * count)
            loss = loss + scale * exponential(mean)
            own_slots = [
                scale * exponential_slope(mean) / count * of(inside(a), x) if own else Number(0)
                for a, x, own in zip(gain, drifts, kept)
            ]
        elif level in ("sequence", "sequence_token", "product") and region in ("clip", "sapo", "none"):
            x = sum_of / (1 if level == "product" else count)
            pulls = []
            for weight, a in zip(weights, gain):
                value, slope = gated(objective, region, x, a)
                loss = loss + weight * value
                pulls.append(weight * slope)
            if level == "sequence_token":
                own_slots = pulls
            else:
                spread = total(pulls) / (1 if level == "product" else count)
                own_slots = [spread if own else Number(0) for own in kept]
        else:
            for token, (value, weight, a, x) in enumerate(zip(row, weights, gain, drifts)):
                own, other = mpf(value), mpf(behaviour[token])
                held = None
                if region == "cispo":
                    at = x if level == "token" else sum_of / (1 if level == "product" else count)
                    held = of(lambda ratio: max(min(ratio, cap), mpf(objective.get("min_ratio", 0.0))), exponential(at))
                elif region == "topr":
                    held = of(lambda x: mp.exp(min(x, mpf(0))), sum_of) if a < 0 else Number(1)
                elif region == "vespo":
                    kind = "positive" if a >= 0 else "negative"
                    k, decay = (mpf(objective.get(f"{kind}_{name}", default))
                                for name, default in (("k", 2.0 if kind == "positive" else 3.0),
                                                      ("lambda", 3.0 if kind == "positive" else 2.0)))
                    bounded = total(of(lambda x: max(min(x, mpf(20)), mpf(-20)), x) for x in drifts)
                    bounded = of(lambda x: max(min(x, mpf(20)), mpf(-18.420680743952367)), bounded)
                    held = of(lambda x: mp.exp(min(x, STEEPEST)), decay + k * bounded - decay * of(mp.exp, bounded))
                elif region in ("total_variation", "binary_kl"):
                    if region == "total_variation":
                        moved = Number(mp.exp(own) - mp.exp(other))
                        keep = of(lambda moved: mpf(moved <= high if a > 0 else moved >= -low), moved)
                    else:
                        # A token that was not certain and now is leaves no other outcome: the divergence is infinite.
                        rest = mpf(0) if other == 0 else mpf(
                            "inf") if own == 0 else -mp.expm1(other) * mp.log(mp.expm1(other) / mp.expm1(own))
                        kl = Number(
                            mp.exp(other) * (other - own) + rest,
                            abs(mp.exp(other) * (other - own)) + abs(rest))
                        keep = of(lambda kl: mpf(own <= other or kl <= high
                                                 if a > 0 else own >= other or kl <= low), kl)
                    held = keep * of(lambda ratio: min(ratio, cap), exponential(x))
                elif region == "none" and level == "none":
                    held = Number(1)
                if held is not None:
                    slope = -(weight * held * a)
                    loss, own_slots[token] = loss + slope * value, slope
                    continue
                if region == "quadratic":
                    penalty = mpf(objective.get("quadratic_weight", 1.0))
                    result, slope = penalty / 2 * x * x - a * value, penalty * x - a
                elif region == "kl_cov":
                    result, slope = gated(objective, "none", x, a)
                    if (index, token) in chosen:
                        penalty = mpf(objective["covariance_weight"])
                        result, slope = result + penalty * of(abs, x), slope + penalty * mp.sign(x.value)
                elif region == "clip_cov":
                    result, slope = (Number(0), Number(0)) if (index, token) in chosen else surrogate(objective, x, a)
                else:
                    result, slope = gated(objective, region, x, a)
                loss, own_slots[token] = loss + weight * result, weight * slope
        if beta > 0:
            for token, own in enumerate(kept):
                if own:
                    value, slope = estimated(objective, row[token], behaviour[token], references[index][token])
                    loss, own_slots[token] = loss + share * beta * value, own_slots[token] + share * beta * slope
        if objective.get("entropy_coefficient", 0.0) > 0:
            coefficient = share * mpf(objective["entropy_coefficient"])
            loss = loss - coefficient * total(map(Number, side["entropy"][index]))
            entropy_slots.append([Number(-coefficient)] * len(row))
        slots.append(own_slots)
    return loss, {
        "groups": {"log_prob": slots} |
        ({"entropy": entropy_slots} if objective.get("entropy_coefficient", 0.0) > 0 else {})
    }


def gated(objective, region, x, advantage):
    """The loss of a ratio and its slope by the log-ratio."""
    if region == "clip":
        return surrogate(objective, x, advantage)
    if region == "sapo":
        heat = mpf(
            objective.get("positive_temperature", 1.0) if advantage >
            0 else objective.get("negative_temperature", 1.05))
        gate = heat * of(lambda x: exponential_values(x)[0] - 1, x)
        return -(advantage * 4 / heat * sigmoid(gate)), -(advantage * 4 * density(gate) * exponential_slope(x))
    return -(exponential(x) * advantage), -(exponential_slope(x) * advantage)


def ppo(objective, line, step):
    side, share = line["rollouts"], mpf(1) / step["tokens"]
    values, entropy = mpf(objective.get("value_coefficient", 1.0)), mpf(objective.get("entropy_coefficient", 0.01))
    loss, slots = Number(0), {"log_prob": []
                              } | ({"value": []} if values > 0 else {}) | ({"entropy": []} if entropy > 0 else {})
    for index, row in enumerate(side["log_prob"]):
        columns = [
            surrogate(objective, difference(a, b), Number(advantage))
            for a, b, advantage in zip(row, side["behaviour_log_prob"][index], side["advantage"][index])
        ]
        loss = loss + share * total(value for value, _ in columns)
        slots["log_prob"].append([share * slope for _, slope in columns])
        if values > 0:
            slopes = []
            for token, (value, returned) in enumerate(zip(side["value"][index], side["return"][index])):
                error, slope = difference(value, returned), None
                own, slope = error * error / 2, error
                if "value_clip" in objective:
                    before, clip = mpf(side["behaviour_value"][index][token]), mpf(objective["value_clip"])
                    moved = mpf(value) - before
                    held = Number(before) + max(min(moved, clip), -clip) - mpf(returned)
                    if abs(moved) > clip and abs(held.value) > abs(error.value):
                        own, slope = held * held / 2, Number(0)
                loss = loss + share * values * own
                slopes.append(share * values * slope)
            slots["value"].append(slopes)
        if entropy > 0:
            loss = loss - share * entropy * total(map(Number, side["entropy"][index]))
            slots["entropy"].append([Number(-share * entropy)] * len(row))
    return loss, {"rollouts": slots}


# Lines.

GROUPS = ("grpo", "cispo", "sapo", "luspo", "vespo", "rloo")
FAMILIES = ({name: pairwise
             for name in PAIRS} | {name: groups
                                   for name in GROUPS} | {"aot": transport, "aot_unpaired": transport}
            | {"kto": labelled, "apo_zero_unpaired": labelled, "bco": labelled}
            | {"orpo": orpo, "tdpo": tdpo, "sft": sft, "ift": ift, "ppo": ppo, "policy_gradient": given})
DEFAULTS = {
    "dpo": {"beta": 0.1}, "hinge": {"beta": 0.1}, "ipo": {"beta": 0.1}, "robust": {"beta": 0.1, "label_smoothing": 0.1},
    "exo_pair": {"beta": 0.1,
                 "label_smoothing": 0.001}, "sppo_hard": {"beta": 0.001}, "discopop": {"beta": 0.1, "tau": 0.05},
    "simpo": {"beta": 2.0}, "alphapo": {"beta": 2.5, "alpha": 0.25, "target_margin": 0.1},
    "cpo": {"beta": 0.1, "alpha": 1.0}, "orpo": {"beta": 0.25}, "rloo": {"beta": 0.05}
}


def evaluate(line):
    objective = {"beta": 0.0 if line["objective"]["name"] in (*GROUPS, "policy_gradient") else 0.1} | DEFAULTS.get(
        line["objective"]["name"], {}) | line["objective"]
    if objective["name"] == "simpo":
        objective = {"target_margin": 0.8 * objective["beta"]} | objective
    sides = [
        line[side]["log_prob"] for side in ("chosen", "rejected", "labelled", "groups", "rollouts") if side in line
    ]
    step = {
        "tokens": sum(len(row) for rows in sides for row in rows), "responses": sum(map(len, sides)),
        "pairs": len(sides[0])
    }
    step |= line.get("totals", {})
    return FAMILIES[objective["name"]](objective, line, step)


def rows_of(cotangents, of_number):
    return {
        side: {column: [[of_number(value) for value in row] for row in rows]
               for column, rows in columns.items()}
        for side, columns in cotangents.items()
    }


def double(value):
    return float(value).hex()


def answer(line):
    loss, cotangents = evaluate(line)
    return {
        "loss": double(loss.value), "condition": double(loss.condition),
        "cotangents": rows_of(cotangents, lambda own: double(own.value)),
        "conditions": rows_of(cotangents, lambda own: double(own.condition))
    }


# Hostile lines.


def hostile(draw, names=None, length=None):
    """A line of any objective: lengths to 8, log-probabilities to -1e30, equal columns, ratios that overflow. With a
    length, one response of so many tokens, or a pair."""
    name = draw.choice(names or sorted(set(FAMILIES) - {"policy_gradient"}))
    kind = draw.choice(("plain", "plain", "wide", "near", "equal", "extreme"))

    def log_prob():
        if kind == "wide":
            return -(10.0**draw.uniform(-12, 5))
        if kind == "extreme":
            return draw.choice((0.0, -1e-300, -1e-16, -(2.0**-52), -1.0, -99.0, -101.0, -745.2, -1e4, -1e30,
                                -(10.0**draw.uniform(-30, 30))))
        return -draw.expovariate(1.0)

    def rows(lengths):
        return [[log_prob() for _ in range(length)] for length in lengths]

    def beside(column):
        if kind == "equal":
            return [list(row) for row in column]
        if kind == "near":
            return [[min(value * (1 + 10.0**draw.uniform(-15, -1) * draw.choice((-1, 1))), 0.0) for value in row]
                    for row in column]
        return rows(map(len, column))

    count = draw.randint(1, 4) if length is None else 1
    lengths = lambda: [draw.randint(1, 8) if length is None else length for _ in range(count)]
    beta = draw.choice((1e-3, 0.1, 1.0, 50.0, 10.0**draw.uniform(-9, 6)))
    objective = {"name": name}
    if name in PAIRS or name in ("orpo", "tdpo", "aot", "aot_unpaired"):
        objective["beta"] = beta
        sides = [{"log_prob": rows(lengths())} for _ in range(2)]
        if kind == "equal" and draw.random() < 0.5:
            sides[1] = {"log_prob": [list(row) for row in sides[0]["log_prob"]]}
        if name not in LIKELIHOODS and name != "orpo":
            for side in sides:
                side["reference_log_prob"] = beside(side["log_prob"])
        if name == "tdpo":
            for side in sides:
                side["reference_kl"] = [[-value for value in row] for row in beside(side["log_prob"])]
            objective["variant"] = draw.choice(("1", "2"))
        if name in ("dpo", "aot", "aot_unpaired"):
            objective["label_smoothing"] = draw.choice((0.0, 0.1, 0.5))
        if name == "robust":
            objective["label_smoothing"] = draw.choice((0.0, 0.1, 0.49))
        if name == "exo_pair":
            objective["label_smoothing"] = draw.choice((1e-9, 1e-3, 0.5))
        if name == "discopop":
            objective["tau"] = draw.choice((0.05, 1.0, 1e-6))
        if name == "alphapo":
            objective |= {"alpha": draw.choice((0.25, -0.5, 0.0, 10.0, 1e-8)), "target_margin": 0.1}
        if name == "simpo":
            objective["target_margin"] = draw.choice((0.0, 0.3, 0.8 * beta)) if beta <= 1e6 else 0.0
        if name == "cpo":
            objective["alpha"] = draw.choice((0.0, 1.0, 1e3))
        if name in ("dpo", "hinge", "robust", "exo_pair", "discopop", "sigmoid_norm", "ipo"):
            objective["divergence"] = draw.choice(("reverse_kl", "forward_kl", "js", "alpha"))
            if objective["divergence"] == "alpha":
                objective["divergence_alpha"] = draw.choice((0.0, 0.5, 0.999999, 1.0))
        if name in ("dpo", "hinge", "robust", "exo_pair", "discopop"):
            objective["tail_weight"] = draw.choice((1.0, 0.0, 0.3))
        return {"objective": objective, "chosen": sides[0], "rejected": sides[1]}
    if name in ("sft", "ift"):
        if name == "sft":
            objective |= {
                "normalisation": draw.choice(("token", "response")), "weighting": draw.choice(("none", "dft"))
            }
        else:
            objective["propagation"] = draw.choice(
                ("released", "released", "released", "algorithm1", "equation21", "none"))
            if objective["propagation"] in ("released", "algorithm1"):
                objective["gamma"] = draw.choice((0.05, 0.95, 1.0))
            if objective["propagation"] == "released":
                objective |= {
                    "item": draw.choice(("loss", "logps", "mask")), "side": draw.choice(("left", "right")),
                    "norm": draw.choice(("L1", "L1", "L2", "softmax", "log"))
                }
        return {"objective": objective, "chosen": {"log_prob": rows(lengths())}}
    if name in ("kto", "apo_zero_unpaired", "bco"):
        objective["beta"] = beta
        side = lambda: (lambda own: {"log_prob": own, "reference_log_prob": beside(own)})(rows(lengths()))
        line = {"objective": objective, "labelled": side() | {"desirable": [draw.random() < 0.5 for _ in range(count)]}}
        return line | ({"mismatched": side()} if name == "kto" else {})
    own = rows(lengths())
    side = {"log_prob": own, "behaviour_log_prob": beside(own)}
    if name == "ppo":
        objective |= {
            "clip": draw.choice((0.2, 0.0, 1.0)), "value_coefficient": draw.choice((0.0, 1.0)),
            "entropy_coefficient": draw.choice((0.0, 0.01))
        }
        side["advantage"] = [[draw.choice((0.0, draw.gauss(0.0, 1.0))) for _ in row] for row in own]
        if objective["value_coefficient"] > 0:
            side |= {column: [[draw.gauss(0.0, 1.0) for _ in row] for row in own] for column in ("value", "return")}
            if draw.random() < 0.5:
                objective["value_clip"] = 0.2
                side["behaviour_value"] = [[draw.gauss(0.0, 1.0) for _ in row] for row in own]
        if objective["entropy_coefficient"] > 0:
            side["entropy"] = [[draw.expovariate(1.0) for _ in row] for row in own]
        return {"objective": objective, "rollouts": side}
    if name == "policy_gradient":
        return {"objective": objective | sampled(draw, side, beside), "groups": side}
    objective["beta"] = draw.choice((0.0, 0.04, 1.0))
    if objective["beta"] > 0:
        side["reference_log_prob"] = beside(own)
    if name in ("grpo", "luspo", "rloo"):
        objective |= {"clip": draw.choice((0.2, 0.0, 1.0)), "clip_high": draw.choice((0.2, 0.28, 1e6))}
    if name in ("grpo", "luspo") and draw.random() < 0.3:
        objective["delta"] = draw.choice((1.5, 1e6))
    if name == "grpo":
        objective["aggregation"] = draw.choice(("response_mean", "token_mean", "fixed_length"))
        if objective["aggregation"] == "response_mean":
            objective["ratio"] = draw.choice(("token", "sequence"))
    if name == "cispo":
        objective["max_ratio"] = draw.choice((5.0, 1.0, 1e6))
    if name == "sapo":
        objective |= {
            "positive_temperature": draw.choice((1.0, 50.0)), "negative_temperature": draw.choice((1.05, 1e-3))
        }
    if name != "rloo":
        objective["scale"] = draw.choice(("group", "batch", "none"))
    side |= {
        "group": sorted(draw.randint(0, 1) for _ in own),
        "reward": [draw.choice((0.0, 1.0, draw.gauss(0.0, 1.0))) for _ in own]
    }
    first = side["group"][0]
    side["group"] = [group - first for group in side["group"]]
    return {"objective": objective, "groups": side}


def sampled(draw, side, beside):
    """Choices of `policy_gradient` with advantages that are given, and the columns that they read."""
    region = draw.choice(("clip", "clip", "cispo", "sapo", "vespo", "geometric_mean", "total_variation", "binary_kl",
                          "quadratic", "topr", "none"))
    objective = {"advantage": "given", "trust_region": region}
    if region in ("clip", "sapo", "none"):
        objective["ratio"] = draw.choice(("token", "token", "sequence", "sequence_token", "product"))
    if region in ("clip", "geometric_mean"):
        objective |= {"clip": draw.choice((0.2, 0.0, 1.0)), "clip_high": draw.choice((0.2, 0.28, 1e6))}
    if region in ("total_variation", "binary_kl"):
        objective |= {"clip": draw.choice((0.05, 0.3))}
    if region == "sapo":
        objective |= {
            "positive_temperature": draw.choice((1.0, 50.0)), "negative_temperature": draw.choice((1.05, 1e-3))
        }
    objective["aggregation"] = draw.choice(("token_mean", "response_mean", "response_sum", "prompt_mean"))
    own = side["log_prob"]
    # A weight of the sampler's is part of the ratio of vespo, and its mean geometric under geometric_mean.
    if draw.random() < 0.4 and region not in ("vespo", "geometric_mean"):
        objective["correction"] = draw.choice(("truncate_token", "truncate_sequence", "truncate_geometric", "icepop"))
        side["rollout_log_prob"] = beside(own)
    if draw.random() < 0.5:
        objective |= {
            "beta": draw.choice((0.04, 1.0)), "divergence": draw.choice(("k1", "k2", "k3")),
            "divergence_place": draw.choice(("loss", "corrected"))
        }
        side["reference_log_prob"] = beside(own)
    number = lambda: draw.choice((0.0, 1.0, draw.gauss(0.0, 1.0)))
    side["advantage"] = [[number() for _ in row]
                         for row in own] if draw.random() < 0.5 and region != "vespo" else [[number()] for _ in own]
    if objective["aggregation"] == "prompt_mean":
        groups = sorted(draw.randint(0, 1) for _ in own)
        side["group"] = [group - groups[0] for group in groups]
    return objective


def off(given, exact):
    """Units in the last place of the condition by which a double is off; what underflows counts nothing."""
    apart = abs(mpf(given) - exact.value)
    if apart <= mpf(1e-260):
        return 0.0
    size = max(exact.condition, mpf(2)**-1022)
    return float(apart / mpf(2)**(mp.frexp(size)[1] - 53))


def judge(program, lines):
    """For each kind of objective and place: numbers, those beyond 4 units, the most units, and an example of these."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    answers = subprocess.run([program], input=text, capture_output=True, text=True, check=True).stdout.splitlines()
    worst = {}
    for line, given in zip(lines, map(json.loads, answers)):
        objective = line["objective"]
        if "error" in given:
            print(objective, given["error"])
            continue
        loss, cotangents = evaluate(line)
        found = [("loss", given["loss"], loss)]
        for side, columns in cotangents.items():
            for column, rows in columns.items():
                found += [(f"{side}.{column}", own, exact)
                          for ours, theirs in zip(given["cotangents"][side][column], rows)
                          for own, exact in zip(ours, theirs)]
        for place, own, exact in found:
            kind = " ".join(
                filter(None, (objective["name"], objective.get("trust_region"),
                              objective.get("divergence") if objective.get("beta") else None)))
            key = (kind, "loss" if place == "loss" else place.split(".")[1])
            record = worst.setdefault(key, [0, 0, 0.0, None])
            units = math.inf if own is None or not math.isfinite(own) else off(own, exact)
            record[0] += 1
            record[1] += units > 4
            if units > record[2]:
                record[2], record[3] = units, (line, own, mp.nstr(exact.value, 20), mp.nstr(exact.condition, 5))
    return worst


def check(program, count, seed, names=None):
    draw = random.Random(seed)
    worst = judge(program, [hostile(draw, names) for _ in range(count)])
    for (name, place), (numbers, beyond, units, example) in sorted(worst.items(), key=lambda entry: -entry[1][2]):
        print(f"{name:40} {place:12} {numbers:6} numbers, {beyond:5} beyond 4 units, at most {units:.3g}")
        if units > 4:
            print(f"    {json.dumps(example[0])}\n    ours {example[1]!r}, exact {example[2]}, condition {example[3]}")


KINDS = {
    "demonstrations": ["sft", "ift"], "preferences": [*PAIRS, "orpo", "tdpo", "aot", "aot_unpaired"],
    "labelled": ["kto", "apo_zero_unpaired", "bco"], "groups": [*GROUPS, "policy_gradient"], "rollouts": ["ppo"]
}
LONG = 1 << 15


def inputs(line):
    """How many numbers a token a line has."""
    sides = (side for side in line.values() if "log_prob" in side)
    columns = (column for side in sides for column in side.values() if isinstance(column[0], list))
    return sum(len(row) for column in columns for row in column)


def part(task):
    """Lines of a family: short ones until so many numbers, or one long one."""
    program, kind, seed, wanted = task
    draw, lines = random.Random(f"{kind} {seed}"), []
    if wanted is None:
        # What is summed for each token over the whole response is left to short lines.
        lines.append(hostile(draw, [name for name in KINDS[kind] if name != "policy_gradient"], LONG))
    while wanted is not None and sum(map(inputs, lines)) < wanted:
        lines.append(hostile(draw, KINDS[kind]))
    found = {key: record[:3] + [record[3] and (record[3][0] if wanted else record[3][0]["objective"], *record[3][1:])]
             for key, record in judge(program, lines).items()}
    return kind, sum(map(inputs, lines)), found


def record(program, wanted, responses, kinds):
    """Judges a program on so many inputs of each family, and writes what was found: of one family after the other, so that
    those that were recorded before stay where only some are named."""
    share = 2000
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "precise.json")
    families = {}
    if os.path.exists(path):
        with open(path) as file:
            families = json.load(file)["families"]
    with multiprocessing.Pool() as pool:
        for kind in kinds or KINDS:
            family = families[kind] = {"inputs": 0, "responses_of_32k": responses, "objectives": {}}
            tasks = [(program, kind, seed, None) for seed in range(responses)]
            for _, count, found in pool.imap_unordered(part, tasks):
                merge(family, count, found)
            seed, long = responses, family["inputs"]
            while family["inputs"] - long < wanted:
                parts = -(-(wanted + long - family["inputs"]) // share)
                tasks = [(program, kind, seed + index, share) for index in range(parts)]
                for _, count, found in pool.imap_unordered(part, tasks):
                    merge(family, count, found)
                seed += parts
            worst = max(family["objectives"].items(), key=lambda entry: entry[1]["most_units"])
            print(f"{kind:15} {family['inputs']:8} inputs, at most {worst[1]['most_units']:.3g} units: {worst[0]}", flush=True)
            with open(path, "w") as file:
                ordered = {kind: families[kind] for kind in KINDS if kind in families}
                json.dump({"mpmath": mpmath.__version__, "bits": mp.prec, "families": ordered}, file, indent=1)
                file.write("\n")


def merge(family, count, found):
    family["inputs"] += count
    for (name, place), (numbers, beyond, units, example) in found.items():
        own = family["objectives"].setdefault(f"{name} {place}", {"numbers": 0, "beyond_4_units": 0, "most_units": 0.0})
        own["numbers"] += numbers
        own["beyond_4_units"] += beyond
        if units > own["most_units"]:
            own["most_units"] = round(min(units, 1e300), 3)
            if units > 4:
                own["example"] = example


def halves(value):
    """Two doubles whose sum is the number to 106 bits."""
    first = float(value)
    return [first, float(value - mpf(first))]


def lines(count):
    """Hostile lines with their answers: of each number two doubles whose sum it is, and its condition."""
    draw, cases = random.Random(24), []
    for index in range(count):
        line = hostile(draw, list(KINDS.values())[index % len(KINDS)])
        loss, cotangents = evaluate(line)
        exact = lambda own: [*halves(own.value), min(float(own.condition), sys.float_info.max)]
        cases.append({"line": line, "loss": exact(loss), "cotangents": rows_of(cotangents, exact)})
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "precise_lines.json"), "w") as file:
        file.write('{"mpmath": "%s", "cases": [\n' % mpmath.__version__)
        file.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in cases) + "\n]}\n")


def main():
    if sys.argv[1:2] == ["record"]:
        wanted, responses, *kinds = sys.argv[3:] + ["1000000", "20"][len(sys.argv[3:]):]
        return record(sys.argv[2], int(wanted), int(responses), kinds)
    if sys.argv[1:2] == ["lines"]:
        return lines(int((sys.argv[2:] + ["300"])[0]))
    if sys.argv[1:2] == ["check"]:
        count, seed, *names = sys.argv[3:] + ["2000", "1"][len(sys.argv[3:]):]
        return check(sys.argv[2], int(count), int(seed), names or None)
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
