"""Predictions and annotations of SWiG as JSON: read, checked, flattened.

Predictions, of any model:

  {"img.jpg": {"verbs": [at least 5, best first],
               "frames": {verb: {role: {"noun": "n..." or "",
                                        "box": [x1, y1, x2, y2] or null}}}}}

with a frame for every listed verb and for the true one. Annotations are
SWiG's own: {"img.jpg": {"verb", "bb": {role: box}, "frames": [{role: noun},
x3]}}. Boxes are in pixels of the original image; null is predicted absent,
[-1, -1, -1, -1] is truly absent, "" is the noun blank.
"""

import dataclasses
import math
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from input_pipeline.errors import InputError
from input_pipeline.vocabulary import read_json

TOP = 5
_ABSENT = [-1, -1, -1, -1]  # in SWiG's files
_NO_BOX = [math.nan] * 4  # in our arrays
_FORM = "python -m mipd_jax.metrics.swig --help shows the form"


@dataclasses.dataclass(frozen=True)
class Annotation:
  """What is true of an image: R roles.

  Attributes:
    verb: its name.
    roles: names in the order of the frame.
    nouns: per role, the nouns that annotators gave.
    boxes: per role, x1 y1 x2 y2 or None where absent.
  """

  verb: str
  roles: tuple[str, ...]
  nouns: tuple[frozenset[str], ...]
  boxes: tuple[list[float] | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Flat:
  """All images side by side, N of them, and their roles, S in all.

  Attributes:
    verb: [N] index into `verbs`.
    verbs: names.
    rank: [N] place of the true verb among the predicted ones, TOP if later.
    start: [N] first role of each image; every image has one.
    right_noun: [S] whether the noun is among the annotations.
    true_box, predicted_box: [S, 4] corners, NaN where absent.
  """

  verb: np.ndarray
  verbs: tuple[str, ...]
  rank: np.ndarray
  start: np.ndarray
  right_noun: np.ndarray
  true_box: np.ndarray
  predicted_box: np.ndarray


def read_annotations(path: str | pathlib.Path) -> dict[str, Annotation]:
  """Annotations by image name, in the file's order.

  Raises:
    InputError: the file, an image or a role cannot be used; it is named.
  """
  content = _read_object(path, "annotations")
  if not content:
    raise InputError(f"{path} has no image", "give a split's JSON of SWiG")
  return {
    name: _annotation(record, f"{path}: image {name}")
    for name, record in content.items()
  }


def read_predictions(path: str | pathlib.Path) -> dict[str, Any]:
  """Predictions by image name; `flatten` checks them.

  Raises:
    InputError: the file is missing, cut off or not an object.
  """
  return _read_object(path, "predictions")


def flatten(
  predictions: Mapping[str, Any], annotations: Mapping[str, Annotation]
) -> Flat:
  """Puts both side by side, in the order of the annotations.

  Predictions of other images are left out.

  Raises:
    InputError: an image is missing, or its prediction is not of the form; the
      message names image, verb and role.
  """
  missing = [name for name in annotations if name not in predictions]
  if missing:
    raise InputError(
      f"{len(missing)} of {len(annotations)} annotated images have no "
      f"prediction: {', '.join(missing[:5])}{', ...' if missing[5:] else ''}",
      "predict every image of the annotations",
    )
  verbs = tuple(sorted({a.verb for a in annotations.values()}))
  number = {verb: i for i, verb in enumerate(verbs)}
  ranks, starts, nouns, true, predicted = [], [], [], [], []
  for name, annotation in annotations.items():
    where = f"predictions: image {name}"
    rank, frame = _check_prediction(predictions[name], annotation, where)
    ranks.append(rank)
    starts.append(len(nouns))
    for role, right, box in zip(
      annotation.roles, annotation.nouns, annotation.boxes, strict=True
    ):
      nouns.append(frame[role]["noun"] in right)
      true.append(box or _NO_BOX)
      predicted.append(frame[role]["box"] or _NO_BOX)
  return Flat(
    verb=np.array([number[a.verb] for a in annotations.values()]),
    verbs=verbs,
    rank=np.array(ranks),
    start=np.array(starts),
    right_noun=np.array(nouns),
    true_box=np.array(true, np.float64),
    predicted_box=np.array(predicted, np.float64),
  )


def _read_object(path: str | pathlib.Path, what: str) -> dict[str, Any]:
  content = read_json(pathlib.Path(path))
  if not isinstance(content, dict):
    raise InputError(
      f"{path} holds a {type(content).__name__}, expected {what} by image name",
      _FORM,
    )
  return content


def _annotation(record: Any, where: str) -> Annotation:
  if not isinstance(record, dict) or not isinstance(record.get("verb"), str):
    raise InputError(f"{where} has no 'verb'", "give SWiG's own JSON")
  frames, boxes = record.get("frames"), record.get("bb") or {}
  if (
    not isinstance(frames, list)
    or not frames
    or not all(isinstance(frame, dict) for frame in frames)
    or not any(frames)
  ):
    raise InputError(
      f"{where}: 'frames' is not a list of objects with roles",
      "give one object {role: noun} per annotator",
    )
  roles = tuple(dict.fromkeys(role for frame in frames for role in frame))
  unknown = [role for role in boxes if role not in roles]
  if unknown:
    raise InputError(
      f"{where}: 'bb' has the role {unknown[0]!r}, 'frames' has not",
      f"the roles are {list(roles)}",
    )
  found = []
  for role in roles:
    box = boxes.get(role)
    absent = box is None or box == _ABSENT
    if not absent and not _is_box(box):
      raise _bad_box(f"{where}: role {role!r}", box)
    found.append(None if absent else box)
  nouns = tuple(frozenset(f.get(role, "") for f in frames) for role in roles)
  return Annotation(record["verb"], roles, nouns, tuple(found))


def _check_prediction(
  prediction: Any, annotation: Annotation, where: str
) -> tuple[int, Mapping[str, Any]]:
  """The true verb's place among the predicted ones, and its frame."""
  prediction = prediction if isinstance(prediction, dict) else {}
  verbs, frames = prediction.get("verbs"), prediction.get("frames")
  if (
    not isinstance(verbs, list)
    or not all(isinstance(verb, str) for verb in verbs)
    or len(set(verbs)) < len(verbs)
    or len(verbs) < TOP
  ):
    raise InputError(
      f"{where}: 'verbs' is not a list of at least {TOP} different names",
      f"list them best first; {_FORM}",
    )
  if not isinstance(frames, dict):
    raise InputError(f"{where} has no 'frames'", _FORM)
  for verb in (*verbs, annotation.verb):
    if not isinstance(frames.get(verb), dict):
      which = "true" if verb == annotation.verb else "listed"
      raise InputError(
        f"{where}: no frame for the {which} verb {verb!r}",
        "predict a frame for every listed verb and for the true one",
      )
  for verb, frame in frames.items():
    for role, filler in frame.items():
      _check_filler(filler, where, verb, role)
  frame = frames[annotation.verb]
  if frame.keys() != set(annotation.roles):
    lacking = [role for role in annotation.roles if role not in frame]
    extra = [role for role in frame if role not in annotation.roles]
    what = f"lacks the role {lacking[0]!r}" if lacking else ""
    what = what or f"has the role {extra[0]!r}"
    raise InputError(
      f"{where}: the frame of {annotation.verb!r} {what}",
      f"the roles are {list(annotation.roles)}",
    )
  return min(TOP, _index(verbs, annotation.verb)), frame


def _check_filler(filler: Any, where: str, verb: str, role: str) -> None:
  if (
    not isinstance(filler, dict)
    or not isinstance(filler.get("noun"), str)
    or "box" not in filler
  ):
    raise InputError(
      f"{where}: role {role!r} of {verb!r} is {filler!r}",
      "give {'noun': WordNet id or '', 'box': [x1, y1, x2, y2] or null}",
    )
  box = filler["box"]
  if box is not None and not _is_box(box):
    raise _bad_box(f"{where}: role {role!r} of {verb!r}", box)


def _is_box(box: Any) -> bool:
  return (
    isinstance(box, list)
    and len(box) == 4
    and all(
      isinstance(x, (int, float)) and not isinstance(x, bool) for x in box
    )
    and all(map(math.isfinite, box))
  )


def _bad_box(where: str, box: Any) -> InputError:
  return InputError(
    f"{where} has the box {box!r}",
    "give four numbers in pixels, x1 y1 x2 y2, or null for none",
  )


def _index(verbs: list[str], verb: str) -> int:
  return verbs.index(verb) if verb in verbs else TOP
