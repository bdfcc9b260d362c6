"""A tiny language model and its tokenizer, and the examples of `examples/hosts`."""

import importlib.util
import sys
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import objective_lake as ol

HOSTS = Path(__file__).parents[1] / "examples" / "hosts"
WORDS = ["<pad>", "<eos>", "<unk>", *"abcdefghijklmnopqrstuvwxyz"]


def example(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(name, HOSTS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def tokenizer():
    """A word is one letter."""
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>")


def model(seed=0):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=64, pad_token_id=0, eos_token_id=1, bos_token_id=None,
        initializer_range=0.3,
    )
    return LlamaForCausalLM(config)


def letters(count, seed):
    generator = torch.Generator().manual_seed(seed)
    places = torch.randint(3, len(WORDS), (count,), generator=generator)
    return " ".join(WORDS[place] for place in places)


def given(name):
    """A policy-gradient method whose advantages the trainer gives; it cannot subtract a divergence from its rewards."""
    return ol.objective(name, advantage="given", **({"divergence_place": "corrected"} if name == "rloo" else {}))


def gradients(model, value):
    """The gradients of a loss, by parameter."""
    model.zero_grad()
    value.backward(retain_graph=True)
    return {name: own.grad.clone() for name, own in model.named_parameters() if own.grad is not None}


def assert_same(model, ours, theirs, precision=1e-6):
    """Two losses and their gradients by every parameter are the same."""
    values = ours.item(), theirs.item()
    assert abs(values[0] - values[1]) <= precision * max(1.0, abs(values[1])), values
    own, other = gradients(model, ours), gradients(model, theirs)
    assert own.keys() == other.keys() and own
    largest = max(gradient.abs().max().item() for gradient in other.values())
    assert largest > 1e-6
    for name, gradient in own.items():
        assert (gradient - other[name]).abs().max().item() <= precision * max(1.0, largest), name
