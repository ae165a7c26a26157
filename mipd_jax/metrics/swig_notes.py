"""Notes on what is odd about two files, printed before they are scored.

Boxes in another form than pixel corners, and nouns of another list, are still
scored, with figures near 0; the reader has to know why.
"""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np

from input_pipeline import boxes
from input_pipeline.ov_swig import vocabulary
from mipd_jax.metrics import swig_files

_TOLERANCE = 2.0  # pixels that a corner may lie outside without a note
_OFTEN = 0.5  # share of boxes from which a note is made
# Another form is named where it fits this share of the boxes, and fits
# _TIMES as many as pixel corners do, or _MORE of all.
_FITS, _TIMES, _MORE = 0.2, 3, 0.3
# Boxes from which an overlap in a form that is tried is no chance; of fewer,
# every one has to overlap by _CLOSELY.
_SOME, _CLOSELY = 10, 0.8
_FEW = 20  # least number of boxes to judge by their places
_MANY = 100  # least number of nouns to judge that none is annotated
_ROUND = 0.05  # relative difference within which two sizes are the same
# The sides may be exchanged where this share, and number, of boxes leave.
_EXCHANGED, _SEVERAL = 0.1, 3
_PIXELS = "boxes are x1, y1, x2, y2 in pixels of the original image"


def notes(flat: swig_files.Flat) -> list[str]:
  """One line per note, without the word "note"."""
  with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
    lines = [*_sizes(flat), *_annotated(flat), *_predicted(flat)]
    return [*lines, *(_other_forms(flat) or _corner(flat))]


def of_unknown_nouns(classes: Collection[str] | None, annotations: str) -> str:
  """The note on what the predicted noun "oov" is compared with."""
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
  lines = _forms(flat, flat.true_box, there, "annotated")
  cut = boxes.cut(flat.true_box, flat.sizes)
  empty = there & ~(boxes.area(cut) > 0)
  if empty.any():
    lines.append(
      f"{empty.sum()} of {there.sum()} annotated boxes have no area within "
      f"their image ({_first(flat, empty, flat.true_box)}); variant coformer "
      "takes these roles as having no box, as a dataset with --skip-broken does"
    )
  changed = there & ~empty & (cut != flat.true_box).any(axis=1)
  if changed.any():
    lines.append(
      f"{changed.sum()} of {there.sum()} annotated boxes leave their image "
      f"({_first(flat, changed, flat.true_box)}); variant coformer cuts them "
      "to it, as the dataset does (CoFormer's own code leaves them as they are)"
    )
  return lines


def _predicted(flat: swig_files.Flat) -> list[str]:
  there = ~np.isnan(flat.predicted_box[:, 0])
  if not there.any():
    return []
  lines = _forms(flat, flat.predicted_box, there, "predicted")
  empty = there & ~(boxes.area(boxes.cut(flat.predicted_box, flat.sizes)) > 0)
  if empty.any():
    lines.append(
      f"{empty.sum()} of {there.sum()} predicted boxes have no area within "
      f"their image ({_first(flat, empty, flat.predicted_box)}); they are "
      "boxes that overlap nothing, null says that there is none"
    )
  return lines


def _forms(
  flat: swig_files.Flat, corners: np.ndarray, there: np.ndarray, what: str
) -> list[str]:
  """Notes if boxes [S, 4] are shares, or lie outside, or leave their images."""
  there = there & corners.any(axis=1)  # All zeros mean none.
  if not there.any():
    return []
  count, kept = int(there.sum()), corners[there]
  sizes = flat.sizes[there]
  # A box within one pixel can be meant where the image is not much more.
  large = ~(sizes.max(axis=1) <= 4)
  shares = (kept >= -_ROUND).all(axis=1) & (kept <= 1 + _ROUND).all(axis=1)
  shares &= large
  if shares.mean() > _OFTEN:
    which = f"{shares.sum()} of {count} {what} boxes lie"
    if shares.all():
      which = f"every one of the {count} {what} boxes lies"
    return [
      f"{which} in 0..1, within the first pixel: these look like shares of the "
      f"image; {_PIXELS}"
    ]
  outside = boxes.area(kept) > 0
  outside &= ~(boxes.area(boxes.cut(kept, sizes)) > 0)
  if outside.all():
    return [
      f"every one of the {count} {what} boxes lies outside its image; {_PIXELS}"
    ]
  leaves = _leave(kept, sizes)
  many = leaves.mean() > _EXCHANGED and leaves.sum() >= _SEVERAL
  if many and not _leave(kept, sizes[:, ::-1]).any():
    return [
      f"{leaves.sum()} of {count} {what} boxes leave their image, and none "
      "would with x and y, or height and width, exchanged"
    ]
  if leaves.mean() > _OFTEN:
    return [
      f"{leaves.sum()} of {count} {what} boxes leave their image, the largest "
      f"corner is {kept.max():g}: these may be of another scale, such as "
      f"0..1000; {_PIXELS}"
    ]
  return []


