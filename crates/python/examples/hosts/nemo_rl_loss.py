"""NeMo-RL's loss function: PolicyLoss("cispo") in place of ClippedPGLossFn(config)."""
from nemo_rl.algorithms.loss.interfaces import LossInputType, LossType

import objective_lake as ol
from objective_lake.torch import loss

COLUMNS = {"advantage": "advantages", "behaviour_log_prob": "prev_logprobs", "rollout_log_prob": "generation_logprobs",
           "reference_log_prob": "reference_policy_logprobs"}


class PolicyLoss:
    loss_type, input_type = LossType.TOKEN_LEVEL, LossInputType.LOGPROB

    def __init__(self, method, **parameters):
        self.objective = ol.objective(method, advantage="given", aggregation="token_mean", **parameters)

    def __call__(self, data, global_valid_seqs, global_valid_toks, next_token_logprobs, **_):
        mask = data["token_mask"][:, 1:] * data["sample_mask"][:, None]
        rows = mask.bool().any(-1)
        columns = {name: data[theirs][rows, 1:] for name, theirs in COLUMNS.items() if name in self.objective.columns}
        totals = ol.totals(tokens=int(global_valid_toks), responses=int(global_valid_seqs))
        return loss(self.objective, log_prob=next_token_logprobs[rows], mask=mask[rows], totals=totals, **columns)
