"""Hugging Face's Trainer with any loss over demonstrations: Trainer(compute_loss_func=of(ol.objective("sft")), ...)."""
import objective_lake as ol
from objective_lake.torch import loss


def of(objective):
    def compute_loss(outputs, labels, num_items_in_batch=None):
        tokens = labels[:, 1:]
        log_prob = outputs.logits[:, :-1].float().log_softmax(-1)
        log_prob = log_prob.gather(-1, tokens.clamp(min=0)[..., None])[..., 0]
        # The trainer adds up the losses of a step's micro-batches and counts the step's tokens.
        totals = None if num_items_in_batch is None else ol.totals(tokens=int(num_items_in_batch))
        return loss(objective, log_prob=log_prob, mask=tokens != -100, totals=totals)[0]

    return compute_loss
