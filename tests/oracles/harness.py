"""What EleutherAI's harness asks a server for the paper's benchmarks, and what its own transformers answer, with the tiny checkpoints.

The tasks are the harness's, with the chat template and as many examples as experiments/evaluation/run.sh shows; the questions are made here.
"""

import pathlib
import sys
import tempfile

from generator import write
from lm_eval.api.registry import get_model

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"
sys.path[:0] = [str(EXPERIMENTS / "evaluation"), str(EXPERIMENTS / "lm_lake")]
import tasks  # noqa: E402
import tiny  # noqa: E402

PACKAGES = ["lm-eval", "transformers", "torch"]
ROWS, QUESTIONS, LONGEST = 27, 2, 1 << 15


def rows(task):
    """Sums, as the task has its data."""
    for index in range(ROWS):
        a, b = 3 + 5 * index % 17, 2 + 7 * index % 13
        choices = [f"it is {a + b + (choice - index) % 4}" for choice in range(4)]
        question = f"What is {a} plus {b}?"
        yield {
            "arc_challenge": {"question": question, "choices": {"text": choices, "label": list("ABCD")}, "answerKey": "ABCD"[index % 4]},
            "mmlu": {"question": question, "choices": choices, "answer": index % 4},
            "truthfulqa_mc2": {"question": question, "mc1_targets": None, "mc2_targets": {"choices": choices[:3], "labels": [1, 0, 0]}},
            "winogrande": {"sentence": f"Of {a} and {b + 17} the number _ is the greater.", "option1": str(a), "option2": str(b + 17), "answer": "2"},
            "gsm8k": {"question": question, "answer": f"{a} + {b} = {a + b}.\n#### {a + b}"},
        }[task.removesuffix("_chat")]


def requests(backend, options, task, folder):
    """What a client of the server sends. `answers` are the places of a body's answers among all of the task's."""
    model = get_model(backend).create_from_arg_string(options)
    sent = []
    encode = model.batch_loglikelihood_requests

    def encoded(chunks):
        inputs, lengths, keys = encode(chunks)
        sent.append({"answers": keys, "context_tokens": lengths})
        return inputs, lengths, keys

    def call(messages, generate, gen_kwargs=None):
        if generate:
            sent.append({})
        sent[-1]["body"] = model._create_payload(
            model.create_message(messages), generate=generate, gen_kwargs=dict(gen_kwargs or {}), seed=model._seed, eos=model.eos_string)
        return {}

    def generated(outputs, contexts):
        sent[-1]["answers"] = contexts
        return [""] * len(contexts)

    model.batch_loglikelihood_requests, model.model_call, model.parse_generations = encoded, call, generated
    model.parse_logprobs = lambda outputs, tokens, ctxlens: [(0.0, False)] * len(tokens)
    found = tasks.run(model, task, folder, tasks.TASKS[task][1], True, QUESTIONS)
    keys = [key for sample in tasks.samples(found, task) for key in sample["arguments"]]
    # A text that is to go on is asked by itself, and a continuation with what it is behind.
    places = {key if isinstance(key[1], str) else key[0]: place for place, key in enumerate(keys)}
    for request in sent:
        request["answers"] = [places[key] for key in request["answers"]]
    return [{"name": f"{task} by {backend}", "task": task, **request} for request in sent]


def main():
    with tempfile.TemporaryDirectory() as work:
        models = {name: f"{work}/{name}" for name in tiny.CHECKPOINTS}
        for name, folder in models.items():
            tiny.tiny(folder, name)
        completions = f"model=tiny,base_url=http://unused,tokenizer={tiny.TOKENIZER},tokenizer_backend=huggingface,batch_size=16,max_length={LONGEST}"
        sent, answers = [], {name: {} for name in models}
        for task in tasks.PAPER:
            tasks.write(work, task, list(rows(task)))
            sent += requests("local-completions", completions, task, work)
            if task in tasks.GENERATED:
                sent += requests("local-chat-completions", "model=tiny,base_url=http://unused", task, work)
            for name, folder in models.items():
                # Of a folder with Qwen2's configuration transformers reads the vocabulary alone, and splits bytes.
                model = get_model("hf").create_from_arg_string(f"pretrained={folder},tokenizer={tiny.TOKENIZER},dtype=float32,device=cpu,batch_size=4")
                found = tasks.run(model, task, work, tasks.TASKS[task][1], True, QUESTIONS)
                answers[name][task] = [answer for document in tasks.answers(found, task) for answer in document]
        write(__file__, PACKAGES, requests=sent, answers=answers)


if __name__ == "__main__":
    main()
