"""What OpenAI's own client sends a server, recorded, or asked of a server.

openai_client.py              records openai_client.json
openai_client.py URL MODEL    asks a running `lm serve` of a chat model, and fails where the client does
"""

import asyncio
import http.server
import json
import sys
import threading

import openai

from generator import write

TURNS = [{"role": "system", "content": "x"}, {"role": "user", "content": "hi"}]
LIMIT = {"max_tokens": 4, "temperature": 0}

# Fields of chat completions that ask for nothing, as OpenAI documents them.
CHAT = {
    "audio": [None], "frequency_penalty": [None, 0, 0.0], "function_call": [None, "none", "auto"], "functions": [None, []],
    "logit_bias": [None, {}, {"5": 0}], "logprobs": [None, False], "max_completion_tokens": [None], "max_tokens": [None], "metadata": [None, {}, {"run": "a"}],
    "modalities": [None, ["text"]], "n": [None, 1], "parallel_tool_calls": [None, True, False], "prediction": [None, {"type": "content", "content": "a"}],
    "presence_penalty": [None, 0], "prompt_cache_key": [None, "a"], "prompt_cache_retention": [None, "24h"], "reasoning_effort": [None, "none"],
    "response_format": [None, {"type": "text"}], "safety_identifier": [None, "a"], "seed": [None, -1, 7], "service_tier": [None, "auto", "default"],
    "stop": [None, [], "zz", ["zz"]], "store": [None, False], "stream": [None, False], "stream_options": [None, {}, {"include_usage": False}],
    "temperature": [None, 1], "tool_choice": [None, "none", "auto"], "tools": [None, []], "top_logprobs": [None, 0], "top_p": [None, 1], "user": [None, "a"],
    "verbosity": [None, "medium"], "web_search_options": [None],
}
COMPLETIONS = {
    "best_of": [None, 1], "echo": [None, False], "frequency_penalty": [None, 0], "logit_bias": [None, {}], "logprobs": [None, 0], "max_tokens": [None],
    "n": [None, 1], "presence_penalty": [None, 0], "seed": [None, -1, 7], "stop": [None, []], "stream": [None, False], "stream_options": [None],
    "suffix": [None, ""], "temperature": [None, 1], "top_p": [None, 1], "user": [None, "a"],
}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
# Values that would change the answer. The server refuses them by name.
REFUSED_CHAT = {
    "audio": {"voice": "alloy", "format": "wav"}, "frequency_penalty": 0.5, "function_call": {"name": "f"}, "functions": [{"name": "f"}],
    "logit_bias": {"5": 10}, "modalities": ["text", "audio"], "n": 2, "presence_penalty": -1, "reasoning_effort": "high",
    "response_format": {"type": "json_object"}, "store": True, "tool_choice": "required", "tools": [TOOL], "top_logprobs": 21, "verbosity": "low",
    "web_search_options": {}, "seed": -2, "stream_options": {"include_usage": True},
}
REFUSED_COMPLETIONS = {"best_of": 2, "logit_bias": {"5": 10}, "suffix": "a", "n": 3, "presence_penalty": 1, "logprobs": 6}
# Turns of a conversation that ask for nothing more than their text.
ASSISTANT = {"role": "assistant", "content": "ho"}
CONVERSATIONS = {
    "nulls of a dumped answer": [{**ASSISTANT, "annotations": None, "audio": None, "function_call": None, "refusal": None, "tool_calls": None}],
    "empty lists of a dumped answer": [{**ASSISTANT, "annotations": [], "tool_calls": []}],
    "an answer of a tool": [ASSISTANT, {"role": "tool", "content": "3", "tool_call_id": "a"}],
    "parts and names": [{**ASSISTANT, "name": "a"}, {"role": "user", "name": "b", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}],
}
CALL = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
REFUSED_TURNS = {
    "messages[2].tool_calls": {**ASSISTANT, "content": None, "tool_calls": [CALL]},
    "messages[2].function_call": {**ASSISTANT, "function_call": {"name": "f", "arguments": "{}"}},
    "messages[2].refusal": {**ASSISTANT, "refusal": "no"},
    "messages[2].content": {**ASSISTANT, "content": None},
    "messages[2].audio": {**ASSISTANT, "audio": {"id": "a"}},
    "messages[2].content[0].type": {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a"}}]},
    "messages[2].role": {"role": "function", "name": "f", "content": "3"},
}


def dumped(client, model):
    """A conversation that goes on with what was answered, as most programs keep it."""
    answer = client.chat.completions.create(model=model, messages=TURNS, **LIMIT)
    turns = TURNS + [answer.choices[0].message.model_dump(), {"role": "user", "content": "go on"}]
    client.chat.completions.create(model=model, messages=turns, **LIMIT)
    client.chat.completions.create(model=model, messages=TURNS + [answer.choices[0].message, {"role": "user", "content": "go on"}], **LIMIT)


def accepted(client, model):
    """Requests that every server of the API answers, by name."""
    chat, complete = client.chat.completions.create, client.completions.create
    yield "a conversation that is dumped and goes on", lambda: dumped(client, model)
    for field, values in CHAT.items():
        for value in values:
            yield f"chat with {field} {json.dumps(value)}", lambda: chat(model=model, messages=TURNS, **{**LIMIT, field: value})
    yield "chat with nulls alone", lambda: chat(model=model, messages=TURNS, **{**dict.fromkeys(CHAT), "max_tokens": 4})
    yield "chat without defaults", lambda: chat(model=model, messages=TURNS, **LIMIT)
    yield "chat with an unknown null", lambda: chat(model=model, messages=TURNS, extra_body={"another": None}, **LIMIT)
    for name, turns in CONVERSATIONS.items():
        yield name, lambda: chat(model=model, messages=TURNS + turns + [{"role": "user", "content": "go on"}], **LIMIT)
    yield "chat with log-probabilities", lambda: chat(model=model, messages=TURNS, logprobs=True, top_logprobs=3, **LIMIT)
    yield "a streamed chat", lambda: list(chat(model=model, messages=TURNS, stream=True, logprobs=True, stream_options={"include_usage": True, "include_obfuscation": True}, **LIMIT))
    for field, values in COMPLETIONS.items():
        for value in values:
            yield f"completion with {field} {json.dumps(value)}", lambda: complete(model=model, prompt="hi", **{**LIMIT, field: value})
    yield "completion of several prompts", lambda: complete(model=model, prompt=["hi", "ho"], logprobs=2, echo=True, **LIMIT)
    yield "completion of token ids", lambda: complete(model=model, prompt=[[10, 11], [12]], **LIMIT)
    yield "a streamed completion", lambda: list(complete(model=model, prompt="hi", stream=True, logprobs=1, **LIMIT))
    yield "models", lambda: list(client.models.list())
    yield "a model", lambda: client.models.retrieve(model)
    yield "the asynchronous client", lambda: asyncio.run(asynchronous(client, model))


async def asynchronous(client, model):
    async with openai.AsyncOpenAI(base_url=client.base_url, api_key=client.api_key) as own:
        await own.chat.completions.create(model=model, messages=TURNS, **LIMIT)


def refused(client, model):
    """Requests that ask for what is not supported, by the name that the refusal has."""
    for field, value in REFUSED_CHAT.items():
        yield field, lambda: client.chat.completions.create(model=model, messages=TURNS, **{**LIMIT, field: value, "logprobs": field == "top_logprobs"})
    for field, turn in REFUSED_TURNS.items():
        yield field, lambda: client.chat.completions.create(model=model, messages=TURNS + [turn], **LIMIT)
    for field, value in REFUSED_COMPLETIONS.items():
        yield field, lambda: client.completions.create(model=model, prompt="hi", **{**LIMIT, field: value})


class Recorder(http.server.BaseHTTPRequestHandler):
    """Answers as little as the client reads, and keeps what was sent."""

    protocol_version = "HTTP/1.1"
    requests = []

    def do_GET(self):
        self.answer({"id": "tiny", "object": "model", "data": []})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        message = {"role": "assistant", "content": "ho"}
        self.answer({"id": "a", "object": "a", "created": 0, "model": "tiny", "choices": [{"index": 0, "message": message, "text": "", "finish_reason": "stop"}]}, body)

    def answer(self, value, body=None):
        kept = ["accept", "content-type", "host", "origin"]
        headers = {name.lower(): text for name, text in self.headers.items() if name.lower() in kept}
        headers["host"] = headers["host"].split(":")[0]
        self.requests.append({"method": self.command, "path": self.path, "headers": headers, "body": body})
        is_streamed = bool(body and body.get("stream"))
        text = ("data: [DONE]\n\n" if is_streamed else json.dumps(value)).encode()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream" if is_streamed else "application/json")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


def record():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recorder)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.server_port}/v1", api_key="unused", max_retries=0)

    def sent(cases):
        for name, call in cases:
            Recorder.requests.clear()
            call()
            for request in Recorder.requests:
                yield {"name": name, **request}

    write(__file__, ["openai"], accepted=list(sent(accepted(client, "tiny"))), refused=list(sent(refused(client, "tiny"))))


def ask(url, model):
    client = openai.OpenAI(base_url=url, api_key="unused", max_retries=0)
    for name, call in accepted(client, model):
        try:
            call()
        except openai.APIError as error:
            sys.exit(f"{name}: {error}")
    for name, call in refused(client, model):
        try:
            call()
        except openai.BadRequestError as error:
            if error.param != name:
                sys.exit(f"{name}: {error}")
        else:
            sys.exit(f"{name} is accepted")
    answer = client.chat.completions.create(model=model, messages=TURNS, seed=-1, max_tokens=8, logprobs=True)
    again = client.chat.completions.create(model=model, messages=TURNS, seed=answer.seed, max_tokens=8, logprobs=True)
    if answer.choices[0].message.content != again.choices[0].message.content:
        sys.exit("the seed that was drawn makes another answer")
    print("the client was answered")


if __name__ == "__main__":
    ask(*sys.argv[1:]) if len(sys.argv) > 1 else record()
