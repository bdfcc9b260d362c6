"""Token ids of prompts and whole conversations by transformers, with three tiny tokenizers that are trained here."""

import json
import pathlib

from generator import write
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

PACKAGES = ["transformers", "tokenizers", "jinja2"]
HERE = pathlib.Path(__file__).parent
CHATML = """{%- if messages[0]['role'] != 'system' -%}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}
{%- endif -%}
{% for message in messages %}
    {% if message.role == 'assistant' %}
{{ '<|im_start|>assistant\\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\\n' -}}
    {% else %}
{{- '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' -}}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{- '<|im_start|>assistant\\n' -}}
{% endif %}"""
LLAMA2 = """{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}"""
SMALL = """{% for message in messages %}{{ message.role[0] }}:{{ message.content }}{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}a:{% endif %}"""
CORPUS = ["system user assistant You are a helpful assistant. What is the capital of France? The capital of France is Paris.",
          "Write a poem about the sea, the wind and the night. The wind sings where the sea begins.",
          "def add(a, b):\n    return a + b\n", "Grüße aus Zürich, naïve café, 日本語の文章、Привет мир", "one two three four five six"] * 4


def chatml(folder):
    """Bytes to tokens, as GPT-2 and Qwen2 do, and no token before a sequence."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=420, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    save(tokenizer, folder, CHATML, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|im_end|>", unk_token="<|endoftext|>")


def llama(folder):
    """A space before every text, bytes for what is unknown, and bos_token before a sequence, as Llama 2 and Mistral do. PAD is EOS."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    special = ["<unk>", "<s>", "</s>"]
    words = [word for text in CORPUS for word in text.replace("\n", " ").split(" ")]
    tokenizer.train_from_iterator(words, trainers.BpeTrainer(
        vocab_size=480, special_tokens=[*special, *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=70, show_progress=False))
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = [token for token in data["added_tokens"] if token["content"] in special]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 1)])
    save(tokenizer, folder, LLAMA2, bos_token="<s>", eos_token="</s>", pad_token="</s>", unk_token="<unk>")


def small(folder):
    """Small letters and a few pieces of words, as many as the tiny checkpoints have rows, and what is else is unknown."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    tokenizer.decoder = decoders.Metaspace(prepend_scheme="never")
    tokenizer.train_from_iterator(CORPUS[:2], trainers.BpeTrainer(
        vocab_size=96, special_tokens=["<pad>", "<s>", "</s>", "<unk>"], show_progress=False,
        initial_alphabet=[*"abcdefghijklmnopqrstuvwxyz0123456789.,:;?!'()+-*/=#$[]_▁\n"]))
    save(tokenizer, folder, SMALL, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>")


def save(tokenizer, folder, template, **special):
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 512, **special}
    if "<s>" in special.values():  # where older folders have it
        config["chat_template"] = template
    else:
        (folder / "chat_template.jinja").write_text(template)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")


def turns(*texts, system=None):
    first = [] if system is None else [{"role": "system", "content": system}]
    return first + [{"role": role, "content": text} for role, text in zip(["user", "assistant"] * len(texts), texts)]


CONVERSATIONS = {
    "one turn": turns("What is the capital of France?", "The capital of France is Paris."),
    "a system turn": turns("Hi!", "Hello.", system="You are terse."),
    "an empty system turn": turns("Hi!", "Hello.", system=""),
    "three turns": turns("one", "two", "three", "four", "five", "six"),
    "unicode": turns("Grüße aus Zürich — naïve café?", "日本語の文章。Привет, мир! ∀x∈ℝ"),
    "emoji": turns("🙂👩‍👩‍👧‍👦🏳️‍🌈", "🚀 ok 👍🏽"),
    "combining accents": turns("e\u0301 and \u00e9", "\u0301 begins with one"),
    "line breaks and code": turns("Write add.", "def add(a, b):\n    return a + b\n\n\n# end"),
    "digits and runs of spaces": turns("1234567  +   89", "It's  42,\tI'd say 3.14"),
    "control characters of a template": turns("{{ 7 * 7 }} {% if %} <b>&amp;'\"", "{# no #}"),
}
PASSAGES = {
    "a word goes on": ["The capital of France", " is Paris."],
    "no space between": ["x = ", "42"],
    "a line break between": ["Question: why?\n", "Because."],
    "a response of Unicode": ["Translate: hello ->", " 日本語 🙂"],
    "an empty prompt": ["", "Once upon a time"],
}


def answers(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ids = lambda messages, **more: tokenizer.apply_chat_template(messages, return_dict=True, **more)["input_ids"]
    conversations = []
    for name, messages in CONVERSATIONS.items():
        case = {"name": name, "messages": messages,
                "rendered": tokenizer.apply_chat_template(messages, tokenize=False),
                "prompt": ids(messages[:-1], add_generation_prompt=True), "whole": ids(messages)}
        if "generation %}" in tokenizer.chat_template:
            case["assistant"] = tokenizer.apply_chat_template(
                messages, return_dict=True, return_assistant_tokens_mask=True)["assistant_masks"]
        conversations.append(case)
    passages = [{"name": name, "prompt": prompt, "response": response, "prompt_ids": tokenizer(prompt)["input_ids"],
                 "whole_ids": tokenizer(prompt + response)["input_ids"]} for name, (prompt, response) in PASSAGES.items()]
    return {"bos": tokenizer.bos_token_id, "eos": tokenizer.eos_token_id, "pad": tokenizer.pad_token_id,
            "conversations": conversations, "passages": passages}


if __name__ == "__main__":
    folders = {make.__name__: HERE / "tokenizers" / make.__name__ for make in (chatml, llama, small)}
    for make in (chatml, llama, small):
        make(folders[make.__name__])
    write(__file__, PACKAGES, **{name: answers(folder) for name, folder in folders.items()})
