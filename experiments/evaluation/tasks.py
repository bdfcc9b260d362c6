"""EleutherAI's harness on rows of local files: its own tasks, of which only the place of the data is another, answered by any of its backends.

Imported by harness.py, parity.py and tests/oracles/harness.py; run by itself, it is one evaluation in a process of its own.
"""

import json
import os
import pathlib
import subprocess
import sys
import time
import urllib.request

# The harness's file of a task, and how many examples the paper shows before a question: as run.sh has them.
TASKS = {
    "arc_challenge": ("arc/arc_challenge.yaml", 25),
    "arc_challenge_chat": ("arc/arc_challenge_chat.yaml", 0),
    "mmlu": ("mmlu/default/_default_template_yaml", 5),
    "truthfulqa_mc2": ("truthfulqa/truthfulqa_mc2.yaml", 0),
    "winogrande": ("winogrande/default.yaml", 5),
    "gsm8k": ("gsm8k/gsm8k.yaml", 5),
    "openbookqa": ("openbookqa/openbookqa.yaml", 0),
    "mmlu_continuation": ("mmlu/continuation/_continuation_template_yaml", 0),
}
PAPER = ("arc_challenge", "arc_challenge_chat", "mmlu", "truthfulqa_mc2", "winogrande", "gsm8k")
GENERATED = ("arc_challenge_chat", "gsm8k")
LABELS = "ABCDE"


def write(folder, name, rows):
    """Writes a task on these rows, in the layout that its data have on the hub. It goes before the harness's of this name. Each row is in every split."""
    import lm_eval

    folder = pathlib.Path(folder)
    data = folder / f"{name}.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    splits = "".join(f"\n    {split}: {data}" for split in ("train", "validation", "test", "dev"))
    own = pathlib.Path(lm_eval.__file__).parent / "tasks" / TASKS[name][0]
    (folder / f"{name}.yaml").write_text(
        f"include: {own}\ntask: {name}\ndataset_path: json\ndataset_name: null\ndataset_kwargs:\n  data_files:{splits}\n")


def run(model, task, folder, shots, template, questions):
    """The harness's own result of so many questions of a written task. `model` is one of its objects."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    return lm_eval.simple_evaluate(model, tasks=[task], task_manager=TaskManager(include_path=str(folder)), num_fewshot=shots,
                                   apply_chat_template=template, bootstrap_iters=0, log_samples=True, limit=questions)


def samples(found, task):
    """What was asked and answered, by document and in its order."""
    # Every filter has every sample.
    by_document = {sample["doc_id"]: sample for sample in found["samples"][task]}
    return [by_document[index] for index in sorted(by_document)]


def answers(found, task):
    """What each request of each document was answered: log-likelihood and whether it is greedy, or a text."""
    answer = lambda told: told if isinstance(told, str) else (float(told[0]), str(told[1]) == "True")
    return [[answer(request[0]) for request in sample["resps"]] for sample in samples(found, task)]


def evaluate(backend, arguments, task, folder, shots, template, questions):
    """Prints what one backend answers, its metrics, and what the harness waited for it; models are read before."""
    from lm_eval.api.registry import get_model

    model = get_model(backend).create_from_arg_string(arguments)
    seconds = []

    def timed(answer):
        def call(*arguments, **options):
            begun = time.perf_counter()
            found = answer(*arguments, **options)
            seconds.append(time.perf_counter() - begun)
            return found
        return call

    model.loglikelihood, model.generate_until = timed(model.loglikelihood), timed(model.generate_until)
    found = run(model, task, folder, int(shots), template == "True", int(questions))
    metrics = {name: value for name, value in found["results"][task].items() if isinstance(value, float) and "stderr" not in name}
    print("\n" + json.dumps({"seconds": sum(seconds), "answers": answers(found, task), "metrics": metrics}))


def asked(*arguments):
    """`evaluate` in a process of its own."""
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    command = [sys.executable, __file__, *map(str, arguments)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout.splitlines()[-1])


def program():
    """`lm`, built in the checkout."""
    subprocess.run(["cargo", "build", "--quiet", "-p", "lm"], check=True)
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", "target")) / "debug/lm"


def served(lm, folder, evaluate):
    """What `evaluate` answers of the address of a server of a model, and tokens that went through the model and that were known."""
    environment = os.environ | {"OMP_WAIT_POLICY": "passive"}
    server = subprocess.Popen([lm, "serve", "--model", folder, "--name", "model", "--port", "0"], stderr=subprocess.PIPE, text=True,
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


def compare(ours, theirs):
    """How far two backends' answers are from each other."""
    pairs = [pair for one, two in zip(ours["answers"], theirs["answers"], strict=True) for pair in zip(one, two, strict=True)]
    scored = [(own, other) for own, other in pairs if not isinstance(own, str)]
    written = [(own, other) for own, other in pairs if isinstance(own, str)]
    return {
        "requests": len(pairs),
        **({"greatest_difference": max(abs(own[0] - other[0]) for own, other in scored),
            "is_greedy_differs": sum(own[1] != other[1] for own, other in scored)} if scored else {}),
        **({"texts_differ": sum(own != other for own, other in written)} if written else {}),
        "metrics": ours["metrics"], "metrics_differ_by": max(abs(value - theirs["metrics"][name]) for name, value in ours["metrics"].items())}


def rows_of(folder, task, questions):
    """The first questions of local files as a task has them: JSON lines of `question`, `choices` and `answer`, in `choice` and `generate`.

    ARC's are OpenBookQA's, which have the same form; TruthfulQA's and WinoGrande's are made of CommonsenseQA's, GSM8K's are ASDiv's.
    """
    source, convert = FORMS[task]
    rows = [json.loads(line) for line in (pathlib.Path(folder) / source).open()]
    return [convert(row) for row in rows if len(row.get("choices", LABELS[:4])) >= 4][:questions]


def arc(row):
    labels = list(LABELS[:len(row["choices"])])
    return {"question": row["question"], "choices": {"text": row["choices"], "label": labels}, "answerKey": LABELS[row["answer"]]}


def openbookqa(row):
    return {"question_stem": row["question"], **{name: value for name, value in arc(row).items() if name != "question"}}


def truthfulqa(row):
    order = [row["answer"], *(index for index in range(len(row["choices"])) if index != row["answer"])]
    targets = {"choices": [row["choices"][index] for index in order], "labels": [1, 1] + [0] * (len(order) - 2)}
    return {"question": row["question"], "mc1_targets": targets, "mc2_targets": targets}


def winogrande(row):
    options = [row["choices"][row["answer"]], row["choices"][(row["answer"] + 1) % len(row["choices"])]]
    first = len(row["question"]) % 2
    return {"sentence": f"Asked \"{row['question']}\", they said that _ is the answer.", "option1": options[first],
            "option2": options[1 - first], "answer": str(first + 1)}


FORMS = {
    "arc_challenge": ("choice/openbookqa.jsonl", arc),
    "arc_challenge_chat": ("choice/openbookqa.jsonl", arc),
    "mmlu": ("choice/mmlu.jsonl", dict),
    "truthfulqa_mc2": ("choice/commonsenseqa.jsonl", truthfulqa),
    "winogrande": ("choice/commonsenseqa.jsonl", winogrande),
    "gsm8k": ("generate/asdiv.jsonl", lambda row: {"question": row["question"], "answer": f"#### {str(row['answer']).split()[0]}"}),
    "openbookqa": ("choice/openbookqa.jsonl", openbookqa),
    "mmlu_continuation": ("choice/mmlu.jsonl", dict),
}

if __name__ == "__main__":
    evaluate(*sys.argv[1:])
