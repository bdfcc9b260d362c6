"""Alignment losses as functions from token log-probabilities to a loss and its derivatives.

>>> import objective_lake as ol
>>> dpo = ol.objective("dpo", beta=0.1)
>>> answer = dpo.evaluate(
...     chosen={"log_prob": [-1.0], "reference_log_prob": [-3.0], "lengths": [1]},
...     rejected={"log_prob": [-2.0], "reference_log_prob": [-1.0], "lengths": [1]},
... )
>>> round(answer.loss, 6), answer.cotangents["chosen"]["log_prob"]
(0.554355, array([-0.04255575]))

A *cotangent* is the derivative of the loss by one number of a column. ``objective_lake.torch.loss`` hands it to
PyTorch's autograd, and ``objective_lake.jax.loss`` to JAX.

``ol.methods()`` lists every loss with its formula, parameters and source.
"""

from objective_lake._core import Held, Method, Parameter, __version__, methods
from objective_lake._objective import Answer, Objective, objective
from objective_lake._totals import Totals, totals

__all__ = [
    "Answer", "Held", "Method", "Objective", "Parameter", "Totals", "__version__", "methods", "objective", "totals",
]
