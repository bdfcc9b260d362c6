"""TRL's DPOTrainer with any loss over preferences."""
import torch
from trl import DPOTrainer

import objective_lake as ol
from objective_lake.torch import loss


class PreferenceTrainer(DPOTrainer):
    objective = ol.objective("simpo")

    def _compute_loss(self, model, inputs, return_outputs=False):
        tokens, mask = inputs["input_ids"], inputs["completion_mask"]
        given = {"input_ids": tokens, "attention_mask": inputs["attention_mask"], "use_cache": False,
                 "labels": tokens.masked_fill(mask == 0, -100), "fused_lm_head": True}
        columns = [model(**given).log_probs, mask[:, 1:]]
        if "reference_log_prob" in self.objective.columns:
            with torch.no_grad():
                columns.append(self.ref_model(**given).log_probs)
        chosen, rejected = zip(*(column.chunk(2) for column in columns))
        value, metrics = loss(self.objective, chosen=chosen, rejected=rejected)
        for name, number in metrics.items():
            self._metrics["train" if model.training else "eval"][name].append(number)
        return value
