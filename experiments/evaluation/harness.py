"""Multiple choice by EleutherAI's harness: `lm serve` beside its own `hf` backend, in time and number by number, on a CPU.

usage: harness.py MODEL_FOLDER CHOICE_FOLDER [TASK=QUESTIONS ...]    run in the checkout, with lm-eval 0.4.13 (with api), torch 2.11
                                                                     and transformers installed; writes harness.json beside it

CHOICE_FOLDER has JSON lines of `question`, `choices` and `answer`. The tasks are the harness's own but for where their data are. Timed
is what the harness waits for (`loglikelihood` of all requests); models are loaded before. Both have the same threads, one after the
other. `hf` runs with several sizes of its batch, and is taken at its fastest.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "speed"))
HF_BATCHES, PROMPTS, CONCURRENT = (8, 32), 64, 4
LABELS = "ABCDE"


def openbookqa(row):
    choices = {"text": row["choices"], "label": list(LABELS[:len(row["choices"])])}
    return {"question_stem": row["question"], "choices": choices, "answerKey": LABELS[row["answer"]]}


# The data, how the harness's own task has a row, and that task.
TASKS = {"openbookqa": (openbookqa, "openbookqa/openbookqa.yaml"),
         "mmlu": (dict, "mmlu/continuation/_continuation_template_yaml")}


def tasks(choices, wanted, work):
    """Writes the tasks: each includes the harness's own and says where the data are."""
    import lm_eval

    harness = pathlib.Path(lm_eval.__file__).parent / "tasks"
    for name, questions in wanted.items():
        convert, own = TASKS[name]
        rows = [json.loads(line) for line in (pathlib.Path(choices) / f"{name}.jsonl").open()]
        rows = [row for row in rows if len(row["choices"]) == 4][:questions]
        data = work / f"{name}.jsonl"
        data.write_text("".join(json.dumps(convert(row)) + "\n" for row in rows))
        files = "".join(f"\n    {split}: {data}" for split in ("train", "validation", "test", "dev"))
        (work / f"{name}.yaml").write_text(f"include: {harness / own}\ntask: {name}_here\ndataset_path: json\ndataset_name: null\n"
                                           f"dataset_kwargs:\n  data_files:{files}\n")


def evaluate(backend, arguments, task, work):
    """What one backend answers, and how long it took."""
    import lm_eval
    from lm_eval.api.registry import get_model
    from lm_eval.tasks import TaskManager

    model = get_model(backend).create_from_arg_string(arguments)
    seconds, loglikelihood = [], model.loglikelihood

    def timed(requests, **others):
        begun = time.perf_counter()
        found = loglikelihood(requests, **others)
        seconds.append(time.perf_counter() - begun)
        return found

    model.loglikelihood = timed
    manager = TaskManager(include_path=work)
    found = lm_eval.simple_evaluate(model, tasks=[f"{task}_here"], task_manager=manager, bootstrap_iters=0, log_samples=True)
    samples = sorted(found["samples"][f"{task}_here"], key=lambda sample: sample["doc_id"])
    answers = [[(float(value), str(greedy) == "True") for value, greedy in sample["filtered_resps"]] for sample in samples]
    accuracies = {name: value for name, value in found["results"][f"{task}_here"].items() if name.startswith("acc") and "stderr" not in name}
    print("\n" + json.dumps({"seconds": sum(seconds), "answers": answers, "accuracies": accuracies}))


def asked(*arguments):
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, __file__, "evaluate", *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.splitlines()[-1])


def served(program, folder, evaluate):
    """What `evaluate` answers of the address of a server, and tokens that went through the model and that were known."""
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    server = subprocess.Popen([program, "serve", "--model", folder, "--name", "model", "--port", "0"], stderr=subprocess.PIPE, text=True,
                              env=environment)
    try:
        address = server.stderr.readline().split()[-1]
        found = evaluate(address)
        metrics = urllib.request.urlopen(address.removesuffix("/v1") + "/metrics").read().decode()
    finally:
        server.terminate()
        server.wait()
    counts = dict(line.rsplit(" ", 1) for line in metrics.splitlines() if not line.startswith("#"))
    return found, {name: int(counts[f"lm_{name}_tokens_total"]) for name in ("computed", "known")}


def main(folder, choices, **wanted):
    from record import write

    subprocess.run(["cargo", "build", "--quiet", "-p", "lm"], check=True)
    program = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug/lm"
    cases = []
    with tempfile.TemporaryDirectory() as work:
        tasks(choices, wanted, pathlib.Path(work))
        for task in wanted:
            here = [asked("hf", f"pretrained={folder},dtype=float32,device=cpu,batch_size={size}", task, work) for size in HF_BATCHES]
            theirs = min(here, key=lambda found: found["seconds"])
            case = {"task": task, "questions": len(theirs["answers"]), "hf_seconds": {size: found["seconds"] for size, found in zip(HF_BATCHES, here)}}
            for tokenized in (True, False):
                arguments = f"model=model,tokenizer={folder},tokenizer_backend=huggingface,max_retries=1,timeout=3600,batch_size={PROMPTS},num_concurrent={CONCURRENT},tokenized_requests={tokenized}"
                ours, tokens = served(program, folder, lambda address: asked("local-completions", f"base_url={address}/completions,{arguments}", task, work))
                pairs = [(own, other) for one, two in zip(ours["answers"], theirs["answers"], strict=True) for own, other in zip(one, two, strict=True)]
                case["ids" if tokenized else "text"] = {
                    "seconds": ours["seconds"], "speedup": theirs["seconds"] / ours["seconds"], "tokens": tokens,
                    "greatest_difference": max(abs(own[0] - other[0]) for own, other in pairs),
                    "is_greedy_differs": sum(own[1] != other[1] for own, other in pairs),
                    "accuracies": ours["accuracies"], "accuracies_agree": ours["accuracies"] == theirs["accuracies"]}
            print(json.dumps(case), flush=True)
            cases.append(case)
    write(__file__, ["lm-eval", "torch", "transformers", "datasets"], threads=os.cpu_count(), model=pathlib.Path(folder).name,
          prompts_a_request=PROMPTS, requests_at_once=CONCURRENT, cases=cases)


if __name__ == "__main__":
    if sys.argv[1] == "evaluate":
        evaluate(*sys.argv[2:])
    else:
        wanted = dict(argument.split("=") for argument in sys.argv[3:])
        main(*sys.argv[1:3], **({task: int(questions) for task, questions in wanted.items()} or dict.fromkeys(TASKS, 500)))
