"""Comparison with the authors' code: tolerances, goldens, weight recipe.

`parity_model` and `parity_parts` compute what is compared, once, for the
tests and for the report (`python -m benchmarks.parity`).
"""

import dataclasses
import functools
import pathlib
import zlib
from collections.abc import Mapping

import numpy as np

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens"
# Beside the checkout where the whole set is there; too large to be copied.
FULL = GOLDENS.parent.parent.parent / "shared" / "goldens" / "model_full.npz"


@dataclasses.dataclass(frozen=True)
class Tolerance:
  """How far two arrays may lie apart, and why.

  Attributes:
    name: what it is called in the report.
    relative: of the largest magnitude of the reference's array.
    absolute: a floor, for arrays that are zero or rounding noise.
    reason: why not less.
  """

  name: str
  relative: float
  absolute: float
  reason: str


EXACT = Tolerance("exact", 0.0, 0.0, "integers, truth values, whole pixels")
OUTPUT = Tolerance(
  "output", 1e-5, 1e-6, "float32 sums of up to 2,048 terms in another order"
)
GRADIENT = Tolerance(
  "gradient",
  1e-4,
  1e-6,
  "the same, through the whole network twice; the floor is for gradients that "
  "are zero but for rounding (boxes in case all_right)",
)
METRIC = Tolerance(
  "metric", 0.0, 1e-4, "percent: shares of counts, rounded once or twice"
)
PARAMETER = Tolerance(
  "parameter",
  3e-5,
  0.0,
  "less than the 1e-4 asked for, which is as much as a whole step",
)
CHANGE = Tolerance(
  "change",
  3e-2,
  0.0,
  "a parameter minus its start: at values about 3, float32 itself is 0.2 % of "
  "a step, and key biases, whose true gradient is zero, move by rounding: "
  "Adam divides noise by noise",
)
TOLERANCES = (EXACT, OUTPUT, GRADIENT, METRIC, PARAMETER, CHANGE)


@dataclasses.dataclass(frozen=True, eq=False)
class Quantity:
  """One array of ours beside the reference's.

  Attributes:
    name: what it is; quantities of one name share a line of the report.
    ours, theirs: arrays of one shape.
    tolerance: one of TOLERANCES.
    scale: magnitude that `relative` is of, where it is not theirs.
  """

  name: str
  ours: np.ndarray
  theirs: np.ndarray
  tolerance: Tolerance
  scale: float | None = None

  @functools.cached_property
  def difference(self) -> float:
    """Largest absolute difference; NaN where either has one."""
    ours = np.asarray(self.ours, np.float64)
    theirs = np.asarray(self.theirs, np.float64)
    assert ours.shape == theirs.shape, (self.name, ours.shape, theirs.shape)
    return float(np.max(np.abs(ours - theirs), initial=0.0))

  @functools.cached_property
  def magnitude(self) -> float:
    if self.scale is not None:
      return self.scale
    return float(np.max(np.abs(np.asarray(self.theirs, float)), initial=0.0))

  @property
  def relative(self) -> float:
    return self.difference / self.magnitude if self.magnitude else 0.0

  @property
  def equal(self) -> bool:
    allowed = max(
      self.tolerance.relative * self.magnitude, self.tolerance.absolute
    )
    return self.difference <= allowed  # False for NaN

  def __str__(self) -> str:
    return (
      f"{self.name}: differs by {self.difference:.3g} of {self.magnitude:.3g}, "
      f"tolerance {self.tolerance.name}"
    )


def assert_equal(quantities: list[Quantity]) -> None:
  """Fails with every quantity that is out of tolerance."""
  assert quantities
  wrong = [str(quantity) for quantity in quantities if not quantity.equal]
  assert not wrong, "\n".join(wrong)


@functools.cache
def load(name: str) -> dict[str, np.ndarray]:
  """The arrays of a file of goldens, by name."""
  path = FULL if name == "model_full" else GOLDENS / f"{name}.npz"
  with np.load(path) as arrays:
    return {key: arrays[key] for key in arrays.files}


def section(arrays: Mapping[str, np.ndarray], prefix: str) -> dict:
  """Entries below `prefix/`, by the rest of their names."""
  start = f"{prefix}/"
  return {
    key.removeprefix(start): value
    for key, value in arrays.items()
    if key.startswith(start)
  }


def normal(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """N(name, shape) of the recipe: float32 standard normal."""
  rng = np.random.RandomState(zlib.crc32(name.encode()))
  return rng.standard_normal(shape).astype(np.float32)


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
  """A parameter of the recipe; the first rule that matches."""
  z = normal(f"w:{name}", shape)
  parts = name.split(".")
  if "norm" in name or any(part.startswith("ln") for part in parts):
    return 1 + 0.1 * z if name.endswith("weight") else 0.1 * z
  if name.endswith("bias"):
    return 0.1 * z
  if "embed" in name:
    return z
  if "edge_prompt" in name or "base_prompt" in name:
    return 0.5 * z
  if name in ("proj", "proj_cls"):
    return z * np.float32(3 / np.sqrt(shape[0]))
  if len(shape) == 2:
    return z / np.float32(np.sqrt(shape[1]))
  return z
