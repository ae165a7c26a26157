"""Converts detections of other tools to our form.

  python -m input_pipeline.hico_det.detection_import --folder=DIR \\
    --upt=FOLDER --labels=alphabetical --detector="DETR-R50 of UPT" --out=FILE
  python -m input_pipeline.hico_det.detection_import --folder=DIR \\
    --oracle --split=test --out=FILE

Their boxes give edges, from 0 to the image's width; ours give pixels, from 0
to width - 1. So 1 is subtracted from the right and lower edge, as UPT does
before its own evaluation.

The files do not say how they number the objects: `alphabetical` (a person is
49), `coco80` (0), `coco91` (COCO's ids: 1), or the first two counted from 1.
The annotated boxes reveal a wrong choice; `auto` chooses by them.
"""

import argparse
import dataclasses
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from input_pipeline.hico_det import folder, vocabulary
from input_pipeline.hico_det.detectors import (
  box_readings,
  detections,
  detector_boxes,
  label_numbers,
)
from input_pipeline.hico_det.detectors.detections import Detections
from input_pipeline.hico_det.detectors.label_numbers import ORDERS, Agreement
from input_pipeline.hico_det.folder import FORMS, SPLITS
from input_pipeline.hico_det.records import Record
from input_pipeline.hico_det.sources import parsing
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io import atomic, commands, json_files
from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress

AUTO = "auto"  # the numbering that fits the annotated boxes


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class _Raw:
  """A file as given: boxes of edges, labels in a numbering not yet known."""

  where: parsing.Place
  boxes: np.ndarray
  labels: Sequence[int]
  scores: np.ndarray
  named: bool  # the labels were names; now they are the vocabulary's numbers


def from_upt(
  directory: str | pathlib.Path,
  images: Mapping[str, tuple[int, int]],
  words: Vocabulary,
  *,
  labels: str,
  detector: str,
  records: Sequence[Record] = (),
) -> Detections:
  """Detections from a folder with one JSON file per image.

  Each file has "boxes", "labels" and "scores". Boxes give edges, as in
  fredzzhang/hicodet's files of a detector (its ground-truth files hold pixels
  from 1 instead: use `oracle`), or as Hugging Face's
  `post_process_object_detection` returns them.

  Args:
    directory: folder of HICO_test2015_00000001.json and so on.
    images: (height, width) of each image of the dataset; each needs its file.
    words: the objects.
    labels: how the files number objects, one of `ORDERS`, or `AUTO`. Ignored
      if the labels are names.
    detector: its name, for the results.
    records: annotated boxes, which reveal a wrong numbering and boxes that
      are not pixels.

  Raises:
    InputError: files are missing or of another form, a number is not an
      object, boxes or numbers do not fit the annotated ones.
  """
  directory = pathlib.Path(directory)
  if labels != AUTO:
    label_numbers.order(labels, words)
  raw = _read_all(directory, images, words)
  readings = box_readings.Readings(str(directory))
  agreement = Agreement(words)
  annotated = {record.name: record for record in records}
  for name, item in raw.items():
    boxes = item.boxes - [0, 0, 1, 1]
    record = annotated.get(name)
    true = np.zeros((0, 4)) if record is None else record.boxes
    readings.add(boxes, true.astype(np.float64), images[name])
    if record is not None:
      numbers = np.array(item.labels, np.int64)
      agreement.add(boxes, numbers, item.scores, record.boxes, record.objects)
  notes = [readings.check()]
  if any(item.named for item in raw.values()):
    numbers = {i: i for i in range(len(words.objects))}
    notes.append(agreement.check_objects(str(directory)))
  else:
    labels = _numbering(labels, raw, agreement, directory)
    numbers = label_numbers.order(labels, words)
    _check_labels(raw, numbers, agreement)
    notes.append(agreement.check(labels, str(directory)))
  converted, outside, total = {}, 0, 0
  for name, item in raw.items():
    converted[name], _, out = detector_boxes.convert(
      item.where,
      item.boxes.tolist(),
      [numbers[x] for x in item.labels],
      item.scores.tolist(),
      images[name],
    )
    outside, total = outside + out, total + len(item.boxes)
  detector_boxes.check_cut(str(directory), outside, total)
  return Detections(
    detector, converted, outside=outside, notes=tuple(filter(None, notes))
  )


def _read_all(
  directory: pathlib.Path,
  images: Mapping[str, tuple[int, int]],
  words: Vocabulary,
) -> dict[str, _Raw]:
  paths = {
    name: directory / f"{pathlib.Path(name).stem}.json" for name in images
  }
  missing = [path.name for path in paths.values() if not path.exists()]
  if missing:
    raise InputError(
      f"{directory} lacks {len(missing)} of {len(paths)} files: "
      f"{vocabulary.shown(missing)}",
      "run the detector on those images too, or give the other folder",
    )
  there = {path.name for path in directory.glob("*.json")}
  extra = sorted(there - {path.name for path in paths.values()})
  if extra:
    raise InputError(
      f"{directory} has {len(extra)} files of no image of the dataset: "
      f"{vocabulary.shown(extra)}",
      "give the folder of this split, or take them away",
    )
  raw = {}
  with Progress("import detections", len(paths), "images") as progress:
    for name, path in paths.items():
      raw[name] = _read_upt(path, name, words)
      progress.advance()
  if len({item.named for item in raw.values() if len(item.labels)}) > 1:
    raise InputError(
      f"{directory}: some files have names as labels and some numbers",
      "give the files of one detector",
    )
  return raw


