"""What a step of every method costs in time and memory beside SFT's, on one model and the same pairs, in one run.

usage: cost.py MODEL_FOLDER [STEPS]    run in the checkout; writes cost.json and cost.md beside it

Methods that imitate read the chosen responses of the pairs, those that compare read both. A reference is kept (computed before the
steps) or held (a second model, asked in every step). Each figure is of a process of its own; the first step is left out.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).parent
sys.path[:0] = [str(HERE.parent / "speed"), str(HERE.parent / "lm")]
IMITATE = ["sft", "ift"]
COMPARE = ["orpo", "simpo", "cpo", "dpo", "ipo", "aot", "tdpo"]
REFERENCE = {"dpo", "ipo", "aot", "tdpo"}


def measure(program, folder, data, method, steps, words):
    objective = {"name": method} | ({"freeze_embeddings": "all"} if method == "ift" else {})
    command = [program, folder, str(data), json.dumps(objective), "rmsprop", str(steps), *words]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout)
    return {"method": method, "reference": ("held" if "held" in words else "kept") if method in REFERENCE else "none",
            "seconds": statistics.median(found["seconds"][1:]), "peak_gib": found["peak_bytes"] / 2**30}


def main(folder, steps=5):
    from record import write
    from speed import batch

    vocabulary = json.loads((pathlib.Path(folder) / "config.json").read_text())["vocab_size"]
    subprocess.run(["cargo", "build", "--quiet", "-p", "lm", "--example", "steps"], check=True)
    program = str(pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug/examples/steps")
    with tempfile.TemporaryDirectory() as work:
        data = pathlib.Path(work) / "batch.jsonl"
        data.write_text("".join(json.dumps(pair) + "\n" for pair in batch(vocabulary)))
        rows = [measure(program, folder, data, method, steps, words) for method in IMITATE + COMPARE
                for words in ([], ["held"]) if not words or method in REFERENCE]
    lines = ["| method | reference | seconds a step | of SFT's | peak memory, GiB |", "|---|---|---|---|---|"]
    for row in rows:
        row["ratio"] = row["seconds"] / rows[0]["seconds"]
        lines.append("| {method} | {reference} | {seconds:.2f} | {ratio:.2f} | {peak_gib:.2f} |".format(**row))
    (HERE / "cost.md").write_text("\n".join(lines) + "\n")
    write(__file__, [], threads=os.cpu_count(), model=pathlib.Path(folder).name, rows=rows)
    print("\n".join(lines))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
