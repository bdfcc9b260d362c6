"""Time and memory of the statistics head, which makes logits chunk by chunk, beside the plain one, which makes all of them at once.

usage: head.py    run in the checkout; writes head.json beside it. Each figure is of a process of its own, in turn; the first repeat is left out.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "speed"))
HIDDEN, TOKENS, REPEATS = 1024, 2048, 4


def main():
    from record import write

    subprocess.run(["cargo", "build", "--quiet", "-p", "lm", "--example", "head"], check=True)
    program = str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug/examples/head")
    cases = []
    for vocabulary in (32_000, 128_256):
        for work in ("score", "train"):
            case = {"vocabulary": vocabulary, "pass": work}
            for head in ("chunked", "plain"):
                command = [program, head, work, *map(str, (vocabulary, HIDDEN, TOKENS, REPEATS))]
                environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
                found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)
                case[head] = {"seconds": statistics.median(found["seconds"][1:]), "peak_gib": found["peak_bytes"] / 2**30, "sum": found["sum"]}
            case["time_ratio"] = case["chunked"]["seconds"] / case["plain"]["seconds"]
            case["memory_ratio"] = case["chunked"]["peak_gib"] / case["plain"]["peak_gib"]
            print(json.dumps(case), flush=True)
            cases.append(case)
    write(__file__, [], threads=os.cpu_count(), hidden=HIDDEN, tokens=TOKENS, cases=cases)


if __name__ == "__main__":
    main()
