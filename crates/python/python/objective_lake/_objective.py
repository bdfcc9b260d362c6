"""A loss at its parameters."""

from __future__ import annotations

import json
import weakref
from dataclasses import dataclass
from itertools import count
from typing import Any, ClassVar, Mapping, Optional

import numpy as np

from objective_lake import _core
from objective_lake._batch import NUMPY, RESPONSES, arrange, flat, shaped
from objective_lake._totals import Totals

_NUMBERS = count()


@dataclass(frozen=True)
class Answer:
    """What an evaluation answers."""

    #: The batch's share of the step's loss.
    loss: float
    #: The derivative of the loss by each number of a column, in the column's shape: by column, and by side first where
    #: a side has a name.
    cotangents: dict[str, Any]
    #: What trainers log beside the loss, by name.
    metrics: dict[str, float]


class Objective:
    """A loss at valid parameters, with what it remembers from step to step. ``objective_lake.objective`` makes one."""

    #: Every objective that exists, by its number.
    numbered: ClassVar[weakref.WeakValueDictionary[int, Objective]] = weakref.WeakValueDictionary()

    def __init__(self, name: str, /, **parameters: Any) -> None:
        self._core = core = _core.Objective(name, **parameters)
        #: The name of the method.
        self.name: str = core.name
        #: The parameters in force, defaults included.
        self.parameters: dict[str, Any] = core.parameters
        #: The kind of data: demonstrations, preferences, labelled, groups or rollouts.
        self.data: str = core.data
        #: The sides of the data. The columns of a side without a name are not nested under a name.
        self.sides: tuple[str, ...] = tuple(core.sides)
        #: The columns that have a derivative.
        self.statistics: tuple[str, ...] = tuple(core.statistics)
        #: All columns that the objective reads.
        self.columns: tuple[str, ...] = tuple(core.columns)
        #: Those of tokens.
        self.columns_of_tokens: tuple[str, ...] = tuple(own for own in self.columns if own not in RESPONSES)
        #: Whether a response's loss depends on the others of the step, so that a step cannot be split.
        self.coupled: bool = core.coupled
        #: Number of rewards per response, if the objective fixes it.
        self.rewards: Optional[int] = core.rewards
        self._given = parameters
        #: By which a compiled program knows the objective.
        self.number: int = next(_NUMBERS)
        self.numbered[self.number] = self

    def evaluate(
        self, *, totals: Optional[Totals] = None, held: Optional[_core.Held] = None, **columns: Any
    ) -> Answer:
        """The loss of a batch and its derivatives.

        Objectives over preferences take ``chosen=`` and ``rejected=``, each a dictionary of columns or a tuple
        ``(log_prob, mask, reference_log_prob)``. Others take their columns by name; ``kto`` takes a side
        ``mismatched=`` besides. Columns are NumPy arrays or lists in one of three layouts:

        - padded: shape [batch, time], and ``mask`` of the same shape, which says what counts (nothing else of a value
          that it leaves out is read);
        - packed: the responses behind one another, with ``lengths`` or ``cumulative_lengths`` (from 0), and a ``mask``
          if some places do not count;
        - a list of arrays of one dimension, one per response.

        ``reward``, ``group``, ``desirable`` and ``weight`` have one number per response, ``advantage`` one per token or
        one a response. Log-probabilities are in nats.

        ``totals`` are the counts of the whole step if the batch is a part of it, ``held`` the numbers behind a
        stop-gradient if they are not to be computed anew (see ``hold``).

        Raises ``ValueError`` for columns that do not fit the objective or one another.
        """
        sides = arrange(self, columns, NUMPY)
        given = [flat(side, side.arrays, self.statistics[0]) for side in sides]
        loss, cotangents, metrics = self._core.evaluate_flat(given, totals and totals.counts(), held)
        own = {side.name: _typed(side, shaped(side, side.arrays, c)) for side, c in zip(sides, cotangents)}
        return Answer(loss, own.pop("", {}) | own, metrics)

    def hold(self, *, totals: Optional[Totals] = None, **columns: Any) -> _core.Held:
        """The numbers that the loss of a batch treats as constants: weights, baselines, advantages.

        At fixed held numbers the loss is a plain function of its columns, and the cotangents are its derivatives. What
        the objective remembers stays as it was.
        """
        sides = arrange(self, columns, NUMPY)
        given = [flat(side, side.arrays, self.statistics[0]) for side in sides]
        return self._core.hold_flat(given, totals and totals.counts())

    def totals(self, **columns: Any) -> Totals:
        """The counts of a batch. Their sum over the parts of a step is what ``totals=`` takes."""
        sides = arrange(self, columns, NUMPY)
        return Totals(*self._core.totals_flat([flat(side, side.arrays, self.statistics[0]) for side in sides]))

    def state_dict(self) -> dict[str, Any]:
        """What the objective remembers from step to step; empty for most."""
        return json.loads(self._core.state_json())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` answered."""
        self._core.load_state_json(json.dumps(dict(state)))

    def __repr__(self) -> str:
        parameters = "".join(f", {name}={value!r}" for name, value in self.parameters.items())
        return f"objective({self.name!r}{parameters})"

    def __reduce__(self):
        return _restored, (self.name, self._given, self.state_dict())


def _restored(name: str, parameters: dict[str, Any], state: dict[str, Any]) -> Objective:
    restored = Objective(name, **parameters)
    restored.load_state_dict(state)
    return restored


def _typed(side, cotangents: dict[str, Any]) -> dict[str, Any]:
    """Cotangents in the precision of their columns."""
    half = [name for name in cotangents if side.arrays[name].dtype == np.float16]
    for name in half:
        narrow = cotangents[name]
        cotangents[name] = (
            [part.astype(np.float16) for part in narrow] if side.listed else narrow.astype(np.float16)
        )
    return cotangents


def objective(name: str, /, **parameters: Any) -> Objective:
    """The loss of this name at these parameters; those left out take their defaults.

    >>> import objective_lake as ol
    >>> ol.objective("ipo", beta=0.5)
    objective('ipo', beta=0.5, divergence='reverse_kl', normalisation='mean', weighting='none')
    >>> ol.objective("dpo", beta=-1)
    Traceback (most recent call last):
    ValueError: dpo.beta: expected a number, 1e-9 <= beta <= 1e6, got -1

    ``methods()`` lists the names, and for each its parameters with default and range.
    """
    return Objective(name, **parameters)
