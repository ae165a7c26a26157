"""Stops a run with a non-finite loss."""

from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline import order


class DivergedError(RuntimeError):
  """A loss is NaN or infinite; names the step, the terms and the images."""


def check_finite(
  step: int,
  metrics: Mapping[str, np.ndarray],
  *,
  seed: int,
  names: Sequence[str],
  batch_size: int,
) -> None:
  """Raises DivergedError if a metric of a step is not finite.

  Args:
    step: the step of the metrics; it determines the batch.
    metrics: scalars of that step.
    seed, batch_size: of the data order.
    names: image names of the training split.
  """
  bad = sorted(k for k, value in metrics.items() if not np.isfinite(value))
  if not bad:
    return
  batch = order.step_indices(seed, step, len(names), batch_size)
  images = ", ".join(names[i] for i in batch)
  raise DivergedError(
    f"step {step}: {', '.join(bad)} not finite. Images of its batch: "
    f"{images}\n  Remedy: look at these images and their boxes; lower "
    "train.learning_rate; the last checkpoint before this step is intact"
  )
