"""Detections of all images together, of which little is kept."""

import dataclasses

import numpy as np

from mipd_jax.metrics.hico_det_matching import (
  Detections,
  Truth,
  average_precision,
  match,
)

_ROWS = 1 << 15  # detections matched at a time


class Pool:
  """Collects detections image by image; keeps 18 bytes of each.

  Args:
    truth: the annotations.
  """

  def __init__(self, truth: Truth):
    self._truth = truth
    self._waiting: list[Detections] = []
    self._rows = 0
    self._matched: list[tuple[np.ndarray, ...]] = []
    self.images = 0

  def add(self, found: Detections) -> None:
    """Takes all detections of one image; each image once."""
    self._waiting.append(found)
    self._rows += len(found.score)
    self.images += 1
    if self._rows >= _ROWS:
      self._match()

  def average_precisions(self) -> tuple[np.ndarray, np.ndarray]:
    """[I] of each interaction in 0..1: by default, and of known objects."""
    self._match()
    number = len(self._truth.counts)
    found = np.zeros((2, number))
    if not self._matched:
      return found[0], found[1]
    image, interaction, score, right = map(
      np.concatenate, zip(*self._matched, strict=True)
    )
    self._matched = [(image, interaction, score, right)]
    by_class = np.argsort(interaction, kind="stable")
    edges = np.searchsorted(interaction[by_class], np.arange(number + 1))
    for row in range(number):
      rows = by_class[edges[row] : edges[row + 1]]
      # Of equal scores the earlier image, then the earlier detection.
      rows = rows[np.lexsort((image[rows], -score[rows]))]
      hits, pairs = right[rows], int(self._truth.counts[row])
      known = self._truth.known[image[rows], self._truth.object_of[row]]
      found[0, row] = average_precision(hits, pairs)
      found[1, row] = average_precision(hits[known], pairs)
    return found[0], found[1]

  def _match(self) -> None:
    if not self._rows:
      self._waiting = []
      return
    joined = Detections(
      *(
        np.concatenate([getattr(x, field.name) for x in self._waiting])
        for field in dataclasses.fields(Detections)
      )
    )
    right = match(self._truth, joined)
    self._matched.append(
      (joined.image, joined.interaction, joined.score, right)
    )
    self._waiting, self._rows = [], 0
