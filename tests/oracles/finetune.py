"""Losses, gradients and training steps of tiny checkpoints on whole sequences, by PyTorch autograd in float64.

finetune.py compare also runs everything in float32, and prints the largest differences.
"""

import contextlib
import math
import random
import sys
from unittest import mock

import torch
import transformers

import checkpoints
import generator
import objective

STEPS, CLIP, WARMUP_RATIO = 20, 10.0, 0.1
SEED = 20240528  # of those tried, the one whose predicted tokens are the furthest from a tie
LENGTHS = [(3, 7, 1), (8, 2, 5), (5, 4, 7), (6, 3, 3)]  # of prompt, chosen and rejected response
SFT, IFT = {"name": "sft"}, {"name": "ift", "lambda": 0.2, "gamma": 0.95}
DPO, ORPO = {"name": "dpo", "beta": 0.1}, {"name": "orpo", "beta": 0.25}
SIMPO = {"name": "simpo", "beta": 2.0, "target_margin": 1.6}
TDPO = {"name": "tdpo", "variant": 2, "beta": 0.1, "alpha": 0.5}
FREEZES = [IFT | {"freeze_embeddings": freeze} for freeze in ("all", "anticipated", "none")]
RMSPROP = {"name": "rmsprop", "smoothing": 0.99, "epsilon": 1e-8, "momentum": 0.0, "weight_decay": 0.0}
ADAMW = {"name": "adamw", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01}
# RMSprop's first steps are about ten times its rate, however small the gradient: at 1e-3, float32 ends up to 5e-5 from
# float64 here.
RATES = {"rmsprop": 2e-4, "adamw": 1e-3}
RECORDED = ["model.embed_tokens.weight", "lm_head.weight", "model.norm.weight", "model.layers.0.input_layernorm.weight",
            "model.layers.1.mlp.down_proj.weight", "model.layers.1.mlp.down_proj.bias"]
RECORDED += [f"model.layers.0.self_attn.{side}_proj.{kind}" for side in "qk" for kind in ("weight", "bias")]


@contextlib.contextmanager
def computed_in(dtype):
    """transformers takes norms, softmax and angles to float32 whatever the model's type; in float64, they stay there too."""
    torch.set_default_dtype(dtype)
    with contextlib.ExitStack() as stack:
        if dtype == torch.float64:
            stack.enter_context(mock.patch.multiple(torch, float32=torch.float64, float=torch.float64))
            stack.enter_context(mock.patch.object(torch.Tensor, "float", torch.Tensor.double))
        yield


def load(name, dtype, scale=1.0):
    saved = checkpoints.load(checkpoints.HERE / name)
    with computed_in(dtype), torch.no_grad():
        model = transformers.AutoModelForCausalLM.from_config(saved.config, dtype=dtype, attn_implementation="eager").eval()
        model.load_state_dict(saved.state_dict())
        for weight in model.parameters():
            weight *= scale
    return model


def log_policy(model, prompt, response, **inputs):
    """A row for each token of the response."""
    inputs = inputs or {"input_ids": torch.tensor([prompt + response])}
    scores = model(**inputs).logits[0, len(prompt) - 1 : -1]
    return torch.log_softmax(scores, dim=-1).double()


def picked(rows, response):
    return rows[range(len(response)), response]


def anticipated(model, prompt, response, method):
    """The second pass of intuitive fine-tuning: at a token of the response, a part of the embedding is that of the predicted token.

    The embeddings are what the model's first block reads: for Gemma, after they are scaled.
    """
    with torch.no_grad():
        predicted = log_policy(model, prompt, response).argmax(dim=-1)
    table, freeze = model.get_input_embeddings(), method["freeze_embeddings"]
    own, other = table(torch.tensor(prompt + response)), table(predicted)
    own = own.detach() if freeze == "all" else own
    other = other.detach() if freeze in ("anticipated", "all") else other
    mixed = (1 - method["lambda"]) * own[len(prompt) :] + method["lambda"] * other
    return log_policy(model, prompt, response, inputs_embeds=torch.cat([own[: len(prompt)], mixed])[None])


def simpo(chosen, rejected, beta, target_margin):
    margins = [beta * (w.mean() - l.mean()) - target_margin for w, l in zip(chosen, rejected)]
    return -torch.nn.functional.logsigmoid(torch.stack(margins)).mean()


def tdpo(log_prob, reference_log_prob, divergence, beta, alpha):
    losses = []
    for pair in range(len(LENGTHS)):
        w, l = ((log_prob[side][pair] - reference_log_prob[side][pair]).sum() for side in (0, 1))
        further = divergence[1][pair] - divergence[0][pair].detach()
        losses.append(-torch.nn.functional.logsigmoid(beta * (w - l) - alpha * beta * further))
    return torch.stack(losses).mean()


