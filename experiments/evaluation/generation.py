"""How many tokens a second are generated for 1, 8 and 32 clients: `lm serve` beside transformers, on a CPU.

usage: generation.py MODEL_FOLDER QUESTIONS_FOLDER [ROUNDS]    run in the checkout, with torch 2.11 and transformers installed; writes
                                                               generation.json beside it

Every question of QUESTIONS_FOLDER (as tasks.py has it) is one turn of a conversation, and the most probable answer of at most TOKENS
tokens is taken. A client of the server asks one question at a time; transformers answer as many at once as there are clients, as one batch
of `generate`. Both have the same threads and answer in turn, ROUNDS times; the median is taken. The time is from the first question to the last answer.
"""

import concurrent.futures
import json
import os
import pathlib
import statistics
import subprocess
import sys
import time
import urllib.request

import tasks

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "speed"))
QUESTIONS, TOKENS = {1: 8, 8: 32, 32: 64}, 64


def transformers_answers(folder):
    """Reads lists of questions and how many to answer at once, line by line, and answers each with texts, tokens and seconds."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    for line in sys.stdin:
        questions, at_once = json.loads(line)
        texts, tokens, begun = [], 0, time.perf_counter()
        for first in range(0, len(questions), at_once):
            turns = [[{"role": "user", "content": question}] for question in questions[first:first + at_once]]
            prompts = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=True, padding=True)
            with torch.inference_mode():
                answers = model.generate(**prompts, max_new_tokens=TOKENS, do_sample=False)[:, prompts["input_ids"].shape[1]:]
            for answer in answers.tolist():
                # What stands behind the end is padding.
                length = answer.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in answer else len(answer)
                tokens += length
                texts.append(tokenizer.decode(answer[:length], skip_special_tokens=True))
        print(json.dumps([texts, tokens, time.perf_counter() - begun]), flush=True)


def server_answers(address, questions, clients):
    def ask(question):
        body = {"messages": [{"role": "user", "content": question}], "max_tokens": TOKENS, "temperature": 0}
        request = urllib.request.Request(f"{address}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"})
        answer = json.load(urllib.request.urlopen(request))
        return answer["choices"][0]["message"]["content"], answer["usage"]["completion_tokens"]

    begun = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor(clients) as pool:
        answers = list(pool.map(ask, questions))
    return [text for text, _ in answers], sum(tokens for _, tokens in answers), time.perf_counter() - begun


def main(folder, source, rounds=3):
    from record import write

    questions = [row["question"] for row in tasks.rows_of(source, "gsm8k", sum(QUESTIONS.values()) * int(rounds) + 1)]
    environment = os.environ | {"OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false"}
    peer = subprocess.Popen([sys.executable, __file__, "transformers", folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)

    def peer_answers(questions, at_once):
        peer.stdin.write(json.dumps([questions, at_once]) + "\n")
        peer.stdin.flush()
        return json.loads(peer.stdout.readline())

    def measure(address):
        # The first answers of both are not timed.
        first = [questions.pop()]
        server_answers(address, first, 1), peer_answers(first, 1)
        cases = []
        for clients, count in QUESTIONS.items():
            case = {"clients": clients, "questions": count, "tokens": 0, "texts_differ": 0}
            speeds = {"lm": [], "transformers": []}
            for _ in range(int(rounds)):
                # New ones each time: nothing of them is known.
                asked = [questions.pop() for _ in range(count)]
                ours, theirs = server_answers(address, asked, clients), peer_answers(asked, clients)
                case["tokens"] += ours[1]
                case["texts_differ"] += sum(own != other for own, other in zip(ours[0], theirs[0], strict=True))
                for name, (_, tokens, seconds) in (("lm", ours), ("transformers", theirs)):
                    speeds[name].append(tokens / seconds)
            case |= {f"{name}_tokens_a_second": statistics.median(found) for name, found in speeds.items()}
            case["speedup"] = statistics.median(own / other for own, other in zip(*speeds.values()))
            print(json.dumps(case), flush=True)
            cases.append(case)
        return cases

    cases, _ = tasks.served(tasks.program(), folder, measure)
    peer.stdin.close()
    peer.wait()
    write(__file__, ["torch", "transformers"], threads=os.cpu_count(), model=pathlib.Path(folder).name, tokens_an_answer=TOKENS, rounds=int(rounds), cases=cases)


if __name__ == "__main__":
    if sys.argv[1] == "transformers":
        transformers_answers(sys.argv[2])
    else:
        main(*sys.argv[1:])
