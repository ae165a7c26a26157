"""A split with every image twice: as it is, and mirrored."""

import functools
import logging
from collections.abc import Sequence

import numpy as np
from PIL import Image

from input_pipeline import schema
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import mirror
from input_pipeline.ov_swig.image_split import ImageSplit

MIRRORED = " (mirrored)"  # ends the name of a mirrored view


class BothViews:
  """n images of a split, then their mirrored views; see `ImageSplit`.

  Boxes are mirrored with the pixels, so what is written from them (templates,
  facts for a language model) has left and right exchanged; texts of the
  records have their words exchanged. An image with a text of which that is
  not safe has no mirrored view; a warning counts them.
  """

  def __init__(self, split: ImageSplit):
    self.name = split.name
    self._split = split

  def __len__(self) -> int:
    return len(self._split) + len(self._mirrored)

  @property
  def num_examples(self) -> int:
    return len(self)

  @functools.cached_property
  def names(self) -> tuple[str, ...]:
    names = self._split.names
    return (*names, *(names[i] + MIRRORED for i in self._mirrored))

  def annotations(self) -> dict[str, np.ndarray]:
    """The columns of `schema.ANNOTATIONS`, a row for each view."""
    return dict(self._columns)

  def read(self, indices: np.ndarray) -> dict[str, np.ndarray]:
    """Annotations of some examples, all but `example_mask`."""
    columns = self._columns.items()
    return {k: v[indices] for k, v in columns if k != schema.EXAMPLE_MASK}

  @functools.cached_property
  def _columns(self) -> dict[str, np.ndarray]:
    plain = self._split.annotations()
    other = mirror.mirror_annotations(plain)
    rows = self._mirrored
    columns = {k: np.concatenate([plain[k], other[k][rows]]) for k in plain}
    columns[schema.INDEX] = np.arange(len(self), dtype=np.int32)
    for column in columns.values():
      column.setflags(write=False)
    return columns

  def image(self, index: int) -> Image.Image:
    index, mirrored = self._place(index)
    image = self._split.image(index)
    return mirror.mirror_image(image) if mirrored else image

  def letterboxed(
    self, indices: Sequence[int] | np.ndarray, size: int
  ) -> np.ndarray:
    """Images on the square canvas: uint8 [n, size, size, 3]."""
    return self.letterboxed_sizes(indices, (size,))[size]

  def letterboxed_sizes(
    self, indices: Sequence[int] | np.ndarray, sizes: Sequence[int]
  ) -> dict[int, np.ndarray]:
    """The same at several sizes: uint8 [n, s, s, 3] by s."""
    places, views = zip(*map(self._place, indices), strict=True)
    canvas = self._split.letterboxed_sizes(places, sizes)
    flipped = np.array(views)
    for pixels in canvas.values():
      pixels[flipped] = mirror.mirror_pixels(pixels[flipped])
    return canvas

  def rationales(self, index: int) -> tuple[str, ...] | None:
    """The record's texts; mirrored ones with left and right exchanged."""
    index, mirrored = self._place(index)
    texts = self._split.rationales(index)
    if texts is None or not mirrored:
      return texts
    return mirror.mirror_texts(texts, self._split.names[index])

  def _place(self, index: int) -> tuple[int, bool]:
    """Index in the split, and whether the view is mirrored."""
    mirrored = int(index) - len(self._split)
    if mirrored < 0:
      return int(index), False
    return int(self._mirrored[mirrored]), True

  @functools.cached_property
  def _mirrored(self) -> np.ndarray:
    """Images that have a mirrored view, int [m]."""
    safe, refused = [], []
    for index in range(len(self._split)):
      texts = self._split.rationales(index)
      try:
        mirror.mirror_texts(texts or (), self._split.names[index])
        safe.append(index)
      except InputError as error:
        refused.append(error)
    if refused:
      logging.getLogger(__name__).warning(
        "%d of %d images have no mirrored view; the first: %s",
        len(refused),
        len(self._split),
        refused[0].problem,
      )
    return np.array(safe, np.int64)
