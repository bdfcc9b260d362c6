"""TRL's KTOTrainer with any loss over labelled responses."""
import torch
from trl import KTOTrainer

import objective_lake as ol
from objective_lake.torch import loss


class LabelledTrainer(KTOTrainer):
    objective = ol.objective("bco")

    def side(self, model, inputs, prefix):
        tokens, mask = inputs[f"{prefix}input_ids"], inputs[f"{prefix}completion_mask"]
        given = {"input_ids": tokens, "attention_mask": inputs[f"{prefix}attention_mask"], "use_cache": False,
                 "labels": tokens.masked_fill(mask == 0, -100), "fused_lm_head": True}
        with torch.no_grad():
            reference = self.ref_model(**given).log_probs
        return {"log_prob": model(**given).log_probs, "mask": mask[:, 1:], "reference_log_prob": reference}

    def _compute_loss(self, model, inputs, return_outputs=False):
        columns = self.side(model, inputs, "") | {"desirable": inputs["label"]}
        if "mismatched" in self.objective.sides:
            with torch.no_grad():
                columns["mismatched"] = self.side(model, inputs, "KL_")
        return loss(self.objective, **columns)[0]
