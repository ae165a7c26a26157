"""Detections of any object detector of Hugging Face's transformers."""

import collections
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.hico_det import vocabulary
from input_pipeline.hico_det.detectors import box_readings, detector_boxes
from input_pipeline.hico_det.detectors.detections import Detections
from input_pipeline.hico_det.sources import parsing
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io.errors import InputError


def from_hugging_face(
  results: Sequence[Mapping[str, Any]],
  names: Sequence[str],
  sizes: Sequence[tuple[int, int]],
  words: Vocabulary,
  *,
  detector: str,
  id2label: Mapping[int, str] | None = None,
) -> Detections:
  """Converts post-processed detections of a detector of transformers.

  Args:
    results: results of `post_process_object_detection` with `target_sizes`
      (or of the grounded variants), one per image: 'boxes' of edges in
      pixels, 'scores', and 'labels' or 'text_labels'; tensors, arrays or
      lists.
    names: file names of the images.
    sizes: (height, width) of the images, the target sizes.
    words: the objects.
    detector: name, revision and threshold, for the results.
    id2label: of the model's config; not needed with text labels.

  Returns:
    Detections of known objects; others are counted in `left_out`.

  Raises:
    InputError: lengths differ, the labels have no person, a box has a
      negative size, or a value is not a number.
  """
  counts = {len(results), len(names), len(sizes)}
  if len(counts) > 1:
    raise InputError(
      f"{detector}: {len(results)} results, {len(names)} names and "
      f"{len(sizes)} sizes",
      "give one of each per image",
    )
  twice = [x for x, n in collections.Counter(names).items() if n > 1]
  if twice:
    raise InputError(
      f"{detector}: the image {twice[0]} is there twice",
      "give each image once",
    )
  numbers = None
  if id2label is not None:
    numbers = {int(i): words.object_number(x) for i, x in id2label.items()}
    _check_person(numbers.values(), words, detector)
  images, left_out, outside, total = {}, 0, 0, 0
  readings = box_readings.Readings(detector)
  for result, name, size in zip(results, names, sizes, strict=True):
    where = parsing.Place(pathlib.Path(detector), pathlib.Path(name))
    objects = _objects(result, numbers, words, detector, where)
    boxes = _list(_part(result, "boxes", where))
    images[name], more, out = detector_boxes.convert(
      where, boxes, objects, _list(_part(result, "scores", where)), size
    )
    left_out, outside, total = (
      left_out + more,
      outside + out,
      total + len(boxes),
    )
    edges = np.array(boxes, np.float64).reshape(-1, 4)
    readings.add(edges - [0, 0, 1, 1], np.zeros((0, 4)), size)
  readings.check()
  detector_boxes.check_cut(detector, outside, total)
  return Detections(detector, images, left_out, outside)


def _part(result: Mapping[str, Any], key: str, where: parsing.Place) -> Any:
  if key not in result:
    raise parsing.RecordError(
      where,
      "form",
      f"has no {key!r}{parsing.looks_like(dict(result))}",
      "give what post_process_object_detection returns",
    )
  return result[key]


def _objects(
  result: Mapping[str, Any],
  numbers: Mapping[int, int | None] | None,
  words: Vocabulary,
  detector: str,
  where: parsing.Place,
) -> list[int | None]:
  if numbers is not None:
    labels = _list(_part(result, "labels", where))
    unknown = [x for x in labels if int(x) not in numbers]
    if unknown:
      raise InputError(
        f"{detector}: {where.image_path.name}: label {unknown[0]} is not in "
        "id2label",
        "give the id2label of the model that found it",
      )
    return [numbers[int(x)] for x in labels]
  labels = result.get("text_labels")
  if labels is None:
    labels = _list(_part(result, "labels", where))
  if not all(isinstance(label, str) for label in labels):
    raise InputError(
      f"{detector}: its labels are numbers",
      "give id2label=model.config.id2label",
    )
  return [words.object_number(label) for label in labels]


def _check_person(
  objects: Iterable[int | None], words: Vocabulary, detector: str
) -> None:
  if words.person not in set(objects):
    raise InputError(
      f"{detector} knows no {vocabulary.PERSON!r}",
      "choose a detector of COCO's objects, or rename its labels",
    )


def _list(values: Any) -> list[Any]:
  """Tensors and arrays as lists."""
  values = values.detach().cpu() if hasattr(values, "detach") else values
  return values.tolist() if hasattr(values, "tolist") else list(values)
