"""The lake's own policies and a language model's side by side, by method, and whether one order foretells the other.

usage: table.py LAKE_RESULT.json LM_RESULT.json    as `lake --json` and `lake measure --json` print them
"""

import itertools
import json
import pathlib
import sys


def told(mean, ci95):
    return f"{mean:.4f}" + ("" if ci95 is None else f" ± {ci95:.4f}")


def links(report):
    """Which of two methods ends closer, and whether the interval of their paired difference leaves 0 out."""
    return {frozenset((pair["closer"], pair["further"])): (pair["closer"], pair["ci95"] is not None and pair["difference"] > pair["ci95"])
            for pair in report["paired"]}


def main(*files):
    lake, lm = (json.loads(pathlib.Path(file).read_text()) for file in files)
    of = {row["method"]: row for row in lm["results"]}
    start = lake["results"][0]["initial_distance"]
    print("| method | lake: distance | success greedy/sampled | language model: distance | success greedy/sampled |")
    print("|---|---|---|---|---|")
    rows = [(row["method"], row["distance"], row["success_rate"], of[row["method"]]) for row in lake["results"]]
    for method, distance, success, other in rows + [("untrained", start, None, of["base"])]:
        fares = lambda rate: f"{rate['greedy']:.3f} / {rate['sampled']:.3f}" if rate else ""
        print(f"| {method} | {told(distance['mean'], distance['ci95'])} | {fares(success)} "
              f"| {told(other['distance']['mean'], other['distance']['ci95'])} | {fares(other['success_rate'])} |")
    ours, theirs = links(lake), links(lm)
    pairs = [frozenset(pair) for pair in itertools.combinations([row[0] for row in rows], 2)]
    same = [pair for pair in pairs if ours[pair][0] == theirs[pair][0]]
    of_lake = [pair for pair in pairs if ours[pair][1]]
    of_both = [pair for pair in of_lake if theirs[pair][1]]
    print(f"\nOf {len(pairs)} pairs of methods {len(same)} are in the same order on both; of the {len(of_lake)} pairs whose order is "
          f"significant on the lake (95% intervals of paired differences), {sum(pair in same for pair in of_lake)} are, and of the "
          f"{len(of_both)} whose order is significant on both, {sum(pair in same for pair in of_both)}. Runs: "
          f"{len(rows[0][1]['per_seed'])} on the lake, {len(rows[0][3]['distance']['per_seed'])} of the language model.")


main(*sys.argv[1:])