def _read_upt(path: pathlib.Path, name: str, words: Vocabulary) -> _Raw:
  content = json_files.read(path)
  where = parsing.Place(path, path.parent / name)
  if not isinstance(content, dict):
    raise parsing.RecordError(
      where,
      "form",
      f"holds no object{parsing.looks_like(content)}",
      'give {"boxes": [...], "labels": [...], "scores": [...]}',
    )
  labels = content.get("labels")
  if not isinstance(labels, list):
    raise parsing.RecordError(
      where,
      "form",
      f"has no list 'labels'{parsing.looks_like(content)}",
      "give boxes, labels and scores",
    )
  boxes = parsing.boxes(where, content.get("boxes"), "boxes", 0, None)
  scores = parsing.numbers(where, content.get("scores"), "scores")
  parsing.same_length(where, boxes=boxes, labels=labels, scores=scores)
  named = bool(labels) and all(isinstance(x, str) for x in labels)
  if named:
    labels = detections.objects(labels, where, words)
  for row, label in enumerate(labels):
    if type(label) is not int or abs(label) > 2**31:
      raise parsing.RecordError(
        where,
        "labels",
        f"labels {row} is {parsing.shown(label)}, which is no number",
        "give whole numbers of one numbering, or names throughout",
      )
  return _Raw(where, boxes, labels, scores, named)


def _numbering(
  labels: str,
  raw: Mapping[str, _Raw],
  agreement: Agreement,
  directory: pathlib.Path,
) -> str:
  """The given numbering, or for `AUTO` the one that fits the annotations."""
  if labels != AUTO:
    return labels
  fit = agreement.best({x for item in raw.values() for x in item.labels})
  if len(fit) != 1:
    fitting = " and ".join(fit) if fit else "none of them"
    raise InputError(
      f"{directory}: --labels=auto compared {agreement.compared} annotated "
      f"boxes with the detected ones on them, and {fitting} fits",
      f"say which of {', '.join(ORDERS)} it is",
    )
  print(f"labels: {fit[0]}, by {agreement.compared} annotated boxes")
  return fit[0]


def _check_labels(
  raw: Mapping[str, _Raw], numbers: Mapping[int, int], agreement: Agreement
) -> None:
  for item in raw.values():
    for row, label in enumerate(item.labels):
      if label not in numbers:
        fit = agreement.best({x for r in raw.values() for x in r.labels})
        hint = f"; the annotated boxes tell {' or '.join(fit)}" if fit else ""
        raise parsing.RecordError(
          item.where,
          "labels",
          f"labels {row} is {label}, which does not exist in that numbering"
          f"{hint}",
          f"choose another --labels of {', '.join(ORDERS)}",
        )


def main(arguments: list[str] | None = None) -> int:
  """The command line, see the top of this file."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.hico_det.detection_import",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--upt", metavar="FOLDER", help="one JSON file per image")
  add(
    "--labels",
    choices=(*ORDERS, AUTO),
    help="how those number the objects; auto if they are names",
  )
  add("--detector", help="its name, printed with every result")
  add("--oracle", action="store_true", help="annotated boxes instead")
  add("--folder", metavar="DIR", required=True, help="of the dataset")
  add("--form", choices=FORMS, help="which annotations")
  add("--split", choices=SPLITS, default="test", help="default: %(default)s")
  add("--skip-broken", action="store_true", help="leave out unusable images")
  add("--out", metavar="FILE", required=True)
  given = parser.parse_args(arguments)
  if given.oracle == bool(given.upt):
    parser.error("give either --upt=FOLDER or --oracle")
  if given.upt and not (given.labels and given.detector):
    parser.error("--upt needs --labels and --detector")
  return commands.guarded(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
  atomic.check_target(given.out, "--out")
  words = vocabulary.load(given.folder)
  layout = folder.find(given.folder, given.form)
  if given.skip_broken:
    records, errors = folder.read_usable_records(
      layout, given.split, words, read_images=False
    )
    print(f"{len(errors)} images left out")
  else:
    records = folder.read_records(layout, given.split, words)
  if given.oracle:
    imported = detections.oracle(records)
  else:
    imported = from_upt(
      given.upt,
      {r.name: (r.height, r.width) for r in records},
      words,
      labels=given.labels,
      detector=given.detector,
      records=records,
    )
  detections.write(given.out, imported, words)
  for note in imported.notes:
    print(f"note: {note}")
  if imported.outside:
    print(f"note: {imported.outside} boxes lay outside their image; left out")
  images = imported.images
  number = sum(len(item.scores) for item in images.values())
  print(f"{given.out}: {imported.detector}, {number} boxes in {len(images)}")
  return 0


if __name__ == "__main__":
  commands.start(main)
