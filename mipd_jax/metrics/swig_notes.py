"""What is odd about the boxes of two files, told before they are scored.

A file in another form than pixel corners is scored all the same, with grnd
near 0; whoever reads the figure has to know.
"""

from collections.abc import Callable, Collection

import numpy as np

from input_pipeline import boxes
from mipd_jax.metrics import swig_files

_TOLERANCE = 2.0  # pixels that a corner may lie outside without a word
_OFTEN = 0.5  # share of boxes from which something is told
# Another form is named where it fits this share of the boxes, and fits
# _TIMES as many as pixel corners do.
_FITS, _TIMES = 0.2, 3
_PIXELS = "boxes are x1, y1, x2, y2 in pixels of the original image"


def notes(flat: swig_files.Flat) -> list[str]:
  """One line for each thing, without the word "note"."""
  with np.errstate(over="ignore", invalid="ignore"):
    found = [*_sizes(flat), *_annotated(flat), *_predicted(flat)]
    return [*found, *_other_forms(flat)]


def of_unknown_nouns(classes: Collection[str] | None, annotations: str) -> str:
  """What the predicted noun "oov" was compared with."""
  if classes is None:
    return (
      "the noun 'oov' is predicted, but which nouns are out of the vocabulary "
      "is unknown, so it is never right; --classes=train_classes.csv tells"
    )
  return (
    f"the noun 'oov' is right where an annotated noun is not of the "
    f"{len(classes)} classes of the folder of {annotations}; "
    "--classes names others"
  )


def _sizes(flat: swig_files.Flat) -> list[str]:
  without = int(np.isnan(flat.size[:, 0]).sum())
  if not without:
    return []
  return [
    f"{without} of {len(flat.size)} annotated images have no height and "
    "width: their boxes are cut at 0 alone, not at the other edges"
  ]


def _annotated(flat: swig_files.Flat) -> list[str]:
  there = ~np.isnan(flat.true_box[:, 0])
  if not there.any():
    return ["the annotations have no box at all; grnd asks for none"]
  found = _forms(flat, flat.true_box, there, "annotated")
  cut = boxes.cut(flat.true_box, flat.sizes)
  empty = there & ~(boxes.area(cut) > 0)
  if empty.any():
    found.append(
      f"{empty.sum()} of {there.sum()} annotated boxes have no area within "
      f"their image ({_first(flat, empty, flat.true_box)}); variant coformer "
      "takes these roles as having no box, as a dataset with --skip-broken does"
    )
  changed = there & ~empty & (cut != flat.true_box).any(axis=1)
  if changed.any():
    found.append(
      f"{changed.sum()} of {there.sum()} annotated boxes leave their image "
      f"({_first(flat, changed, flat.true_box)}); variant coformer cuts them "
      "to it, as the dataset does (CoFormer's own code leaves them as they are)"
    )
  return found


def _predicted(flat: swig_files.Flat) -> list[str]:
  there = ~np.isnan(flat.predicted_box[:, 0])
  if not there.any():
    return []
  found = _forms(flat, flat.predicted_box, there, "predicted")
  empty = there & ~(boxes.area(boxes.cut(flat.predicted_box, flat.sizes)) > 0)
  if empty.any():
    found.append(
      f"{empty.sum()} of {there.sum()} predicted boxes have no area within "
      f"their image ({_first(flat, empty, flat.predicted_box)}); they are "
      "boxes that overlap nothing"
    )
  return found


def _forms(
  flat: swig_files.Flat, corners: np.ndarray, there: np.ndarray, what: str
) -> list[str]:
  """Whether all boxes are shares, or lie outside, or many do."""
  count, found = int(there.sum()), corners[there]
  sizes = flat.sizes[there]
  # A box within one pixel can be meant where the image is not much more.
  large = ~(sizes.max(axis=1) <= 4)
  shares = (found >= 0).all(axis=1) & (found <= 1).all(axis=1) & large
  if shares.all():
    return [
      f"every one of the {count} {what} boxes lies in 0..1, within the first "
      f"pixel: these look like shares of the image; {_PIXELS}"
    ]
  outside = boxes.area(found) > 0
  outside &= ~(boxes.area(boxes.cut(found, sizes)) > 0)
  if outside.all():
    return [
      f"every one of the {count} {what} boxes lies outside its image; {_PIXELS}"
    ]
  beyond = found[:, 2:] > sizes[:, ::-1] + _TOLERANCE
  leaves = beyond.any(axis=1) | (found < -_TOLERANCE).any(axis=1)
  if leaves.mean() > _OFTEN:
    return [
      f"{leaves.sum()} of {count} {what} boxes leave their image, the largest "
      f"corner is {found.max():g}: these may be of another scale, such as "
      f"0..1000; {_PIXELS}"
    ]
  return []


def _other_forms(flat: swig_files.Flat) -> list[str]:
  """Names a form in which far more predicted boxes overlap the annotated."""
  both = ~np.isnan(flat.true_box[:, 0]) & ~np.isnan(flat.predicted_box[:, 0])
  if not both.any():
    return []
  sizes = flat.sizes[both]
  true = boxes.cut(flat.true_box[both], sizes)
  given = flat.predicted_box[both]

  def fits(corners) -> float:
    return float(boxes.overlaps(boxes.cut(corners, sizes), true).mean())

  now = fits(given)
  shares = {name: fits(read(given, sizes)) for name, read in _FORMS.items()}
  best = max(shares, key=shares.get)
  if shares[best] < _FITS or shares[best] < _TIMES * now:
    return []
  return [
    f"read as {best}, {100 * shares[best]:.0f} % of the predicted boxes would "
    f"overlap their annotated ones by half, as given {100 * now:.0f} %; "
    f"{_PIXELS}"
  ]


def _scaled(corners, sizes, side=1.0):
  return corners * sizes[:, [1, 0, 1, 0]] / side


_FORMS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
  "x, y, width, height": lambda box, sizes: np.concatenate(
    [box[:, :2], box[:, :2] + box[:, 2:]], axis=1
  ),
  "centre x, centre y, width, height": lambda box, sizes: np.concatenate(
    [box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], axis=1
  ),
  "y1, x1, y2, x2": lambda box, sizes: box[:, [1, 0, 3, 2]],
  "shares of the image's sides": _scaled,
  "thousandths of the image's sides": lambda box, sizes: _scaled(
    box, sizes, 1000.0
  ),
}


def _first(flat: swig_files.Flat, rows: np.ndarray, corners: np.ndarray) -> str:
  row = int(rows.argmax())
  box = [float(f"{x:g}") for x in corners[row]]
  name = flat.names[flat.image[row]]
  return f"first: image {name}, role {flat.roles[row]!r}, {box}"
