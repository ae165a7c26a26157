"""Predictions and annotations of SWiG as JSON: read, checked, flattened.

Predictions, of any model:

  {"img.jpg": {"verbs": [at least 5, best first],
               "frames": {verb: {role: {"noun": "n..." or "",
                                        "box": [x1, y1, x2, y2] or null}}}}}

with a frame for every listed verb and for the true one; fewer than five verbs
where the files have fewer in all. Annotations are SWiG's own: {"img.jpg":
{"verb", "height", "width", "bb": {role: box}, "frames": [{role: noun}, x3]}}.

Boxes are in pixels of the original image, x2 >= x1 and y2 >= y1. No box is
null or [-1, -1, -1, -1]; an annotated one whose first number is -1 is none.
"" and "blank" are both the noun that says: nothing. "oov" is the noun of every
annotated id that the model has no class for.
"""

import csv
import dataclasses
import math
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np

from input_pipeline import boxes as box_rule
from input_pipeline import schema
from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout, vocabulary
from mipd_jax.metrics.swig_scores import TOP

_NO_BOX = [math.nan] * 4  # in our arrays
_FORM = "python -m mipd_jax.metrics.swig --help shows the form"


@dataclasses.dataclass(frozen=True)
class Annotation:
  """The annotation of an image with R roles.

  Attributes:
    verb: its name.
    roles: names in the order of the frame.
    nouns: per role, the nouns that annotators gave; "" is blank.
    boxes: per role, x1 y1 x2 y2 as annotated, or None where absent.
    size: height and width in pixels; None if the file does not say.
  """

  verb: str
  roles: tuple[str, ...]
  nouns: tuple[frozenset[str], ...]
  boxes: tuple[list[float] | None, ...]
  size: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Flat:
  """All images side by side, N of them, and their roles, S in all.

  Attributes:
    verb: [N] index into `verbs`.
    verbs: names.
    rank: [N] place of the true verb among the predicted ones, TOP if later.
    image: [S] index of the image that each role belongs to.
    right_noun: [S] whether the noun is among the annotations.
    true_box, predicted_box: [S, 4] corners as in the files, NaN where absent.
    size: [N, 2] height and width, NaN where unknown.
    names: of the images.
    roles: names of the S roles.
  """

  verb: np.ndarray
  verbs: tuple[str, ...]
  rank: np.ndarray
  image: np.ndarray
  right_noun: np.ndarray
  true_box: np.ndarray
  predicted_box: np.ndarray
  size: np.ndarray
  names: tuple[str, ...]
  roles: tuple[str, ...]

  @property
  def sizes(self) -> np.ndarray:
    """[S, 2] height and width of the image of each role."""
    return self.size[self.image]


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


def read_groups(path: str | pathlib.Path) -> dict[str, int]:
  """Group of each verb, an index into `schema.GROUPS`, of an ov_splits.json.

  Raises:
    InputError: the file lacks one of the three lists, or has a verb in two.
  """
  form = {group: [str] for group in schema.GROUPS}
  content = json_files.read(path, form, "give an ov_splits.json")
  groups: dict[str, int] = {}
  for number, group in enumerate(schema.GROUPS):
    for verb in content[group]:
      if verb in groups:
        raise InputError(
          f"{path} has the verb {verb!r} in {schema.GROUPS[groups[verb]]!r} "
          f"and again in {group!r}",
          "keep it in one list",
        )
      groups[verb] = number
  return groups


def read_classes(path: str | pathlib.Path) -> frozenset[str]:
  """The noun classes of a train_classes.csv, which has 'noun,index' lines.

  Raises:
    InputError: the file is missing, or a line is not of the form.
  """
  rows = list(csv.reader(json_files.read_text(path).splitlines()))
  for number, row in enumerate(rows, 1):
    if row and (len(row) != 2 or not row[1].strip().isdecimal()):
      raise InputError(
        f"{path} line {number}: {','.join(row)!r}",
        "give SWiG's train_classes.csv, one 'noun,index' a line",
      )
  return frozenset(row[0] for row in rows if row)


def classes_beside(annotations: str | pathlib.Path) -> frozenset[str] | None:
  """The noun classes in the annotations' folder; None if it has none."""
  folder = pathlib.Path(annotations).parent
  if (folder / layout.NOUN_FILE).exists():
    return read_classes(folder / layout.NOUN_FILE)
  if not (folder / layout.SPACE_FILE).exists():
    return None
  return frozenset(vocabulary.load(folder).nouns)


def says_unknown(
  predictions: Mapping[str, Any], annotations: Mapping[str, Annotation]
) -> bool:
  """Whether a role of a true verb is filled with "oov" (after `flatten`)."""
  return any(
    filler["noun"] == vocabulary.OOV
    for name, annotation in annotations.items()
    for filler in predictions[name]["frames"][annotation.verb].values()
  )


