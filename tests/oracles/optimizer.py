"""PyTorch's optimizers and gradient clipping, and the learning-rate schedules of transformers."""

import math

import torch
import transformers

import generator

torch.set_default_dtype(torch.float64)
PARAMETERS, STEPS = 5, 12
CONFIGURATIONS = [
    {"name": "rmsprop", "smoothing": 0.99, "epsilon": 1e-8, "momentum": 0.0, "weight_decay": 0.0},
    {"name": "rmsprop", "smoothing": 0.9, "epsilon": 1e-4, "momentum": 0.8, "weight_decay": 0.05},
    {"name": "rmsprop", "smoothing": 0.0, "epsilon": 1e-8, "momentum": 0.0, "weight_decay": 0.1},
    {"name": "adamw", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "weight_decay": 0.01},
    {"name": "adamw", "beta1": 0.0, "beta2": 0.5, "epsilon": 1e-3, "weight_decay": 0.0},
    {"name": "sgd", "momentum": 0.0, "weight_decay": 0.0},
    {"name": "sgd", "momentum": 0.9, "nesterov": False, "weight_decay": 0.02},
    {"name": "sgd", "momentum": 0.9, "nesterov": True, "weight_decay": 0.02},
]


def build(settings, parameters):
    decay = settings["weight_decay"]
    match settings["name"]:
        case "rmsprop":
            return torch.optim.RMSprop(parameters, alpha=settings["smoothing"], eps=settings["epsilon"],
                                       momentum=settings["momentum"], weight_decay=decay)
        case "adamw":
            return torch.optim.AdamW(parameters, betas=(settings["beta1"], settings["beta2"]),
                                     eps=settings["epsilon"], weight_decay=decay)
        case "sgd":
            return torch.optim.SGD(parameters, lr=1.0, momentum=settings["momentum"],
                                   nesterov=settings.get("nesterov", False), weight_decay=decay)


def updates(settings, draw):
    initial = torch.randn(PARAMETERS, generator=draw)
    gradients = torch.randn(STEPS, PARAMETERS, generator=draw) * torch.logspace(-6, 2, PARAMETERS)
    gradients[3] = 0.0
    rates = [1e-2 / (1 + step) for step in range(STEPS)]
    parameter = initial.clone().requires_grad_()
    optimizer, path = build(settings, [parameter]), []
    for rate, gradient in zip(rates, gradients):
        optimizer.param_groups[0]["lr"] = rate
        parameter.grad = gradient.clone()
        optimizer.step()
        path.append(parameter.detach().tolist())
    return {"optimizer": settings, "initial": initial.tolist(), "learning_rates": rates,
            "gradients": gradients.tolist(), "parameters": path}


def clipping(gradient, norm):
    parameter = torch.zeros(len(gradient)).requires_grad_()
    parameter.grad = torch.tensor(gradient)
    total = torch.nn.utils.clip_grad_norm_([parameter], norm).item()
    return {"gradient": gradient, "max_norm": norm, "norm": total, "clipped": parameter.grad.tolist()}


def schedule(name, steps, ratio):
    warmup = math.ceil(ratio * steps)
    optimizer = torch.optim.SGD([torch.zeros(1).requires_grad_()], lr=1.0)
    make = {"constant": lambda: transformers.get_constant_schedule_with_warmup(optimizer, warmup),
            "linear": lambda: transformers.get_linear_schedule_with_warmup(optimizer, warmup, steps),
            "cosine": lambda: transformers.get_cosine_schedule_with_warmup(optimizer, warmup, steps)}[name]()
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        make.step()
    return {"schedule": name, "steps": steps, "warmup_ratio": ratio, "factors": factors}


if __name__ == "__main__":
    draw = torch.Generator().manual_seed(7)
    generator.write(
        __file__, ["torch", "transformers"],
        updates=[updates(settings, draw) for settings in CONFIGURATIONS],
        clipping=[clipping([3.0, 4.0], norm) for norm in (0.5, 1.0, 5.0, 10.0)] + [clipping([0.0, 0.0], 1.0)],
        schedules=[schedule(name, steps, ratio) for name in ("constant", "linear", "cosine")
                   for steps, ratio in ((1, 0.0), (7, 0.0), (10, 0.1), (23, 0.15), (5, 1.0))],
    )
