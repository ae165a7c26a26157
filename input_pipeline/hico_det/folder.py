"""A folder of HICO-DET: its files and its records.

  DIR/images/train2015/*.jpg, test2015/*.jpg     or under hico_20160224_det/
  DIR/annotations/trainval_hico.json, test_hico.json               or in DIR
  DIR/annotations/instances_train2015.json, instances_test2015.json  or in DIR
  DIR/classes.json, splits.json                  yours; HICO-DET's if absent

If both pairs of annotation files exist, --form says which to read.

Images and entries that cannot be used can be left out, if that is allowed.
Labels of `trainval_hico.json` may refer to missing boxes: readers of QPIC and
GEN-VLKT skip such images silently. Here they are named and counted.
"""

import collections
import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping

from input_pipeline.hico_det import records, splits, vocabulary
from input_pipeline.hico_det.records import ImageLabels, Record
from input_pipeline.hico_det.sources import annotations
from input_pipeline.hico_det.vocabulary import Vocabulary, shown
from input_pipeline.io import images
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import RecordError
from input_pipeline.io.progress import each

SPLITS = ("train", "test")
_IMAGES = {"train": "train2015", "test": "test2015"}
_FILES = {
  annotations.QPIC: ("trainval_hico.json", "test_hico.json"),
  annotations.UPT: ("instances_train2015.json", "instances_test2015.json"),
}
FORMS = tuple(_FILES)
_HOMES = (".", "annotations")
_IMAGE_HOMES = ("images", "hico_20160224_det/images", ".")
_REMEDY = (
  "get hico_20160224_det.tar.gz (linked at "
  "https://umich-ywchao-hico.github.io) for the images, and the annotations "
  "of either https://github.com/YueLiao/gen-vlkt or "
  "https://github.com/fredzzhang/hicodet; docs/hico_det.md shows the layout"
)


