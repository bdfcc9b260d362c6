"""DPO in a plain PyTorch loop."""
import copy

import torch

import objective_lake as ol
from objective_lake.torch import loss

policy = torch.nn.Sequential(torch.nn.Embedding(16, 32), torch.nn.Linear(32, 16))  # stands for a language model
reference = copy.deepcopy(policy).requires_grad_(False)
chosen, rejected = torch.randint(16, (2, 4, 10))  # each [batch, time]; the prompt is the first three tokens
mask = (torch.arange(1, 10) >= 3).expand(4, 9)

def side(tokens):
    predicted = [model(tokens[:, :-1]).log_softmax(-1) for model in (policy, reference)]
    log_prob, reference_log_prob = (own.gather(-1, tokens[:, 1:, None])[..., 0] for own in predicted)
    return log_prob, mask, reference_log_prob

dpo = ol.objective("dpo", beta=0.1)
optimizer = torch.optim.AdamW(policy.parameters(), lr=1e-2)
for step in range(50):
    value, metrics = loss(dpo, chosen=side(chosen), rejected=side(rejected))
    value.backward(), optimizer.step(), optimizer.zero_grad()
print(f"loss {value.item():.4f}, margin {metrics['rewards/margins']:.4f}")
