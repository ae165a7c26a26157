"""Detections of any object detector of Hugging Face's transformers."""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from input_pipeline.errors import InputError
from input_pipeline.hico_det import detector_boxes, parsing, vocabulary
from input_pipeline.hico_det.detections import Detections
from input_pipeline.hico_det.vocabulary import Vocabulary


def from_hugging_face(
  results: Sequence[Mapping[str, Any]],
  names: Sequence[str],
  sizes: Sequence[tuple[int, int]],
  words: Vocabulary,
  *,
  detector: str,
  id2label: Mapping[int, str] | None = None,
) -> Detections:
  """What a detector of transformers found, post-processed.

  Args:
    results: of `post_process_object_detection` with `target_sizes` (or of
      the grounded variants), one per image: 'boxes' with edges in pixels,
      'scores', and 'labels' or 'text_labels'; tensors, arrays or lists.
    names: file names of the images.
    sizes: (height, width) of the images, the target sizes.
    words: the objects.
    detector: name, revision and threshold, for the results.
    id2label: `model.config.id2label`; not needed with text labels.

  Returns:
    Detections of known objects; others are counted in `left_out`.

  Raises:
    InputError: lengths differ, the labels have no person, a box is of
      negative size or a figure is no number.
  """
  counts = {len(results), len(names), len(sizes)}
  if len(counts) > 1:
    raise InputError(
      f"{detector}: {len(results)} results, {len(names)} names and "
      f"{len(sizes)} sizes",
      "give one of each per image",
    )
  numbers = None
  if id2label is not None:
    numbers = {int(i): words.object_number(x) for i, x in id2label.items()}
    _check_person(numbers.values(), words, detector)
  images, left_out = {}, 0
  for result, name, size in zip(results, names, sizes, strict=True):
    where = parsing.Place(pathlib.Path(detector), pathlib.Path(name))
    objects = _objects(result, numbers, words, detector)
    images[name], more = detector_boxes.convert(
      where, _list(result["boxes"]), objects, _list(result["scores"]), size
    )
    left_out += more
  return Detections(detector, images, left_out)


def _objects(
  result: Mapping[str, Any],
  numbers: Mapping[int, int | None] | None,
  words: Vocabulary,
  detector: str,
) -> list[int | None]:
  if numbers is not None:
    return [numbers.get(int(x)) for x in _list(result["labels"])]
  labels = result.get("text_labels", result.get("labels"))
  if not all(isinstance(label, str) for label in labels):
    raise InputError(
      f"{detector}: its labels are numbers",
      "give id2label=model.config.id2label",
    )
  return [words.object_number(label) for label in labels]


def _check_person(
  found: Iterable[int | None], words: Vocabulary, detector: str
) -> None:
  if words.person not in set(found):
    raise InputError(
      f"{detector} knows no {vocabulary.PERSON!r}",
      "choose a detector of COCO's objects, or rename its labels",
    )


def _list(values: Any) -> list[Any]:
  """Tensors and arrays as lists."""
  values = values.detach().cpu() if hasattr(values, "detach") else values
  return values.tolist() if hasattr(values, "tolist") else list(values)
