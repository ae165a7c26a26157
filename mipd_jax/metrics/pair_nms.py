"""Pairwise non-maximum suppression of one image's hypotheses.

As GEN-VLKT's `--use_nms_filter` does it: of two pairs with the same
interaction the worse one goes where (IoU of the persons) * (IoU of the
objects) ** 0.5 exceeds a threshold, 0.7 there.
"""

import numpy as np

from mipd_jax.metrics.hico_det_matching import Detections, iou

_OBJECT_POWER = 0.5


def suppress(found: Detections, threshold: float) -> Detections:
  """What is left of one image's detections, the best first."""
  order = np.argsort(-found.score, kind="stable")
  kept: list[int] = []
  for row in order:
    same = [i for i in kept if found.interaction[i] == found.interaction[row]]
    if not same or _overlap(found.boxes, row, same).max() <= threshold:
      kept.append(int(row))
  return Detections(
    found.image[kept],
    found.boxes[kept],
    found.interaction[kept],
    found.score[kept],
  )


def _overlap(boxes: np.ndarray, row: int, others: list[int]) -> np.ndarray:
  mine = np.repeat(boxes[row : row + 1], len(others), axis=0)
  theirs = boxes[others]
  persons = iou(mine[:, :4], theirs[:, :4])
  return persons * iou(mine[:, 4:], theirs[:, 4:]) ** _OBJECT_POWER