@dataclasses.dataclass(frozen=True)
class Layout:
  """The files of a folder.

  Attributes:
    folder: DIR.
    form: the form of its annotations, one of `FORMS`.
    annotations: split -> file.
    images: split -> folder.
  """

  folder: pathlib.Path
  form: str
  annotations: Mapping[str, pathlib.Path]
  images: Mapping[str, pathlib.Path]

  @property
  def files(self) -> tuple[pathlib.Path, ...]:
    """All files of the dataset except the images; some may be absent."""
    own = (vocabulary.CLASSES_FILE, splits.SPLITS_FILE)
    return (
      *(self.annotations[split] for split in SPLITS),
      *(self.folder / name for name in own),
    )

  def image_sizes(self, split: str) -> dict[str, int]:
    """Bytes of every file in a folder of images, by name."""
    with os.scandir(self.images[split]) as entries:
      return {e.name: e.stat().st_size for e in entries if e.is_file()}

  def checksums(self) -> dict[str, str]:
    """sha256 of each existing file of `files`, by name."""
    paths = [path for path in self.files if path.exists()]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}

  def fingerprint(self) -> str:
    """sha256 over all `files` and the images' names and sizes."""
    sizes = {split: sorted(self.image_sizes(split).items()) for split in SPLITS}
    text = json.dumps([self.checksums(), sizes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def find(folder: str | pathlib.Path, form: str | None = None) -> Layout:
  """The layout of a folder.

  Args:
    folder: DIR.
    form: which annotations to read, one of `FORMS`; None: those that exist.

  Raises:
    InputError: parts are missing (all are named), or both forms exist and
      none is chosen.
  """
  folder = pathlib.Path(folder)
  if form is not None and form not in FORMS:
    raise InputError(
      f"there is no annotation form {form!r}", f"choose one of {list(FORMS)}"
    )
  paths = {
    name: [_first(folder, file) for file in files]
    for name, files in _FILES.items()
  }
  form = form or _form(folder, paths)
  pictures = {split: _pictures(folder, _IMAGES[split]) for split in SPLITS}
  missing = [
    name
    for name, path in zip(_FILES[form], paths[form], strict=True)
    if path is None
  ]
  missing += [
    f"images/{_IMAGES[split]}/" for split in SPLITS if pictures[split] is None
  ]
  if missing:
    raise InputError(
      f"{folder} is no HICO-DET folder: it lacks {', '.join(missing)}", _REMEDY
    )
  return Layout(
    folder, form, dict(zip(SPLITS, paths[form], strict=True)), pictures
  )


def read_labels(
  layout: Layout,
  split: str,
  words: Vocabulary,
  *,
  base: int | None = None,
  report: Callable[[RecordError], None] = annotations.stop,
) -> list[ImageLabels]:
  """The labels in the annotations of a split; see `annotations.read`."""
  return annotations.read(
    layout.annotations[split],
    words,
    images=layout.images[split],
    base=base,
    report=report,
  )


def read_records(
  layout: Layout, split: str, words: Vocabulary, *, base: int | None = None
) -> list[Record]:
  """Records of a split in the order of its file.

  They include images without labels, which are part of the test;
  `splits.without_unseen` leaves them out of training.

  Raises:
    InputError: a fault of the annotations, or an image is missing.
  """
  labels = read_labels(layout, split, words, base=base)
  there = layout.image_sizes(split)
  missing = [item.name for item in labels if item.name not in there]
  if missing:
    raise InputError(
      f"{layout.images[split]} lacks {len(missing)} of {len(labels)} images of "
      f"{layout.annotations[split].name}: {shown(missing)}",
      "put them there, or take their entries out of the file",
    )
  return [to_record(item, words) for item in labels]


def to_record(labels: ImageLabels, words: Vocabulary) -> Record:
  """Labels as a record; if the file has no size, the image is asked.

  Raises:
    InputError: the image cannot be read, or a box leaves it.
  """
  size = labels.size
  if size is None:
    try:
      size = images.read_size(labels.place.image_path)
    except InputError as error:
      raise labels.place.image_error(error) from None
    annotations.check_inside(labels, size)
  return records.merge(labels, size, words.object_of, words.person)


def statistics(rows: list[Record]) -> dict[str, int]:
  """Numbers of images, boxes, pairs and labels."""
  counts: collections.Counter[str] = collections.Counter(images=len(rows))
  for record in rows:
    counts["images_with_labels"] += bool(len(record.labels))
    counts["boxes"] += len(record.boxes)
    counts["pairs"] += len(record.pairs)
    counts["labels"] += len(record.labels)
  return dict(counts)


def _first(folder: pathlib.Path, name: str) -> pathlib.Path | None:
  paths = [folder / home / name for home in _HOMES]
  return next((path for path in paths if path.is_file()), None)


def _pictures(folder: pathlib.Path, name: str) -> pathlib.Path | None:
  paths = [folder / home / name for home in _IMAGE_HOMES]
  return next((path for path in paths if path.is_dir()), None)


def _form(
  folder: pathlib.Path, paths_of: Mapping[str, list[pathlib.Path | None]]
) -> str:
  whole = [form for form, paths in paths_of.items() if all(paths)]
  if len(whole) > 1:
    raise InputError(
      f"{folder} has annotations of two forms, {' and '.join(whole)}; their "
      "pairs differ",
      f"say which by --form={whole[0]} or --form={whole[1]}",
    )
  part = [form for form, paths in paths_of.items() if any(paths)]
  return (whole or part or [annotations.QPIC])[0]


_GET = "put it there, or take its entry out of the file"


def read_usable_records(
  layout: Layout,
  split: str,
  words: Vocabulary,
  *,
  read_images: bool,
  base: int | None = None,
) -> tuple[list[Record], list[RecordError]]:
  """The usable records of a split, and the faults of the others.

  Args:
    layout, split, words, base: see `read_records`.
    read_images: whether to decode images, to leave out broken ones too.

  Raises:
    InputError: the file as a whole cannot be used, or nothing is left.
  """
  errors: list[RecordError] = []
  labels = read_labels(layout, split, words, base=base, report=errors.append)
  total = len(labels) + len(errors)
  there = layout.image_sizes(split)

  def usable(item: ImageLabels) -> Record | RecordError:
    try:
      if item.name not in there:
        raise RecordError(item.place, "missing", "the image is missing", _GET)
      record = to_record(item, words)
      if read_images:
        record.read_image()
      return record
    except RecordError as error:
      return error

  records = []
  for item in each(labels, usable, f"look for broken images, {split}"):
    (errors if isinstance(item, RecordError) else records).append(item)
  if not records:
    raise InputError(
      f"none of {total} images of the split {split!r} can "
      f"be used; the first: {errors[0].problem}",
      "download images and annotations again",
    )
  return records, errors
