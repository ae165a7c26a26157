"""Boxes of detectors as boxes of pixels.

A detector's box has edges, from 0 to the image's width; ours has pixels, from
0 to the width less one. So one is taken off its right and lower edge, as UPT
does before its own evaluation.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from input_pipeline.hico_det.detectors import box_readings
from input_pipeline.hico_det.detectors.detections import (
  ImageDetections,
  check_scores,
)
from input_pipeline.hico_det.sources import parsing
from input_pipeline.io.errors import InputError


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


def check_cut(where: str, outside: int, number: int) -> None:
  """Raises `InputError` where most boxes of a detector left their images."""
  if 2 * outside > number:
    raise InputError(
      f"{where}: {outside} of {number} boxes lie outside their image, nothing "
      "is left of them after the cut",
      "give corners in pixels of the original image (not of a resized one, "
      "not thousandths, not x y w h)",
    )


def convert(
  where: parsing.Place,
  boxes: Any,
  objects: Sequence[int | None],
  scores: Any,
  size: tuple[int, int] | None,
) -> tuple[ImageDetections, int, int]:
  """Checked detections; how many were of no known object, and how many lay
  outside the image. Both are left out."""
  found = parsing.boxes(where, boxes, "boxes", 0, None)
  chances = parsing.numbers(where, scores, "scores")
  parsing.same_length(where, boxes=found, labels=objects, scores=chances)
  known = np.array([x is not None for x in objects], bool)
  check_scores(where, chances)
  numbers = np.array([-1 if x is None else x for x in objects], np.int32)
  inside = np.ones(len(found), bool)
  if size is not None:
    inside = ~box_readings.empty_after_cut(found, size)
  kept = known & inside
  return (
    ImageDetections.of(pixels(found, size)[kept], numbers[kept], chances[kept]),
    int((~known).sum()),
    int((~inside).sum()),
  )
