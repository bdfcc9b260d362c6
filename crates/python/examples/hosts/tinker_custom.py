"""Tinker's forward_backward_custom with any loss over preferences: the data are chosen and rejected by turns."""
from objective_lake.torch import loss


def preferences(objective, reference_log_probs):
    """loss_fn for pairs whose reference log-probabilities are given, one tensor for each datum."""
    def loss_fn(data, log_probs):
        masks = [datum.loss_fn_inputs["weights"].to_torch() for datum in data]
        columns = (log_probs, masks, reference_log_probs)
        chosen, rejected = (tuple(column[first::2] for column in columns) for first in (0, 1))
        return loss(objective, chosen=chosen, rejected=rejected)

    return loss_fn


# training_client.forward_backward_custom(data, preferences(ol.objective("dpo"), reference_log_probs))
