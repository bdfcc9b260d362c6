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
        mask = response_mask.cpu().numpy().astype(bool)
        _, group = np.unique(index, return_inverse=True)
        reward = (token_level_rewards * response_mask).sum(-1, keepdim=True).cpu().numpy()
        answer = linear.evaluate(log_prob=np.full(mask.shape, -1.0), mask=mask, reward=reward, group=group)
        own = torch.from_numpy(-len(mask) * answer.cotangents["log_prob"]).to(token_level_rewards)
        return own, own
