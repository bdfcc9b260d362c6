"""prime-rl's custom loss: import_path = "prime_rl_loss.policy_loss", and [trainer.loss.kwargs] has the parameters."""
import torch
from prime_rl.trainer.rl.loss import LossOutputs

import objective_lake as ol
from objective_lake.torch import loss


def policy_loss(inputs, method="cispo", **parameters):
    """The sum over the tokens of one sequence, as prime-rl divides by the tokens of the step."""
    own = ol.objective(method, advantage="given", aggregation="token_mean", **parameters)
    columns = {"log_prob": inputs.trainer_logprobs, "behaviour_log_prob": inputs.inference_logprobs,
               "advantage": inputs.advantages}
    tokens = int(inputs.loss_mask.sum())
    if tokens == 0:
        return LossOutputs(loss=inputs.trainer_logprobs.sum() * 0, metrics={})
    read = {name: [column[inputs.loss_mask]] for name, column in columns.items() if name in own.columns}
    value, metrics = loss(own, **read)
    return LossOutputs(loss=value * tokens, metrics={name: torch.tensor(own) for name, own in metrics.items()})
