"""The protocols of a dataset.

The cache's precompute, the writers of rationales, the stages and the report
use only these. Two datasets exist: `ov_swig/builder.SwigDataset` and
`hico_det/pair_dataset.PairDataset`. A task may read more of its own dataset,
such as object classes or a detector's boxes.

Letters as in `schema`, and n images of a split; V are the classes (verbs of
situations, or interactions).
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from PIL import Image

from input_pipeline.ov_swig.vocabulary import Vocabulary


class Split(Protocol):
  """One split: annotations as columns, images by index 0..n-1.

  All methods may be called from several threads.
  """

  @property
  def name(self) -> str:
    """'train', 'dev' or 'test'."""
    ...

  def __len__(self) -> int:
    """n."""
    ...

  @property
  def num_examples(self) -> int:
    """n, under the name that `stream.Source` uses."""
    ...

  @property
  def names(self) -> tuple[str, ...]:
    """File name of every image, in index order; all differ."""
    ...

  def annotations(self) -> Mapping[str, np.ndarray]:
    """All annotations, as columns of n rows.

    Returns:
      The keys of `schema.ANNOTATIONS` or of `schema.PAIR_ANNOTATIONS`, with
      the dtypes and axes given there and n for B.
    """
    ...

  def image(self, index: int) -> Image.Image:
    """The original image, RGB.

    Raises:
      InputError: it cannot be decoded; the message names it.
    """
    ...

  def letterboxed_sizes(
    self, indices: Sequence[int] | np.ndarray, sizes: Sequence[int]
  ) -> dict[int, np.ndarray]:
    """Images on square canvases, each decoded once.

    Args:
      indices: m positions in the split, in any order, repeats allowed.
      sizes: sides s of the canvases, pixels.

    Returns:
      uint8 [m, s, s, 3] by s.

    Raises:
      InputError: an image cannot be decoded; the message names it.
    """
    ...

  def rationales(self, index: int) -> tuple[str, ...] | None:
    """The dataset's own four texts of an image.

    They are in the order of `schema.RATIONALES`; None if it has none.
    """
    ...


class Groups(Protocol):
  """Which classes are seen, rare and unseen."""

  @property
  def groups(self) -> np.ndarray:
    """int32 [V], an index into `schema.GROUPS`."""
    ...

  @property
  def sha256(self) -> str:
    """Digest of the groups, in hexadecimal; part of a cache's plan."""
    ...


class Dataset(Protocol):
  """A dataset on disk, with its vocabulary and class groups."""

  @property
  def name(self) -> str:
    """The name shown in tables and reports."""
    ...

  @property
  def fingerprint(self) -> str:
    """A text that names the dataset's content; part of a cache's plan."""
    ...

  @property
  def vocabulary(self) -> Vocabulary:
    """Names of classes, roles and nouns; V is len(verbs)."""
    ...

  @property
  def groups(self) -> Groups:
    """Group of each of the V classes."""
    ...

  @property
  def broken(self) -> tuple[str, ...]:
    """Names of the images that are left out because they are broken."""
    ...

  def split(self, name: str) -> Split:
    """Random access to 'train', 'dev' or 'test'.

    Raises:
      InputError: there is no such split, or it cannot be read.
    """
    ...