def flatten(
  predictions: Mapping[str, Any],
  annotations: Mapping[str, Annotation],
  classes: Collection[str] | None = None,
) -> Flat:
  """Puts both side by side, in the order of the annotations.

  Predictions of other images are left out.

  Args:
    predictions: from `read_predictions`.
    annotations: from `read_annotations`.
    classes: the nouns that the model has classes for; any other annotated noun
      is "oov" to it. None: it has classes for all.

  Raises:
    InputError: an image is missing, or its prediction is not of the form; the
      message names image, verb and role.
  """
  missing = [name for name in annotations if name not in predictions]
  if missing:
    like = {_bare(name): name for name in predictions}.get(_bare(missing[0]))
    raise InputError(
      f"{len(missing)} of {len(annotations)} annotated images have no "
      f"prediction: {', '.join(missing[:5])}{', ...' if missing[5:] else ''}"
      + (f"; {like!r} is there" if like else ""),
      "predict every image of the annotations"
      + (", and name them as these do" if like else ""),
    )
  needed = min(TOP, _count_verbs(predictions, annotations))
  verbs = tuple(sorted({a.verb for a in annotations.values()}))
  number = {verb: i for i, verb in enumerate(verbs)}
  ranks, image, nouns, true, predicted, roles = [], [], [], [], [], []
  for row, (name, annotation) in enumerate(annotations.items()):
    where = f"predictions: image {name}"
    try:
      rank, frame = _check_prediction(
        predictions[name], annotation, where, needed
      )
    except _Flipped as error:
      raise _flipped_prediction(error, predictions, annotations) from None
    ranks.append(rank)
    for role, right, box in zip(
      annotation.roles, annotation.nouns, annotation.boxes, strict=True
    ):
      image.append(row)
      roles.append(role)
      nouns.append(_is_right(frame[role]["noun"], right, classes))
      true.append(box or _NO_BOX)
      guess = frame[role]["box"]
      predicted.append(_NO_BOX if _says_none(guess) else guess)
  return Flat(
    verb=np.array([number[a.verb] for a in annotations.values()]),
    verbs=verbs,
    rank=np.array(ranks),
    image=np.array(image),
    right_noun=np.array(nouns),
    true_box=np.array(true, np.float64),
    predicted_box=np.array(predicted, np.float64),
    size=np.array(
      [a.size or (math.nan, math.nan) for a in annotations.values()], float
    ),
    names=tuple(annotations),
    roles=tuple(roles),
  )


def _bare(name: str) -> str:
  """An image's name without folders, extension and capitals."""
  return vocabulary.folded(
    re.split(r"[/\\]", name)[-1].rpartition(".")[0] or name
  )


def _is_right(
  noun: str, annotated: frozenset[str], classes: Collection[str] | None
) -> bool:
  noun = _plain(noun)
  if noun in annotated:
    return True
  if noun != vocabulary.OOV or classes is None:
    return False
  return any(other and other not in classes for other in annotated)


def _plain(noun: str) -> str:
  """The noun; "" for both names of blank."""
  return "" if noun == vocabulary.BLANK else noun


def _says_none(box: Any) -> bool:
  """Whether a predicted box says that there is none."""
  return box is None or tuple(box) == box_rule.ABSENT


def _count_verbs(
  predictions: Mapping[str, Any], annotations: Mapping[str, Annotation]
) -> int:
  """Number of verbs in both files; skips what is not of the form."""
  verbs = {annotation.verb for annotation in annotations.values()}
  for name in annotations:
    if not isinstance(predictions[name], dict):
      continue
    for part in ("verbs", "frames"):
      listed = predictions[name].get(part)
      if isinstance(listed, (list, dict)):
        verbs.update(verb for verb in listed if isinstance(verb, str))
  return len(verbs)


def _read_object(path: str | pathlib.Path, what: str) -> dict[str, Any]:
  content = json_files.read(path)
  if not isinstance(content, dict):
    raise InputError(
      f"{path} holds a {type(content).__name__}, expected {what} by image name",
      _FORM,
    )
  return content


def _annotation(record: Any, where: str) -> Annotation:
  if not isinstance(record, dict) or not isinstance(record.get("verb"), str):
    raise InputError(f"{where} has no 'verb'", "give SWiG's own JSON")
  frames, boxes = record.get("frames"), record.get("bb")
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
  boxes = {} if boxes is None else boxes
  if not isinstance(boxes, dict):
    raise InputError(
      f"{where}: 'bb' is a {type(boxes).__name__}",
      "give an object {role: [x1, y1, x2, y2] or [-1, -1, -1, -1]}",
    )
  roles = tuple(dict.fromkeys(role for frame in frames for role in frame))
  unknown = [role for role in boxes if role not in roles]
  if unknown:
    raise InputError(
      f"{where}: 'bb' has the role {unknown[0]!r}, 'frames' has not",
      f"the roles are {list(roles)}",
    )
  return Annotation(
    verb=record["verb"],
    roles=roles,
    nouns=tuple(_annotated_nouns(frames, role, where) for role in roles),
    boxes=tuple(
      _annotated_box(boxes.get(role), f"{where}: role {role!r}")
      for role in roles
    ),
    size=_size(record, where),
  )