def _leave(corners: np.ndarray, sizes: np.ndarray) -> np.ndarray:
  """Whether boxes [S, 4] leave their images by more than the tolerance."""
  beyond = corners[:, 2:] > sizes[:, ::-1] + _TOLERANCE
  return beyond.any(axis=1) | (corners < -_TOLERANCE).any(axis=1)


def _corner(flat: swig_files.Flat) -> list[str]:
  """A note if all predicted boxes lie in one quarter."""
  there = ~np.isnan(flat.predicted_box[:, 0])
  corners, sizes = flat.predicted_box[there], flat.sizes[there, ::-1]
  upper_left = (corners[:, :2] + corners[:, 2:] < sizes).all(axis=1)
  if len(corners) < _FEW or not upper_left.all():
    return []
  return [
    f"each of the {len(corners)} predicted boxes has its centre in the upper "
    "left quarter of its image, as boxes of a smaller image, percent or x, y, "
    f"width, height would; {_PIXELS}"
  ]


def _other_forms(flat: swig_files.Flat) -> list[str]:
  """A note on a form in which far more predicted boxes overlap the truth."""
  both = ~np.isnan(flat.true_box[:, 0]) & ~np.isnan(flat.predicted_box[:, 0])
  there = ~np.isnan(flat.true_box[:, 0])
  if not both.any() or _forms(flat, flat.true_box, there, "annotated"):
    return []  # Nothing to compare with.
  sizes = flat.sizes[both]
  true = boxes.cut(flat.true_box[both], sizes)
  given = flat.predicted_box[both]

  def fits(corners, least=boxes.IOU_THRESHOLD) -> float:
    inside = boxes.cut(corners, sizes)
    # Otherwise any large number is a box of the whole image.
    is_inside = boxes.area(corners) <= 2 * boxes.area(inside)
    return float((is_inside & (_iou(inside, true) >= least)).mean())

  now = float(boxes.overlaps(boxes.cut(given, sizes), true).mean())
  best, name = 0.0, ""
  for form, corners, is_plain in _read_otherwise(given, sizes, true):
    share = fits(corners)
    if len(given) < _SOME and not is_plain and fits(corners, _CLOSELY) < 1:
      continue
    if share > best:
      best, name = share, form
  least = _FITS if len(given) >= _SOME else _OFTEN
  if best < least or (best < _TIMES * now and best - now < _MORE):
    return []
  return [
    f"read as {name}, {100 * best:.0f} % of the predicted boxes would "
    f"overlap their annotated ones by half, as given {100 * now:.0f} %; "
    f"{_PIXELS}"
  ]


def _iou(some: np.ndarray, others: np.ndarray) -> np.ndarray:
  """IoU of boxes [S, 4] row by row; 0 where neither has an area."""
  low = np.maximum(some[:, :2], others[:, :2])
  high = np.minimum(some[:, 2:], others[:, 2:])
  shared = np.prod(np.maximum(high - low, 0), axis=1)
  union = boxes.area(some) + boxes.area(others) - shared
  return np.nan_to_num(shared / np.where(union > 0, union, 1))


def _read_otherwise(
  given: np.ndarray, sizes: np.ndarray, true: np.ndarray
) -> Iterator[tuple[str, np.ndarray, bool]]:
  """(form, pixel corners, whether it is one of a few usual forms) of boxes.

  Every layout in every unit at its usual sizes; for corners as given also at
  the size that makes the areas equal.
  """
  for layout, corners_of in _LAYOUTS.items():
    corners = corners_of(given)
    if layout:
      yield layout, corners, layout in _USUAL_LAYOUTS
    for sized_name, (to_pixels, usual) in _UNITS.items():
      ratio = boxes.area(to_pixels(corners, sizes, 1.0)) / boxes.area(true)
      ratio = ratio[np.isfinite(ratio) & (ratio > 0)]
      fitting = {}
      if ratio.size and not layout:
        side = float(np.sqrt(np.median(ratio)))
        fitting = {
          side: sized_name.format(
            f"{side:.3g}" if side < 100 else f"{side:.0f}"
          )
        }
      for side, name in (fitting | usual).items():
        if name not in usual.values() and any(
          abs(side / other - 1) < _ROUND for other in (*usual, 1.0)
        ):
          continue
        is_plain = not layout and name in _USUAL_UNITS
        form = f"{layout}, in {name}" if layout else name
        yield form, to_pixels(corners, sizes, side), is_plain


_LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
  "": lambda box: box,
  "x, y, width, height": lambda box: np.concatenate(
    [box[:, :2], box[:, :2] + box[:, 2:]], axis=1
  ),
  "centre x, centre y, width, height": lambda box: np.concatenate(
    [box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2], axis=1
  ),
  "y1, x1, y2, x2": lambda box: box[:, [1, 0, 3, 2]],
  "x1, x2, y1, y2": lambda box: box[:, [0, 2, 1, 3]],
}
_USUAL_LAYOUTS = tuple(_LAYOUTS)[1:4]
_SHARES = "shares of the image's sides"
_PERCENT = "percent of the image's sides"
_THOUSANDTHS = "thousandths of the image's sides"
_USUAL_UNITS = (_SHARES, _PERCENT, _THOUSANDTHS)


def _by_sides(corners, sizes, side):
  return corners * sizes[:, [1, 0, 1, 0]] / side


def _by_longer(corners, sizes, side):
  return corners * sizes.max(axis=1)[:, None] / side


def _by_shorter(corners, sizes, side):
  return corners * sizes.min(axis=1)[:, None] / side


def _in_square(corners, sizes, side):
  longer = sizes.max(axis=1)[:, None]
  return corners * longer / side - (longer - sizes[:, [1, 0, 1, 0]]) / 2


def _by_factor(corners, sizes, side):
  return corners / side


# The unit, with its size -> how to make pixels of it, and its usual sizes.
_UNITS: dict[str, tuple[Callable[..., np.ndarray], dict[float, str]]] = {
  "pixels of the image resized to about {0} x {0}": (
    _by_sides,
    {1.0: _SHARES, 100.0: _PERCENT, 1000.0: _THOUSANDTHS},
  ),
  "pixels of a square of about {0} x {0} with the image in its middle": (
    _in_square,
    {1.0: "shares of a square with the image in its middle"},
  ),
  "pixels of the image resized to a longer side of about {0}": (_by_longer, {}),
  "pixels of the image resized to a shorter side of about {0}": (
    _by_shorter,
    {},
  ),
  "pixels of the image resized to about {0} times its size": (_by_factor, {}),
}


def of_nouns(
  predictions: Mapping[str, Any],
  annotations: Mapping[str, swig_files.Annotation],
) -> list[str]:
  """Notes if predicted nouns have other names than the annotated ones.

  Args:
    predictions, annotations: as `swig_files.flatten` takes them.
  """
  true = {
    noun
    for annotation in annotations.values()
    for nouns in annotation.nouns
    for noun in nouns
    if noun
  }
  if not true:
    return ["the annotations have no noun at all; value asks for blank"]
  said = [
    filler["noun"]
    for name, annotation in annotations.items()
    for filler in predictions[name]["frames"][annotation.verb].values()
    if filler["noun"] not in ("", vocabulary.BLANK)
  ]
  strange = [n for n in said if n not in true and n != vocabulary.OOV]
  if not strange:
    return []
  by_form = {vocabulary.folded(noun): noun for noun in true}
  by_form |= {noun: noun for noun in (vocabulary.BLANK, vocabulary.OOV)}
  alike = [n for n in strange if vocabulary.folded(n) in by_form]
  nothing = [n for n in strange if vocabulary.folded(n) in _NOTHING]
  of_ids = [bool(_ID.fullmatch(noun)) for noun in true]
  are_ids = all(of_ids)
  other = [
    n
    for n in strange
    if n not in alike
    and n not in nothing
    and (not _ID.fullmatch(n) if are_ids else _ID.fullmatch(n))
  ]
  other = other if are_ids or not any(of_ids) else []
  lines = []
  if alike:
    like = by_form[vocabulary.folded(alike[0])]
    lines.append(
      f"{len(alike)} of {len(said)} predicted nouns differ only in capitals, "
      f"spaces or the form of letters from an annotated one, and are wrong: "
      f"{alike[0]!r} is {like!r} there"
    )
  if nothing:
    lines.append(
      f"{len(nothing)} of {len(said)} predicted nouns are {nothing[0]!r}, "
      "which is wrong everywhere; '' or 'blank' says: nothing"
    )
  if other:
    here = "no WordNet ids" if are_ids else "WordNet ids"
    there = "ids" if are_ids else "words"
    lines.append(
      f"{len(other)} of {len(said)} predicted nouns are {here}, such as "
      f"{other[0]!r}, where the annotations have {there}, such as "
      f"{min(true)!r}: they are wrong everywhere"
    )
  if not lines and len(said) >= _MANY and len(strange) > _OFTEN * len(said):
    lines.append(
      f"{len(strange)} of {len(said)} predicted nouns, such as {strange[0]!r}, "
      f"are none of the {len(true)} annotated ones, such as {min(true)!r}"
    )
  return lines


_ID = re.compile(r"n\d+")  # WordNet's, as SWiG writes them
_NOTHING = ("", "none", "null", "nothing", "nan", "n/a", "-", "pad")


def _first(flat: swig_files.Flat, rows: np.ndarray, corners: np.ndarray) -> str:
  row = int(rows.argmax())
  box = [float(f"{x:g}") for x in corners[row]]
  name = flat.names[flat.image[row]]
  return f"first: image {name}, role {flat.roles[row]!r}, {box}"
