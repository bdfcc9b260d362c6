"""SkyRL's policy loss: register("cispo"), then trainer.algorithm.policy_loss_type=ol_cispo."""
from skyrl.backends.skyrl_train.utils.ppo_utils import register_policy_loss

import objective_lake as ol
from objective_lake.torch import loss


def register(method, **parameters):
    own = ol.objective(method, advantage="given", aggregation="token_mean", **parameters)

    @register_policy_loss(f"ol_{method}")
    def policy_loss(log_probs, old_log_probs, advantages, config, loss_mask=None, rollout_logprobs=None):
        """The sum over tokens: SkyRL divides advantages by the counts of the step before."""
        mask = log_probs.new_ones(log_probs.shape) if loss_mask is None else loss_mask
        rows = mask.bool().any(-1)
        columns = {"log_prob": log_probs, "behaviour_log_prob": old_log_probs, "advantage": advantages,
                   "rollout_log_prob": rollout_logprobs}
        read = {name: column[rows] for name, column in columns.items() if name in own.columns}
        value, metrics = loss(own, mask=mask[rows], **read)
        return value * mask.sum(), metrics

    return policy_loss
