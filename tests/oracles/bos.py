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
TEXTS = ["The capital", "<s>The capital", " a", ""]


def post_processor(single):
    if single is None:
        return None
    special = {name: {"id": name, "ids": [index], "tokens": [name]} for index, name in enumerate(["<unk>", "<s>", "</s>"])}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": special}


def answers(processor, settings):
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        vocabulary = json.loads((FOLDER / "tokenizer.json").read_text())
        vocabulary["post_processor"] = processor
        (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
        config = json.loads((FOLDER / "tokenizer_config.json").read_text()) | settings
        (folder / "tokenizer_config.json").write_text(json.dumps({key: value for key, value in config.items() if (key, value) != ("bos_token", None)}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return [tokenizer(text)["input_ids"] for text in TEXTS]


if __name__ == "__main__":
    cases = [{"name": f"{processor}; {settings}", "post_processor": post_processor(single), "settings": fields,
              "ids": answers(post_processor(single), fields)}
             for processor, single in POST_PROCESSORS.items() for settings, fields in SETTINGS.items()]
    write(__file__, ["transformers", "tokenizers"], texts=TEXTS, cases=cases)
