"""The optimizers of the small foundation models: AdamW, with or without Muon.

Muon (Jordan et al. 2024, "Muon: an optimizer for hidden layers") takes steps
of equal size in all directions of a matrix, so small models learn rare details
in fewer steps.
"""

from collections.abc import Callable
from typing import Any, Protocol

import jax
import optax

Params = Any


class Schedule(Protocol):
  """The settings of a training.

  Attributes:
    steps: with warm-up, then cosine.
    learning_rate: of AdamW.
    muon_rate: of Muon; 0 trains all by AdamW.
  """

  steps: int
  learning_rate: float
  muon_rate: float


def optimizer(
  settings: Schedule, is_matrix: Callable[[list[str]], bool]
) -> optax.GradientTransformation:
  """Gradients clipped to norm 1, Muon for some matrices, AdamW for the rest.

  Args:
    settings: rates and steps.
    is_matrix: says of a path of names whether Muon may train it; only kernels
      of two axes are asked about.
  """

  def schedule(rate: float) -> optax.Schedule:
    steps = settings.steps
    return optax.warmup_cosine_decay_schedule(
      0.0, rate, max(1, steps // 20), steps
    )

  rate = schedule(settings.learning_rate)
  if settings.muon_rate:
    update = optax.contrib.muon(
      schedule(settings.muon_rate),
      adam_b2=0.98,
      adam_weight_decay=0.02,
      adam_learning_rate=rate,
      muon_weight_dimension_numbers=lambda params: matrices(params, is_matrix),
    )
  else:
    update = optax.adamw(rate, b2=0.98, weight_decay=0.02)
  return optax.chain(optax.clip_by_global_norm(1.0), update)


def matrices(params: Params, is_matrix: Callable[[list[str]], bool]) -> Params:
  """A tree like the parameters: None where AdamW trains."""

  def of(path: tuple, leaf: jax.Array):
    names = [entry.key for entry in path]
    if leaf.ndim == 2 and names[-1] == "kernel" and is_matrix(names):
      return optax.contrib.MuonDimensionNumbers()
    return None

  return jax.tree_util.tree_map_with_path(of, params)
