"""TRL's GRPOTrainer with any policy-gradient loss."""
import torch
from trl import GRPOTrainer

import objective_lake as ol
from objective_lake.torch import loss


class PolicyTrainer(GRPOTrainer):
    objective = ol.objective("dapo", advantage="given")

    def _compute_loss(self, model, inputs):
        ids, mask = ([inputs[f"{part}_{kind}"] for part in ("prompt", "completion")] for kind in ("ids", "mask"))
        length = ids[1].size(1)
        log_prob, _, _ = self._get_per_token_logps_and_entropies(model, torch.cat(ids, 1), torch.cat(mask, 1), length)
        old = inputs.get("old_per_token_logps")
        columns = {"log_prob": log_prob, "behaviour_log_prob": log_prob.detach() if old is None else old,
                   "reference_log_prob": inputs.get("ref_per_token_logps"), "advantage": inputs["advantages"],
                   "rollout_log_prob": inputs.get("sampling_per_token_logps")}
        read = {name: column for name, column in columns.items() if name in self.objective.columns}
        # TRL adds up the losses of the micro-batches of a step, so each is divided by the counts of the step.
        parts = self.current_gradient_accumulation_steps if model.training else 1
        tokens = round(inputs["num_items_in_batch"].item() * parts / self.args.steps_per_generation)
        totals = ol.totals(responses=len(log_prob) * parts, tokens=tokens)
        return loss(self.objective, mask=mask[1], totals=totals, **read)[0]
