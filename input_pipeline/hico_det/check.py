"""Checks a folder of HICO-DET and reports all of its faults.

  python -m input_pipeline.hico_det.check DIR

The reader stops at the first fault. The check goes on, so that a folder can be
mended in one round. It writes nothing except the report, if asked for.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import pathlib
import sys
import time
from typing import Any, TextIO

import numpy as np

from input_pipeline.hico_det import folder, splits, vocabulary
from input_pipeline.hico_det.folder import FORMS, SPLITS, Layout
from input_pipeline.hico_det.records import ImageLabels
from input_pipeline.hico_det.sources import annotations
from input_pipeline.hico_det.vocabulary import Vocabulary, shown
from input_pipeline.io import atomic, commands, images
from input_pipeline.io.builds import ImageDigest
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import Finding, Place, RecordError
from input_pipeline.io.progress import each
from input_pipeline.ov_swig.splits import groups

_SHOWN = 5  # examples of each kind
# Numbers of images, and of images with a pair, in the whole of HICO-DET.
_PUBLISHED = {"train": (38118, 37633), "test": (9658, 9546)}


@dataclasses.dataclass
class Report:
  """The content of a folder, and its faults.

  Attributes:
    layout, words: the folder's files and vocabulary.
    counts: split -> numbers of images, labels, interactions, ...
    splits: zero-shot split -> numbers of interactions and training labels.
    images: split -> number and sha256 of the images that were read.
    problems: faults that prevent a build or spoil its results.
    notes: what is allowed but worth knowing, by kind.
  """

  layout: Layout
  words: Vocabulary
  counts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  splits: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  images: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
  problems: list[Finding] = dataclasses.field(default_factory=list)
  notes: dict[str, list[Finding]] = dataclasses.field(default_factory=dict)

  def note(
    self,
    kind: str,
    text: str,
    place: Place | None = None,
    image: str | None = None,
  ) -> None:
    """Adds a note, about an image if one is given."""
    file = place.json_path.name if place is not None else None
    self.notes.setdefault(kind, []).append(Finding(kind, text, file, image))

  def count(
    self, split: str, items: list[ImageLabels], words: Vocabulary
  ) -> None:
    """Counts the images and labels of a split."""
    labels = np.zeros(len(words), np.int64)
    for item in items:
      labels += np.bincount(item.interactions, minlength=len(words))
    self.counts[split] = {
      "images": len(items),
      "images_with_labels": sum(bool(len(x.interactions)) for x in items),
      "labels": int(labels.sum()),
      "invisible_labels": sum(int((~x.visible).sum()) for x in items),
      "interactions": int((labels > 0).sum()),
      "interactions_below_10": int((labels < 10).sum()),
      "labels_by_interaction": labels.tolist(),
    }

  def as_json(self) -> str:
    """The whole report as JSON."""
    content = {
      "folder": str(self.layout.folder),
      "form": self.layout.form,
      "checksums": self.layout.checksums(),
      "classes_sha256": self.words.sha256,
      "counts": self.counts,
      "splits": self.splits,
      "images": self.images,
      "problems": [dataclasses.asdict(problem) for problem in self.problems],
      "notes": {
        kind: [dataclasses.asdict(note) for note in notes]
        for kind, notes in self.notes.items()
      },
    }
    return json.dumps(content, indent=1) + "\n"

  def show(self, out: TextIO) -> None:
    """Prints the report, a few examples of each kind."""
    words = self.words
    lines = [
      f"{self.layout.folder}: annotations of form {self.layout.form}, "
      f"{len(words)} interactions of {len(words.verbs)} verbs and "
      f"{len(words.objects)} objects, {int(words.rare.sum())} of them rare"
    ]
    lines += [self._split_line(split) for split in self.counts]
    lines += [
      f"{name:<6} {x['unseen']} unseen, {x['seen']} seen interactions; "
      f"{x['training_labels_unseen']} and {x['training_labels_seen']} training "
      f"labels; sha256 {x['sha256'][:12]}"
      for name, x in self.splits.items()
    ]
    lines += [
      f"{split:<6} {x['images']} images read, sha256 of all {x['sha256'][:12]}"
      for split, x in self.images.items()
    ]
    for kind, notes in self.notes.items():
      texts = shown((note.text for note in notes), _SHOWN)
      lines.append(f"note: {len(notes)} {kind}: {texts}")
    for kind, number in collections.Counter(
      problem.kind for problem in self.problems
    ).items():
      problems = [p for p in self.problems if p.kind == kind]
      lines += [f"problem: {problem.text}" for problem in problems[:_SHOWN]]
      if number > _SHOWN:
        lines.append(f"problem: ... and {number - _SHOWN} more ({kind})")
    print("\n".join(lines), file=out)

  def _split_line(self, split: str) -> str:
    x = self.counts[split]
    counts = (x["images"], x["images_with_labels"])
    whole = "as published" if counts == _PUBLISHED[split] else "not all of them"
    published = f"; HICO-DET has {_PUBLISHED[split][0]}: {whole}"
    line = (
      f"{split:<6} {x['images']} images, {x['images_with_labels']} with "
      f"labels, {x['labels']} labels of {x['interactions']} interactions"
    )
    return line + (published if len(self.words) == 600 else "")


# If so many boxes have no corner at 0, the file may count pixels from 1.
_MANY_BOXES = 1000
# Among so many boxes, some should reach this share of an image's side.
_SOME_BOXES, _REACHED = 100, 0.75


def run(
  directory: str | pathlib.Path,
  *,
  form: str | None = None,
  base: int | None = None,
  read_images: bool = True,
  report_path: str | pathlib.Path | None = None,
) -> int:
  """Prints what a folder holds and its faults; returns 0 if it has none.

  Args:
    directory: DIR, see `folder`.
    form: which annotations, see `folder.find`.
    base: number of the first pixel, see `annotations.read`.
    read_images: whether to read every image as well.
    report_path: a JSON file for the whole report.

  Raises:
    InputError: files are missing, or classes or splits are wrong;
      annotations cannot be checked without them.
  """
  start = time.monotonic()
  if report_path is not None:
    atomic.check_target(report_path, "--report")
  layout = folder.find(directory, form)
  words = vocabulary.load(directory)
  report = Report(layout, words)
  labels = {
    split: _check_split(report, layout, split, words, base) for split in SPLITS
  }
  _check_overlap(report, labels)
  _add_zero_shot(report, labels["train"], words)
  for split in SPLITS:
    _note_reach(report, split, labels[split], read_images)
  records_seconds = time.monotonic() - start
  if read_images:
    for split in SPLITS:
      _check_images(report, layout, split, labels[split])
  images_seconds = time.monotonic() - start - records_seconds
  report.show(sys.stdout)
  print(
    f"annotations checked in {records_seconds:.1f} s, "
    + (f"images in {images_seconds:.1f} s" if read_images else "no image read")
  )
  if report_path is not None:
    groups.write_text(pathlib.Path(report_path), report.as_json())
  if report.problems:
    print(f"{len(report.problems)} problems, see above")
    return 1
  print("images: all whole" if read_images else "annotations: all sound")
  return 0


def _check_split(
  report: Report,
  layout: Layout,
  split: str,
  words: Vocabulary,
  base: int | None,
) -> list[ImageLabels]:
  """Reads a split and reports its counts, faults and notes."""
  wrong: list[RecordError] = []
  try:
    labels = folder.read_labels(
      layout, split, words, base=base, report=wrong.append
    )
  except InputError as error:
    report.problems += [Finding.of(x) for x in (*wrong, error)]
    return []
  report.problems += [Finding.of(error) for error in wrong]
  there = layout.image_sizes(split)
  names = {item.name for item in labels}
  file = layout.annotations[split].name
  for name in sorted(names - there.keys()):
    report.problems.append(
      Finding("missing", f"{split}: image {name} is missing", file, name)
    )
  named = names | {error.image for error in wrong}
  for name in sorted(there.keys() - named):
    report.note("images without an entry", f"{split}: {name}", image=name)
  report.count(split, labels, words)
  for item in labels:
    _note_labels(report, item)
  corners = annotations.corners(labels)
  if len(corners) >= _MANY_BOXES and corners[:, :2].min() >= 1:
    report.note(
      "doubt about the first pixel",
      f"{split}: none of {len(corners)} boxes touches the left or upper edge; "
      "if the file counts pixels from 1, say --box-base=1",
    )
  return labels


def _note_reach(
  report: Report, split: str, items: list[ImageLabels], read_images: bool
) -> None:
  """Notes if no box comes near the far sides of its image.

  So do boxes of a smaller image, or in hundredths.
  """
  reached, number = np.zeros(2), 0
  for item in items:
    boxes = annotations.corners([item])
    size = item.size
    # If the file has no sizes, the first images are enough.
    if size is None and read_images and number < _SOME_BOXES and len(boxes):
      try:
        size = images.read_size(item.place.image_path)
      except (InputError, OSError):
        continue  # reported elsewhere
    if size is not None and len(boxes):
      number += len(boxes)
      ends = (boxes[:, 2:].max(axis=0) + 1) / size[::-1]
      reached = np.maximum(reached, ends)
  if number >= _SOME_BOXES and reached.max() < _REACHED:
    report.note(
      "doubt about the boxes",
      f"{split}: none of {number} boxes reaches the last quarter of its "
      "image's width or height: are they pixels of these images?",
    )


def _note_labels(report: Report, item: ImageLabels) -> None:
  rows = np.concatenate(
    [item.human_boxes, item.object_boxes, item.interactions[:, None]], axis=1
  )
  repeated = len(rows) - len(np.unique(rows, axis=0))
  if repeated:
    report.note(
      "labels given twice", f"{repeated} of them", item.place, item.name
    )


def _check_overlap(
  report: Report, labels: dict[str, list[ImageLabels]]
) -> None:
  names = [{item.name for item in labels[split]} for split in SPLITS]
  for name in sorted(set.intersection(*names)):
    report.problems.append(
      Finding(
        "overlap",
        f"image {name} is in the splits {' and '.join(SPLITS)}",
        image=name,
      )
    )


def _add_zero_shot(
  report: Report, train: list[ImageLabels], words: Vocabulary
) -> None:
  """Adds the numbers of seen and unseen training labels of each split."""
  counts = np.zeros(len(words), np.int64)
  for item in train:
    counts += np.bincount(item.interactions[item.visible], minlength=len(words))
  directory = report.layout.folder
  own = (directory / splits.SPLITS_FILE).exists()
  if not own and words.sha256 != vocabulary.load().sha256:
    report.note(
      "no splits.json",
      "classes.json is the folder's own, so the public splits do not apply",
    )
    return
  for name in splits.names(directory)[1:]:
    zero_shot = splits.load(name, words, directory)
    report.splits[name] = {
      "unseen": int(zero_shot.unseen.sum()),
      "seen": int(zero_shot.seen.sum()),
      "training_labels_unseen": int(counts[zero_shot.unseen].sum()),
      "training_labels_seen": int(counts[zero_shot.seen].sum()),
      "sha256": zero_shot.sha256,
    }


def _check_images(
  report: Report, layout: Layout, split: str, items: list[ImageLabels]
) -> None:
  """Reads every image; adds faults and a digest of the split's images."""
  there = layout.image_sizes(split)
  items = [item for item in items if item.name in there]
  digest = ImageDigest()
  results = each(items, _check_image, f"check {split}")
  for item, result in zip(items, results, strict=True):
    if isinstance(result, RecordError):
      report.problems.append(Finding.of(result))
    else:
      digest.add(item.name, result)
  report.images[split] = digest.result()


def _check_image(item: ImageLabels) -> str | RecordError:
  """sha256 of the image, or its fault."""
  try:
    content = item.place.read_image(item.size)
    if item.size is None:
      # The file has no size of the image, so take the image's own.
      height, width = images.read_size(item.place.image_path)
      annotations.check_inside(item, (height, width))
    return hashlib.sha256(content).hexdigest()
  except RecordError as error:
    return error


def main(arguments: list[str] | None = None) -> int:
  """The command line, see the top of this file."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.hico_det.check", description=__doc__
  )
  parser.add_argument("folder", metavar="DIR")
  parser.add_argument("--form", choices=FORMS, help="which annotations")
  parser.add_argument(
    "--box-base", type=int, choices=(0, 1), help="number of the first pixel"
  )
  parser.add_argument(
    "--records-only", action="store_true", help="read no images"
  )
  parser.add_argument(
    "--report", metavar="FILE", help="write the whole report as JSON"
  )
  given = parser.parse_args(arguments)
  return commands.guarded(
    lambda: run(
      given.folder,
      form=given.form,
      base=given.box_base,
      read_images=not given.records_only,
      report_path=given.report,
    )
  )


if __name__ == "__main__":
  commands.start(main)
