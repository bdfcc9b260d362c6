"""Counts of a whole optimizer step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional


@dataclass(frozen=True)
class Totals:
    """Counts over a whole optimizer step, by which losses are divided. A count that is ``None`` is the batch's own.

    The totals of the parts of a step add up: ``a + b``.
    """

    tokens: Optional[int] = None
    responses: Optional[int] = None
    pairs: Optional[int] = None
    chosen_tokens: Optional[int] = None
    groups: Optional[int] = None

    def counts(self) -> tuple[Optional[int], ...]:
        """The five counts in the order of the fields."""
        return (self.tokens, self.responses, self.pairs, self.chosen_tokens, self.groups)

    def __add__(self, other: Totals) -> Totals:
        pairs = zip(self.counts(), other.counts())
        return Totals(*(None if a is None or b is None else a + b for a, b in pairs))


def totals(
    *,
    tokens: Optional[int] = None,
    responses: Optional[int] = None,
    pairs: Optional[int] = None,
    chosen_tokens: Optional[int] = None,
    groups: Optional[int] = None,
) -> Totals:
    """Counts of a whole optimizer step, for a batch that is a part of it: a micro-batch, or one rank's share.

    ``tokens`` and ``responses`` count those of all sides (without mismatched ones), ``pairs`` the pairs,
    ``chosen_tokens`` the tokens of chosen responses, ``groups`` the groups of responses to one prompt. A count that is
    left out is the batch's own.
    """
    return Totals(tokens, responses, pairs, chosen_tokens, groups)
