"""Ranges of numbers in configurations.

A field of a config dataclass states its range in its type, as in
`steps: Whole = 0`; `mipd_jax.config.unpack` reads it there, refuses values
outside it and names the field.
"""

import dataclasses
import math
from typing import Annotated

# The largest int32; the devices count in int32.
LARGEST = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class Range:
  """Numbers from `low` to `high`; `above` and `below` exclude the bounds."""

  low: float = -math.inf
  high: float = math.inf
  above: bool = False
  below: bool = False

  def __contains__(self, value: float) -> bool:
    return (value > self.low if self.above else value >= self.low) and (
      value < self.high if self.below else value <= self.high
    )

  def __str__(self) -> str:
    if self.high == math.inf:
      return f"{'greater than' if self.above else 'at least'} {self.low:g}"
    high = (
      f"less than {self.high:g}" if self.below else f"{self.high:g} at most"
    )
    low = (
      f"greater than {self.low:g}" if self.above else f"{self.low:g} at least"
    )
    return f"{low}, {high}"


# Whole numbers: from 0, and from 1.
Whole = Annotated[int, Range(0)]
Count = Annotated[int, Range(1)]
# Numbers: from 0, greater than 0, and from 0 to 1.
Weight = Annotated[float, Range(0)]
Positive = Annotated[float, Range(0, above=True)]
Share = Annotated[float, Range(0, 1)]
# A share less than 1: dropout, label smoothing.
Part = Annotated[float, Range(0, 1, below=True)]