def loss(model, reference, pairs, method):
    ids = [[(pair["prompt_ids"], pair[side]) for pair in pairs] for side in ("chosen_ids", "rejected_ids")]
    settings = {key: value for key, value in method.items() if key not in ("name", "variant")}
    if method["name"] == "ift":
        rows = [picked(anticipated(model, *sequence, method), sequence[1]) for sequence in ids[0]]
        return objective.ift(rows, "released", method["gamma"])
    policy = [[log_policy(model, *sequence) for sequence in side] for side in ids]
    log_prob = [[picked(rows, sequence[1]) for rows, sequence in zip(*sides)] for sides in zip(policy, ids)]
    if method["name"] in ("sft", "orpo", "simpo"):
        function = {"sft": objective.sft, "orpo": objective.orpo, "simpo": simpo}[method["name"]]
        return function(*log_prob[: 1 if method["name"] == "sft" else 2], **settings)
    with torch.no_grad():
        other = [[log_policy(reference, *sequence) for sequence in side] for side in ids]
    reference_log_prob = [[picked(rows, sequence[1]) for rows, sequence in zip(*sides)] for sides in zip(other, ids)]
    if method["name"] == "dpo":
        return objective.dpo(*log_prob, *reference_log_prob, **settings)
    divergence = [[(q.exp() * (q - p)).sum() for p, q in zip(*sides)] for sides in zip(policy, other)]
    return tdpo(log_prob, reference_log_prob, divergence, **settings)


def gradients(name, method, pairs, dtype=torch.float64, scale=0.9):
    model, reference = load(name, dtype), load(name, dtype, scale)
    with computed_in(dtype):
        value = loss(model, reference, pairs, method)
        value.backward()
    recorded, squares = {}, 0.0
    for key, weight in model.named_parameters():
        flat = (torch.zeros_like(weight) if weight.grad is None else weight.grad).flatten().double()
        squares += flat.square().sum().item()
        if key in RECORDED:
            stride = len(flat) // 6 | 1
            recorded[key] = {"norm": flat.norm().item(), "stride": stride, "values": flat[::stride][:6].tolist()}
    return {"name": f"{name}, {label(method)}", "checkpoint": name, "method": method, "reference_scale": scale,
            "loss": value.item(), "gradient_norm": math.sqrt(squares), "gradients": recorded}


def run(name, method, settings, pairs, dtype=torch.float64):
    """Loss and gradient norm before each step. A weight that the loss does not reach is not decayed either."""
    model, reference, losses, norms = load(name, dtype), load(name, dtype), [], []
    with computed_in(dtype):
        weights = list(model.parameters())
        make = {"rmsprop": torch.optim.RMSprop, "adamw": torch.optim.AdamW}[settings["name"]]
        optimizer = make(weights, lr=RATES[settings["name"]], weight_decay=settings["weight_decay"])
        schedule = transformers.get_cosine_schedule_with_warmup(optimizer, math.ceil(WARMUP_RATIO * STEPS), STEPS)
        for _ in range(STEPS):
            optimizer.zero_grad()
            value = loss(model, reference, pairs, method)
            value.backward()
            losses.append(value.item())
            norms.append(torch.nn.utils.clip_grad_norm_(weights, CLIP).item())
            optimizer.step()
            schedule.step()
    return {"name": f"{name}, {label(method)}, {settings['name']}", "checkpoint": name, "method": method, "reference_scale": 1.0,
            "optimizer": settings, "learning_rate": RATES[settings["name"]], "losses": losses, "gradient_norms": norms}


def label(method):
    return f"{method['name']}, freeze {method['freeze_embeddings']}" if "freeze_embeddings" in method else method["name"]


def drawn(draw):
    ids = lambda length: [draw.randrange(3, checkpoints.VOCABULARY) for _ in range(length)]
    return [dict(zip(("prompt_ids", "chosen_ids", "rejected_ids"), map(ids, lengths))) for lengths in LENGTHS]


def shortened(value):
    """Ten significant digits."""
    if isinstance(value, dict):
        return {key: shortened(part) for key, part in value.items()}
    if isinstance(value, list):
        return [shortened(part) for part in value]
    return float(f"{value:.10g}") if isinstance(value, float) else value


def compare(case, again):
    """The largest difference of losses, and the largest relative one of gradients' norms."""
    losses, norms = ([record.get(key, [record.get(one)]) for record in (case, again)]
                     for key, one in (("losses", "loss"), ("gradient_norms", "gradient_norm")))
    apart = max(abs(a - b) for a, b in zip(*losses))
    relative = max(abs(a - b) / a for a, b in zip(*norms))
    print(f"{case['name']:48} {losses[0][0]:9.6f} {losses[0][-1]:9.6f} {apart:8.1e} {relative:8.1e}")
    return apart


def main():
    pairs = drawn(random.Random(SEED))
    cases = [(gradients, name, method, pairs) for name in ("llama", "gemma", "llama-sharded")
             for method in (SFT, *FREEZES, DPO, ORPO, SIMPO, TDPO)]
    runs = [(run, name, method, settings, pairs) for name in ("llama", "gemma")
            for method in (SFT, FREEZES[0], DPO, ORPO, SIMPO) for settings in (RMSPROP, ADAMW)]
    answers = [[function(*arguments) for function, *arguments in kind] for kind in (cases, runs)]
    if sys.argv[1:] == ["compare"]:
        print("largest:", max(compare(answer, function(*arguments, dtype=torch.float32)) for kind, given in zip((cases, runs), answers)
                              for (function, *arguments), answer in zip(kind, given)))
    generator.write(__file__, ["torch", "transformers", "safetensors"], pairs=pairs, max_gradient_norm=CLIP,
                    schedule={"schedule": "cosine", "steps": STEPS, "warmup_ratio": WARMUP_RATIO},
                    cases=shortened(answers[0]), runs=shortened(answers[1]))


if __name__ == "__main__":
    main()
