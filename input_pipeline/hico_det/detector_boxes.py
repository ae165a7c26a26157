"""Boxes of detectors as boxes of pixels.

A detector's box has edges, from 0 to the image's width; ours has pixels, from
0 to the width less one. So one is taken off its right and lower edge, as UPT
does before its own evaluation.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.hico_det import parsing
from input_pipeline.hico_det.detections import ImageDetections


def pixels(
  boxes: np.ndarray, size: tuple[int, int] | None = None
) -> np.ndarray:
  """Boxes with edges [n, 4] as boxes of pixels, both corners inside.

  Args:
    boxes: x1 y1 x2 y2, from 0 to the width and height.
    size: (height, width) to cut them to; None: they are cut at 0 alone.
  """
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  low = np.maximum(boxes[:, :2], 0)
  high = boxes[:, 2:] - 1
  if size is not None:
    limit = np.array([size[1], size[0]]) - 1
    low, high = np.minimum(low, limit), np.minimum(high, limit)
  # A box thinner than a pixel is the pixel it lies in.
  return np.concatenate([low, np.maximum(high, low)], axis=1)


def convert(
  where: parsing.Place,
  boxes: Any,
  objects: Sequence[int | None],
  scores: Any,
  size: tuple[int, int] | None,
) -> tuple[ImageDetections, int]:
  """Checked detections, and how many were of no known object."""
  found = parsing.boxes(where, boxes, "boxes", 0, None)
  chances = parsing.numbers(where, scores, "scores")
  parsing.same_length(where, boxes=found, labels=objects, scores=chances)
  known = np.array([x is not None for x in objects], bool)
  numbers = np.array([x for x in objects if x is not None], np.int32)
  kept = ImageDetections.of(pixels(found, size)[known], numbers, chances[known])
  return kept, int((~known).sum())
