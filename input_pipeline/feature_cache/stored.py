"""A split with its features as they lie on the disk: int8 beside scales.

What goes to the devices: a quarter of the bytes, dequantised there
(`mipd_jax.feeding.dequantise`).
"""

import numpy as np

from input_pipeline.feature_cache.reader import CachedSplit


class StoredSplit:
  """A `stream.Source` over a `CachedSplit` that decodes nothing."""

  def __init__(self, split: CachedSplit):
    self._split = split

  @property
  def num_examples(self) -> int:
    return self._split.num_examples

  @property
  def names(self) -> tuple[str, ...]:
    """Image names."""
    return self._split.names

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Annotations and fields of the plan; see `CachedSplit.read`.

    An int8 field comes as int8 [n, ..., D] with `<key>_scale`, float32
    [n, ...].
    """
    return self._split.read_stored(indices)
