"""Multiple choice by EleutherAI's harness, with the examples of run.sh: `lm serve` beside its own `hf` backend, in time and number by number, on a CPU.

usage: harness.py MODEL_FOLDER QUESTIONS_FOLDER [TASK=QUESTIONS ...]    run in the checkout, with lm-eval 0.4.13 (with api), torch 2.11
                                                                        and transformers installed; writes harness.json beside it

QUESTIONS_FOLDER is as tasks.py has it. Timed is what the harness waits for (`loglikelihood` of all requests); models are loaded before.
Both have the same threads, one after the other. `hf` runs with several sizes of its batch, and is taken at its fastest.
"""

import json
import os
import pathlib
import sys
import tempfile

import tasks

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "speed"))
HF_BATCHES, PROMPTS, CONCURRENT = (8, 32), 64, 4
QUESTIONS = {"openbookqa": 500, "mmlu_continuation": 100, "arc_challenge": 20}


def main(folder, questions, **wanted):
    from record import write

    lm, cases = tasks.program(), []
    with tempfile.TemporaryDirectory() as work:
        for task, count in wanted.items():
            tasks.write(work, task, tasks.rows_of(questions, task, count + 30))
            how = (task, work, tasks.TASKS[task][1], task in tasks.PAPER, count)
            here = [tasks.asked("hf", f"pretrained={folder},dtype=float32,device=cpu,batch_size={size}", *how) for size in HF_BATCHES]
            theirs = min(here, key=lambda found: found["seconds"])
            case = {"task": task, "questions": len(theirs["answers"]), "hf_seconds": {size: found["seconds"] for size, found in zip(HF_BATCHES, here)}}
            # With a chat template it sends token ids alone.
            for tokenized in (True,) if task in tasks.PAPER else (True, False):
                arguments = f"model=model,tokenizer={folder},tokenizer_backend=huggingface,max_retries=1,timeout=3600,batch_size={PROMPTS},num_concurrent={CONCURRENT},tokenized_requests={tokenized}"
                ours, tokens = tasks.served(lm, folder, lambda address: tasks.asked("local-completions", f"base_url={address}/completions,{arguments}", *how))
                case["ids" if tokenized else "text"] = {
                    "seconds": ours["seconds"], "speedup": theirs["seconds"] / ours["seconds"], "tokens": tokens, **tasks.compare(ours, theirs)}
            print(json.dumps(case), flush=True)
            cases.append(case)
    write(__file__, ["lm-eval", "torch", "transformers", "datasets"], threads=os.cpu_count(), model=pathlib.Path(folder).name,
          prompts_a_request=PROMPTS, requests_at_once=CONCURRENT, cases=cases)


if __name__ == "__main__":
    given = dict(argument.split("=") for argument in sys.argv[3:])
    main(*sys.argv[1:3], **({task: int(questions) for task, questions in given.items()} or QUESTIONS))
