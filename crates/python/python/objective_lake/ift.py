"""Intuitive fine-tuning (IFT, arXiv 2405.11870) with Hugging Face's Trainer.

Supervised fine-tuning shows the model only states that the demonstration reaches. IFT shows it a little of the states
that its own predictions lead to, so that it learns to go on from its own mistakes. A first pass without a gradient
predicts each token of the response. A second pass reads, in place of the embedding of a token, the anticipated state
(1 - lambda) E(token) + lambda E(predicted token); the loss of the objective ``ift`` is computed there.

>>> from objective_lake import ift
>>> trainer = ift.Trainer(model=model, args=arguments, train_dataset=dataset)
>>> trainer.train()

A record of the data set has ``input_ids`` and ``labels``, of which prompt tokens are -100. The gradient equals that of
the released code, which reads a frozen copy of the embedding table that it refreshes after every step: with
``freeze_embeddings="all"``, the default here, no gradient passes into the embeddings that the second pass reads, and no
copy is needed.
"""

from __future__ import annotations

from typing import Any, Optional

import numpy as np
import torch
import transformers

import objective_lake as ol
from objective_lake._objective import Objective
from objective_lake.torch import loss

__all__ = ["Anticipated", "Trainer", "lambda_at"]


def lambda_at(objective: Objective, warmup: float, draw: float = 0.0) -> float:
    """Lambda at this share of the warm-up: along a line from ``lambda_min`` to ``lambda``, with noise, in [0, 1].

    ``draw`` is a number from the standard normal distribution; ``lambda_noise`` is the noise's standard deviation as a
    share of lambda.
    """
    parameters = objective.parameters
    largest = parameters["lambda"]
    smallest = parameters.get("lambda_min", largest)
    smallest = largest if isinstance(smallest, str) else smallest
    own = smallest + (largest - smallest) * warmup
    return min(max(own + draw * parameters["lambda_noise"] * own, 0.0), 1.0)


class Anticipated:
    """The loss of intuitive fine-tuning for any trainer that is derived from ``transformers.Trainer``.

    >>> class SFTTrainer(ift.Anticipated, trl.SFTTrainer):
    ...     pass

    ``objective`` is ``ol.objective("ift", ...)``. Lambda rises to its value while the learning rate warms up. Its noise
    is drawn once for each optimizer step, from the seed of the arguments and the number of the step. Every response has
    the same weight in a step, however the step is divided into micro-batches and processes.
    """

    def __init__(self, *arguments: Any, objective: Optional[Objective] = None, **options: Any) -> None:
        super().__init__(*arguments, **options)
        objective = objective or ol.objective("ift", freeze_embeddings="all")
        if objective.name != "ift":
            raise ValueError(f"objective: expected ift, got {objective.name}")
        for name in ("packing", "padding_free"):
            if getattr(self.args, name, False):
                raise ValueError(f"{name}: expected False, as each response has a row of its own, got True")
        if self.args.n_gpu > 1:
            raise ValueError(f"n_gpu: expected one GPU for each process, got {self.args.n_gpu}")
        self.objective = objective
        # The loss is divided by the responses of the whole step, so the trainer must not divide it again.
        self.model_accepts_loss_kwargs = self.loss_is_scaled_for_ga = True

    def lambda_of_step(self) -> float:
        """Lambda of the present optimizer step, and without noise where the model is evaluated."""
        if not self.model.training:
            return lambda_at(self.objective, 1.0)
        step, steps = self.state.global_step, self.args.get_warmup_steps(self.state.max_steps)
        draw = np.random.default_rng([self.args.seed, step]).standard_normal()
        return lambda_at(self.objective, step / steps if step < steps else 1.0, draw)

    def get_batch_samples(self, *arguments: Any, **options: Any) -> tuple[list, Any]:
        """The micro-batches of a step, and the number of responses in the step over all processes."""
        batches, _ = super().get_batch_samples(*arguments, **options)
        counts = [(batch["labels"][:, 1:] != -100).any(-1).sum() for batch in batches if "labels" in batch]
        responses = torch.stack(counts).sum() if counts else torch.zeros((), dtype=torch.int64)
        return batches, self.accelerator.gather(responses.to(self.args.device)).sum()

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The loss of a micro-batch, a part of the step's mean over responses."""
        labels, ids = inputs["labels"], inputs["input_ids"]
        rest = {name: value for name, value in inputs.items() if name not in ("labels", "input_ids")}
        mask = labels[:, 1:] != -100
        embeddings = self._anticipated(model, ids, labels != -100, rest)
        outputs = model(inputs_embeds=embeddings, **rest)
        rows = mask.any(-1)
        log_prob = -torch.nn.functional.cross_entropy(
            outputs.logits[rows, :-1].float().flatten(0, 1), labels[rows, 1:].flatten(), reduction="none"
        ).view(-1, mask.size(1))
        if not rows.any():
            value = outputs.logits.sum() * 0.0
        elif self.model.training and num_items_in_batch is not None:
            totals = ol.totals(responses=int(num_items_in_batch))
            value, _ = loss(self.objective, log_prob=log_prob, mask=mask[rows], totals=totals)
            value = value * self.accelerator.num_processes  # gradients are averaged over processes
        else:
            value, _ = loss(self.objective, log_prob=log_prob, mask=mask[rows])
        return (value, outputs) if return_outputs else value

    def _anticipated(self, model: Any, ids: torch.Tensor, response: torch.Tensor, rest: dict) -> torch.Tensor:
        """The embeddings of the second pass, [batch, time, hidden_size]."""
        table = self.accelerator.unwrap_model(model).get_input_embeddings()
        amount, freeze = self.lambda_of_step(), self.objective.parameters["freeze_embeddings"]
        with torch.no_grad():
            predicted = ids.clone()
            if amount > 0:
                predicted[:, 1:] = model(input_ids=ids, **rest).logits[:, :-1].argmax(-1)
            predicted = torch.where(response, predicted, ids)
        with torch.set_grad_enabled(torch.is_grad_enabled() and freeze != "all"):
            own = table(ids)
        with torch.set_grad_enabled(torch.is_grad_enabled() and freeze == "none"):
            other = table(predicted)
        return torch.where(response[..., None], torch.lerp(own, other, amount), own)


class Trainer(Anticipated, transformers.Trainer):
    """``transformers.Trainer`` that trains by intuitive fine-tuning."""
