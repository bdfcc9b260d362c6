"""verl's trainer with the advantages of any method: register("max_rl"), then algorithm.adv_estimator=ol_max_rl."""
import numpy as np
import torch
from verl.trainer.ppo.core_algos import register_adv_est

import objective_lake as ol


def register(advantage, **parameters):
    # The derivative of this loss by a log-probability is the advantage over the number of responses, negated.
    linear = ol.objective("policy_gradient", advantage=advantage, ratio="none", trust_region="none",
                          aggregation="response_sum", **parameters)

    @register_adv_est(f"ol_{advantage}")
    def advantages(token_level_rewards, response_mask, index, **_):
        _, group = np.unique(index, return_inverse=True)
        order = np.argsort(group, kind="stable")  # the responses of a group lie together
        mask = response_mask.cpu().numpy().astype(bool)[order]
        reward = (token_level_rewards * response_mask).sum(-1, keepdim=True).cpu().numpy()[order]
        answer = linear.evaluate(log_prob=np.full(mask.shape, -1.0), mask=mask, reward=reward, group=group[order])
        own = torch.zeros_like(token_level_rewards)
        own[order] = torch.from_numpy(-len(mask) * answer.cotangents["log_prob"]).to(own)
        return own, own
