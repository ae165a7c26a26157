"""Scores any model's predictions on SWiG; needs numpy alone.

  python -m mipd_jax.metrics.swig --predictions=P.json --annotations=test.json

Protocol (Pratt et al., Grounded Situation Recognition, ECCV 2020): the frame
that is scored is the one predicted for the true verb, and it counts where
that verb is first (top1), among the first five (top5), or always (gt).

  value       share of roles whose noun is among the three annotations
  value_all   all roles right
  grnd        share of roles with a right noun and a right grounding: IoU of at
              least 0.5 where there is a box, none predicted where there is none
  grnd_all    all of them

Figures are percent over images; under "macro", averaged over verbs. Boxes
are taken as they are: who wants them cut to the image cuts them before.
The forms of both files are told in `swig_files`, and by --help.
"""

import argparse
import json
import sys

import numpy as np

from input_pipeline.errors import InputError
from mipd_jax.metrics import swig_files

IOU_THRESHOLD = 0.5
_FRAME = ("value", "value_all", "grnd", "grnd_all")
SCORES = (
  "verb_top1",
  "verb_top5",
  *(f"{name}_{when}" for when in ("top1", "top5", "gt") for name in _FRAME),
)


def score(flat: swig_files.Flat) -> dict:
  """All scores in percent, "macro" and "images", from `flatten`'s arrays."""
  columns = _per_image(flat)
  counts = np.bincount(flat.verb, minlength=len(flat.verbs))
  sums = np.stack(
    [np.bincount(flat.verb, x, len(flat.verbs)) for x in columns.T], axis=-1
  )
  micro = 100 * columns.mean(axis=0)
  macro = 100 * (sums / counts[:, None]).mean(axis=0)

  def named(values):
    return dict(zip(SCORES, map(float, values), strict=True))

  return named(micro) | {"macro": named(macro), "images": len(columns)}


def _per_image(flat: swig_files.Flat) -> np.ndarray:
  """Scores of each image in 0..1: [N, len(SCORES)]."""
  right_box = _right_boxes(flat.predicted_box, flat.true_box)
  grounded = flat.right_noun & right_box
  roles = np.diff(flat.start, append=len(grounded))

  def hits(right):
    return np.add.reduceat(right.astype(np.int64), flat.start)

  value, grnd = hits(flat.right_noun), hits(grounded)
  frame = np.stack(
    [value / roles, value == roles, grnd / roles, grnd == roles], axis=-1
  )
  verb = np.stack([flat.rank < 1, flat.rank < swig_files.TOP], axis=-1)
  conditions = (verb[:, :1], verb[:, 1:], 1)
  return np.concatenate([verb, *(frame * c for c in conditions)], axis=-1)


def _right_boxes(predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
  """[S] whether each grounding is right; NaN boxes are absent."""
  exists, found = ~np.isnan(true[:, 0]), ~np.isnan(predicted[:, 0])
  low = np.maximum(predicted[:, :2], true[:, :2])
  high = np.minimum(predicted[:, 2:], true[:, 2:])
  intersection = np.prod(np.maximum(high - low, 0), axis=-1)

  def area(boxes):
    # Corners the wrong way round are a box without area.
    return np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=-1)

  union = area(predicted) + area(true) - intersection
  # Not a division, which a pair without area could not take.
  overlaps = (intersection >= IOU_THRESHOLD * union) & (union > 0)
  return np.where(exists, found & overlaps, ~found)


def _print_table(found: dict, out) -> None:
  """The same figures for people; the JSON line follows."""
  print(f"{found['images']} images", file=out)
  print(f"{'':10}{'top1':>10}{'top5':>10}{'gt':>10}", file=out)
  for name in ("verb", *_FRAME):
    row = (found.get(f"{name}_{when}") for when in ("top1", "top5", "gt"))
    cells = ("" if x is None else f"{x:.2f}" for x in row)
    print(f"{name:10}" + "".join(f"{cell:>10}" for cell in cells), file=out)


def main(arguments: list[str] | None = None) -> int:
  """Command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m mipd_jax.metrics.swig",
    description=f"{__doc__}\n{swig_files.__doc__}",
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--predictions", required=True, help="JSON file")
  parser.add_argument("--annotations", required=True, help="SWiG's JSON file")
  given = parser.parse_args(arguments)
  try:
    annotations = swig_files.read_annotations(given.annotations)
    predictions = swig_files.read_predictions(given.predictions)
    found = score(swig_files.flatten(predictions, annotations))
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  _tell_what_is_odd(predictions, annotations)
  _print_table(found, sys.stdout)
  print(json.dumps(found))
  return 0


def _tell_what_is_odd(predictions: dict, annotations: dict) -> None:
  extra = len(predictions) - len(annotations)
  if extra:
    print(f"note: {extra} predicted images are not annotated", file=sys.stderr)
  if not any(any(a.boxes) for a in annotations.values()):
    print(
      "note: the annotations have no box at all; grnd asks for none",
      file=sys.stderr,
    )


if __name__ == "__main__":
  sys.exit(main())
