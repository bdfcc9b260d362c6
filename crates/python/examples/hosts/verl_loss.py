"""verl's actor with any policy-gradient loss: register("sapo"), then actor.policy_loss.loss_mode=ol_sapo."""
import objective_lake as ol
from objective_lake.torch import loss
from verl.trainer.ppo.core_algos import register_policy_loss

AGGREGATION = {"token-mean": "token_mean", "seq-mean-token-mean": "response_mean",
               "seq-mean-token-sum": "response_sum", "seq-mean-token-sum-norm": "fixed_length"}


def register(method, **parameters):
    @register_policy_loss(f"ol_{method}")
    def policy_loss(old_log_prob, log_prob, advantages, response_mask, loss_agg_mode, config, rollout_is_weights=None):
        own = ol.objective(method, advantage="given", aggregation=AGGREGATION[loss_agg_mode], **parameters)
        # A token's advantage carries its weight: the loss is proportional to it, except in dro, clip_cov and kl_cov.
        advantages = advantages if rollout_is_weights is None else advantages * rollout_is_weights
        rows = response_mask.bool().any(-1)
        columns = {"log_prob": log_prob, "behaviour_log_prob": old_log_prob, "advantage": advantages}
        columns = {name: column[rows] for name, column in columns.items() if name in own.columns}
        step = config.global_batch_info
        totals = ol.totals(tokens=step.get("batch_num_tokens"), responses=step.get("global_batch_size"))
        value, metrics = loss(own, mask=response_mask[rows], totals=totals, **columns)
        return value * step.get("dp_size", 1), {f"actor/{name}": number for name, number in metrics.items()}
