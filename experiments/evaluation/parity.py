"""The paper's benchmarks by EleutherAI's harness, answered by `lm serve` and by its own `hf` backend: is every answer the same?

usage: parity.py QUESTIONS_FOLDER COUNT MODEL_FOLDER ...    run in the checkout, with lm-eval 0.4.13 (with api), torch 2.11 and
                                                            transformers installed; writes parity.json beside it

Examples before a question, and the chat template, are as in run.sh; QUESTIONS_FOLDER is as tasks.py has it. Beside the models that are
given, each of the project's tiny checkpoints answers, with its tokenizer of few tokens. Where a text is asked for, it comes from
`local-chat-completions` as well.
"""

import json
import os
import pathlib
import sys
import tempfile

import tasks

ROOT = pathlib.Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "experiments/speed"), str(ROOT / "experiments/lm_lake")]


def main(questions, count, *folders):
    import tiny
    from record import write

    lm, cases = tasks.program(), []
    with tempfile.TemporaryDirectory() as work:
        for task in tasks.PAPER:
            # Some more, as examples.
            tasks.write(work, task, tasks.rows_of(questions, task, int(count) + 30))
        # In a folder with Qwen2's configuration, transformers reads only a tokenizer's vocabulary, so the tiny models'
        # tokenizer is given explicitly.
        models = {pathlib.Path(folder).name: (folder, folder) for folder in folders}
        for name in tiny.CHECKPOINTS:
            models[name] = f"{work}/{name}", tiny.TOKENIZER
            tiny.tiny(models[name][0], name)
        for name, (folder, tokenizer) in models.items():
            longest = json.loads((pathlib.Path(folder) / "config.json").read_text())["max_position_embeddings"]
            for task in tasks.PAPER:
                how = (task, work, tasks.TASKS[task][1], True, count)
                theirs = tasks.asked("hf", f"pretrained={folder},tokenizer={tokenizer},dtype=float32,device=cpu,batch_size=8", *how)
                backends = {"local-completions": f"completions,tokenizer={tokenizer},tokenizer_backend=huggingface,batch_size=16,max_length={longest}"}
                if task in tasks.GENERATED:
                    backends["local-chat-completions"] = "chat/completions,batch_size=1"
                for backend, arguments in backends.items():
                    ask = lambda address: tasks.asked(backend, f"base_url={address}/{arguments},model=model,max_retries=1,timeout=3600,num_concurrent=4", *how)
                    ours, _ = tasks.served(lm, folder, ask)
                    case = {"model": name, "task": task, "backend": backend, **tasks.compare(ours, theirs)}
                    print(json.dumps(case), flush=True)
                    cases.append(case)
    write(__file__, ["lm-eval", "torch", "transformers", "datasets"], threads=os.cpu_count(), questions=int(count), cases=cases)


if __name__ == "__main__":
    main(*sys.argv[1:])
