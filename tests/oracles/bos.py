"""What tokenizers write before a text where tokenizer_config.json and the post-processor of tokenizer.json disagree."""

import json
import pathlib
import tempfile

from generator import write
from transformers import AutoTokenizer

FOLDER = pathlib.Path(__file__).parent / "tokenizers" / "llama"
BEGIN, END = {"SpecialToken": {"id": "<s>", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}
UNKNOWN = {"SpecialToken": {"id": "<unk>", "type_id": 0}}
TEXT = {"Sequence": {"id": "A", "type_id": 0}}
POST_PROCESSORS = {"none": None, "bos": [BEGIN, TEXT], "nothing": [TEXT], "another": [UNKNOWN, TEXT], "two": [UNKNOWN, BEGIN, TEXT]}
SETTINGS = {"nothing": {}, "bos": {"add_bos_token": True}, "no bos": {"add_bos_token": False}, "null": {"add_bos_token": None},
            "no eos": {"add_eos_token": False}, "bos, no eos": {"add_bos_token": True, "add_eos_token": False},
            "bos without one": {"add_bos_token": True, "bos_token": None}, "nothing without one": {"bos_token": None}}
# None is a file without a class.
CLASSES = ["PreTrainedTokenizerFast", None, "LlamaTokenizer", "LlamaTokenizerFast", "GemmaTokenizer", "GemmaTokenizerFast", "Qwen2Tokenizer",
           "Qwen2TokenizerFast", "GPT2Tokenizer", "GPT2TokenizerFast", "CohereTokenizerFast", "GPTNeoXTokenizer", "GPTNeoXTokenizerFast",
           "CodeLlamaTokenizer", "CodeLlamaTokenizerFast", "BloomTokenizerFast", "TokenizersBackend"]
TEXTS = ["The capital", "<s>The capital", " a", ""]


def post_processor(single):
    if single is None:
        return None
    special = {name: {"id": name, "ids": [index], "tokens": [name]} for index, name in enumerate(["<unk>", "<s>", "</s>"])}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}


def tokenizer(processor, settings):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        vocabulary = json.loads((FOLDER / "tokenizer.json").read_text())
        vocabulary["post_processor"] = post_processor(POST_PROCESSORS[processor])
        (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
        config = json.loads((FOLDER / "tokenizer_config.json").read_text()) | settings
        absent = [key for key in ("bos_token", "tokenizer_class") if config[key] is None]
        (folder / "tokenizer_config.json").write_text(json.dumps({key: value for key, value in config.items() if key not in absent}))
        return AutoTokenizer.from_pretrained(folder)


def answers(processor, settings):
    whole = tokenizer(processor, settings)
    return [whole(text)["input_ids"] for text in TEXTS]


def prefix(processor, settings):
    """What stands before a text. Some classes make tokens of their own of the text itself."""
    whole = tokenizer(processor, settings)
    ids, text = whole("a")["input_ids"], whole("a", add_special_tokens=False)["input_ids"]
    assert ids[len(ids) - len(text):] == text
    return ids[: len(ids) - len(text)]


if __name__ == "__main__":
    cases = [{"name": f"{processor}; {settings}", "post_processor": processor, "settings": fields, "ids": answers(processor, fields)}
             for processor in POST_PROCESSORS for settings, fields in SETTINGS.items()]
    classes = [{"class": name, "post_processor": processor, "settings": SETTINGS[settings],
                "prefix": prefix(processor, {"tokenizer_class": name} | SETTINGS[settings])}
               for name in CLASSES for processor in ("none", "bos", "nothing") for settings in ("nothing", "bos", "no bos")]
    write(__file__, ["transformers", "tokenizers"], texts=TEXTS, cases=cases, classes=classes,
          post_processors={name: post_processor(single) for name, single in POST_PROCESSORS.items()})
