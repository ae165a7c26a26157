"""Converts boxes of detectors to boxes of pixels.

A detector's box gives edges, from 0 to the image's width; ours gives pixels,
from 0 to width - 1. So 1 is subtracted from its right and lower edge, as UPT
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
  """Converts boxes of edges [n, 4] to pixels, both corners inside.

  Args:
    boxes: x1 y1 x2 y2, from 0 to the width and height.
    size: (height, width) to clip them to; None: they are clipped at 0 only.

  Returns:
    float64 [n, 4].
  """
  boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
  low = np.maximum(boxes[:, :2], 0)
  high = boxes[:, 2:] - 1
  if size is not None:
    limit = np.array([size[1], size[0]]) - 1
    low, high = np.minimum(low, limit), np.minimum(high, limit)
  # A box thinner than a pixel becomes the pixel it lies in.
  return np.concatenate([low, np.maximum(high, low)], axis=1)


def check_cut(where: str, outside: int, number: int) -> None:
  """Raises InputError if most boxes of a detector are outside their images."""
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
  """Checks and converts the detections of an image.

  Returns:
    The detections, and how many were left out for an unknown object and for
    lying outside the image.
  """
  edges = parsing.boxes(where, boxes, "boxes", 0, None)
  chances = parsing.numbers(where, scores, "scores")
  parsing.same_length(where, boxes=edges, labels=objects, scores=chances)
  known = np.array([x is not None for x in objects], bool)
  check_scores(where, chances)
  numbers = np.array([-1 if x is None else x for x in objects], np.int32)
  inside = np.ones(len(edges), bool)
  if size is not None:
    inside = ~box_readings.empty_after_cut(edges, size)
  kept = known & inside
  return (
    ImageDetections.of(pixels(edges, size)[kept], numbers[kept], chances[kept]),
    int((~known).sum()),
    int((~inside).sum()),
  )