def _annotated_nouns(
  frames: list[dict[str, Any]], role: str, where: str
) -> frozenset[str]:
  nouns = [frame.get(role, "") for frame in frames]
  for number, noun in enumerate(nouns, 1):
    if not isinstance(noun, str):
      raise InputError(
        f"{where}: role {role!r}: annotator {number} gives the noun {noun!r}",
        "a noun is a WordNet id such as 'n02084071', or '' for none",
      )
  return frozenset(map(_plain, nouns))


def _annotated_box(box: Any, where: str) -> list[float] | None:
  if box_rule.is_absent(box):
    return None
  if not box_rule.is_box(box):
    raise _bad_box(where, box)
  if box_rule.is_flipped(box):
    raise InputError(
      f"{where} has the box {box!r}, whose corners are the wrong way round",
      "give x1, y1, x2, y2 in pixels with x1 <= x2 and y1 <= y2; x, y, width, "
      "height is another form",
    )
  return box


def _size(record: dict[str, Any], where: str) -> tuple[float, float] | None:
  if record.get("height") is None or record.get("width") is None:
    return None
  size = (record["height"], record["width"])
  if not box_rule.is_box([*size, 0, 0]) or min(size) <= 0:
    raise InputError(
      f"{where}: height and width are {_short(size)}",
      "give both in pixels, or leave both out",
    )
  return size


def _check_prediction(
  prediction: Any, annotation: Annotation, where: str, needed: int
) -> tuple[int, Mapping[str, Any]]:
  """The true verb's place among the predicted ones, and its frame."""
  prediction = prediction if isinstance(prediction, dict) else {}
  verbs, frames = prediction.get("verbs"), prediction.get("frames")
  if (
    not isinstance(verbs, list)
    or not all(isinstance(verb, str) for verb in verbs)
    or len(set(verbs)) < len(verbs)
    or len(verbs) < needed
  ):
    raise InputError(
      f"{where}: 'verbs' is not a list of at least {needed} different names",
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
    if not isinstance(frame, dict):
      raise InputError(
        f"{where}: the frame of {verb!r} is {_short(frame)}",
        "give an object {role: {'noun': ..., 'box': ...}}",
      )
    for role, filler in frame.items():
      _check_filler(filler, f"{where}: role {role!r} of {verb!r}")
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


class _Flipped(Exception):
  """A predicted box whose corners are the wrong way round."""


def _check_filler(filler: Any, where: str) -> None:
  if (
    not isinstance(filler, dict)
    or not isinstance(filler.get("noun"), str)
    or "box" not in filler
  ):
    raise InputError(
      f"{where} is {_short(filler)}",
      "give {'noun': WordNet id or '', 'box': [x1, y1, x2, y2] or null}",
    )
  box = filler["box"]
  if box is None:
    return
  if not box_rule.is_box(box):
    raise _bad_box(where, box)
  if box_rule.is_flipped(box):
    raise _Flipped(where, box)


def _flipped_prediction(
  error: _Flipped,
  predictions: Mapping[str, Any],
  annotations: Mapping[str, Annotation],
) -> InputError:
  """Says how many boxes are flipped: few are mistakes, many another form."""
  where, box = error.args
  all_boxes = list(_all_boxes(predictions, annotations))
  flipped = sum(map(box_rule.is_flipped, all_boxes))
  return InputError(
    f"{where} has the box {box!r}, whose corners are the wrong way round, as "
    f"have {flipped} of {len(all_boxes)} boxes",
    "give x1, y1, x2, y2 in pixels with x1 <= x2 and y1 <= y2; where many are "
    "so, they may be x, y, width, height",
  )


def _all_boxes(
  predictions: Mapping[str, Any], annotations: Mapping[str, Annotation]
) -> Iterator[Any]:
  """Every predicted box, whatever is wrong with the rest."""
  for name in annotations:
    frames = predictions[name]
    frames = frames.get("frames") if isinstance(frames, dict) else None
    for frame in frames.values() if isinstance(frames, dict) else ():
      for filler in frame.values() if isinstance(frame, dict) else ():
        box = filler.get("box") if isinstance(filler, dict) else None
        if box_rule.is_box(box):
          yield box


def _bad_box(where: str, box: Any) -> InputError:
  return InputError(
    f"{where} has the box {_short(box)}",
    "give four numbers in pixels, x1 y1 x2 y2, or null for none",
  )


def _short(value: Any) -> str:
  """A value for a message, shortened."""
  try:
    text = repr(value)
  except ValueError:  # of int: more digits than Python writes
    return f"a {type(value).__name__}"
  return text if len(text) <= 120 else f"{text[:117]}..."


def _index(verbs: list[str], verb: str) -> int:
  return verbs.index(verb) if verb in verbs else TOP
