"""Checks a folder and reports all of its faults, without building.

The reader (`folder.read_folder`) stops at the first fault. The check goes on,
so that a folder can be mended in one round. Records take seconds, images
minutes.
"""

import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Collection, Mapping

from input_pipeline.io import builds, images
from input_pipeline.io.builds import ImageDigest
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import Finding, RecordError
from input_pipeline.io.progress import each
from input_pipeline.ov_swig import (
  check_report,
  layout,
  record_conventions,
  record_files,
  records,
  vocabulary,
)
from input_pipeline.ov_swig.check_report import Report
from input_pipeline.ov_swig.layout import SPLITS, Layout
from input_pipeline.ov_swig.record_files import Row, Rows
from input_pipeline.ov_swig.splits import folder_groups, leaks
from input_pipeline.ov_swig.splits import groups as groups_lib
from input_pipeline.ov_swig.vocabulary import Vocabulary


@dataclasses.dataclass(frozen=True)
class Checked:
  """An image whose record could be read.

  Attributes:
    split: its split.
    row: its record.
    size: (height, width) in the record, pixels; None if it has none.
    built: whether a build includes it, as all but training images of unseen
      verbs.
  """

  split: str
  row: Row
  size: tuple[int, int] | None
  built: bool


def run(
  folder: str | pathlib.Path,
  *,
  read_images: bool = True,
  report_path: str | pathlib.Path | None = None,
) -> int:
  """Prints what a folder holds and its faults; returns 0 if it has none.

  Args:
    folder: DIR with images_512 and SWiG_jsons.
    read_images: whether to read every image as well.
    report_path: a JSON file for the whole report.
  """
  if report_path is not None:
    path = pathlib.Path(report_path)
    if path.is_dir():
      raise InputError(f"{path} is a folder", "give a file (--report)")
    builds.make_folder(path.absolute().parent, "the report", "--report")
  start = time.monotonic()
  report, checked = check_records(folder)
  records_seconds = time.monotonic() - start
  if read_images and checked:
    check_images(report, checked)
  images_seconds = time.monotonic() - start - records_seconds
  report.show()
  print(
    f"records checked in {records_seconds:.1f} s, "
    + (f"images in {images_seconds:.1f} s" if read_images else "no image read")
  )
  if report_path is not None:
    groups_lib.write_text(pathlib.Path(report_path), report.as_json())
  if report.problems:
    number = len(report.problems)
    print(f"{number} problem{'s' if number > 1 else ''}, see above")
    return 1
  print("images: all whole" if read_images else "records: all sound")
  return 0


def check_records(
  folder: str | pathlib.Path,
) -> tuple[Report, list[Checked]]:
  """Checks everything except the content of images.

  Returns:
    The report so far, and the images to check.

  Raises:
    InputError: files are missing, or the vocabulary is wrong; records cannot
      be checked without them.
  """
  report = Report(pathlib.Path(folder))
  files = layout.find(folder)
  words = _vocabulary(folder)
  groups = _groups(report, files, words)
  rows, sound = {}, set()
  for split in SPLITS:
    before = len(report.problems)
    rows[split] = _read(report, files, split, words)
    if len(report.problems) == before:
      sound.add(split)
  if not rows["train"]:  # No record, so no derived noun class.
    words = vocabulary.load(folder, all_nouns=True)
  _check_overlap(report, rows)
  _check_whole(report, files, rows, words, groups)
  _check_images_of(report, files, rows, sound, words, groups)
  sizes = files.image_sizes()
  _check_missing(report, rows, sizes)
  unseen = () if groups is None else leaks.unseen_names(words, groups)
  checked = []
  for split, rows_of_split in rows.items():
    for row in rows_of_split.values():
      sound = _check_row(report, split, row, words)
      if sound and row.place.image_path.name in sizes:
        size = (row.entry.get("height"), row.entry.get("width"))
        size = size if all(type(side) is int for side in size) else None
        built = split != "train" or row.entry["verb"] not in unseen
        checked.append(Checked(split, row, size, built))
  check_report.add(report, files, rows, words, groups)
  return report, checked


def check_images(report: Report, checked: list[Checked]) -> None:
  """Reads every image; adds faults and a digest of each split's images."""
  digests = {split: ImageDigest() for split in SPLITS}
  first: dict[bytes, Checked] = {}
  results = each(checked, _check_image, "check")
  for item, result in zip(checked, results, strict=True):
    if isinstance(result, RecordError):
      report.problems.append(Finding.of(result))
      continue
    digest, is_turned = result
    if is_turned:
      report.note(
        "images with an orientation tag, which is ignored",
        "boxes are those of the image as stored",
        item.row,
      )
    name = item.row.place.image_path.name
    if item.built:
      digests[item.split].add(name, digest.hex())
    other = first.setdefault(digest, item)
    if other.split != item.split:
      report.note(
        "the same image in two splits",
        f"{item.split}: {name} is {other.split}: "
        f"{other.row.place.image_path.name}",
        item.row,
      )
  report.facts["image_checksums"] = {
    split: digest.result() for split, digest in digests.items()
  }


def _groups(
  report: Report, files: Layout, words: Vocabulary
) -> groups_lib.VerbGroups | None:
  """The groups given by the folder's files; None if a build must draw them."""
  try:
    groups = folder_groups.find(files, words)
    if groups is None and files.source == layout.AUTHORS:
      groups = folder_groups.make(files, words)
  except InputError as error:
    report.problems.append(Finding.of(error, "groups"))
    return None
  if groups is None:
    _try_to_draw(report, files, words)
    report.note(
      "no split file",
      f"{layout.SPLITS_FILE} is absent: the first build draws one; to choose, "
      "python -m input_pipeline.split_maker DIR",
    )
  return groups


def _vocabulary(folder: str | pathlib.Path) -> Vocabulary:
  """The vocabulary; with all nouns if train.json cannot be read.

  That fault is reported later.
  """
  try:
    return vocabulary.load(folder)
  except InputError:
    return vocabulary.load(folder, all_nouns=True)


def _read(report: Report, files: Layout, split: str, words: Vocabulary) -> Rows:
  try:
    return record_files.read(
      files, split, words, lambda e: report.problems.append(Finding.of(e))
    )
  except InputError as error:
    report.problems.append(Finding.of(error, "file"))
    return {}


def _check_overlap(report: Report, rows: Mapping[str, Rows]) -> None:
  home: dict[str, str] = {}
  for split, rows_of_split in rows.items():
    for name, row in rows_of_split.items():
      if home.setdefault(name, split) != split:
        report.problems.append(
          Finding(
            "overlap",
            f"image {name} is in the splits {home[name]} and {split}",
            **row.where(),
          )
        )


def _try_to_draw(report: Report, files: Layout, words: Vocabulary) -> None:
  """Reports if a first build could not draw groups.

  Faults of files are reported elsewhere.
  """
  try:
    groups_lib.default_draw(words, [0] * len(words.verbs))
  except InputError as error:
    report.problems.append(Finding.of(error, "groups"))


def _check_whole(
  report: Report,
  files: Layout,
  rows: Mapping[str, Rows],
  words: Vocabulary,
  groups: groups_lib.VerbGroups | None,
) -> None:
  """Checks whole files and splits, see `record_conventions`."""
  unseen = () if groups is None else leaks.unseen_names(words, groups)
  share = report.facts.setdefault("out_of_vocabulary", {})
  for split, rows_of_split in rows.items():
    for path, error in record_conventions.wrong_boxes(rows_of_split):
      report.problems.append(
        Finding("boxes of a file", str(error), file=path.name)
      )
    for path in record_conventions.corner_files(rows_of_split):
      text = f"{path.name}: {record_conventions.CORNER}"
      report.note("files whose boxes all lie in one quarter", text)
    nouns = record_conventions.nouns(rows_of_split, words, unseen)
    share[split] = {"nouns": nouns.total, "share": nouns.share}
    if rows_of_split and not record_conventions.has_nouns(rows_of_split):
      report.note("splits in which every noun is blank", split)
    if rows_of_split and not record_conventions.has_boxes(rows_of_split):
      report.note("splits without a box, nothing is grounded there", split)
    error = record_conventions.wrong_nouns(files, split, nouns, words)
    if error is not None:
      report.problems.append(Finding.of(error, "nouns"))
    for noun, name in record_conventions.differing(
      nouns.unlisted, words
    ).items():
      report.note(
        f"nouns that differ from a class only in capitals, {split}",
        f"{noun} for {name}",
      )


def _check_images_of(
  report: Report,
  files: Layout,
  rows: Mapping[str, Rows],
  sound: Collection[str],
  words: Vocabulary,
  groups: groups_lib.VerbGroups | None,
) -> None:
  """Reports what splits lack, except those with an unreadable record."""
  verbs_of = {
    split: {name: row.entry["verb"] for name, row in rows_of_split.items()}
    for split, rows_of_split in rows.items()
    if split in sound
  }
  for error in record_conventions.missing_images(
    files, verbs_of, words, groups
  ):
    report.problems.append(Finding.of(error, "split"))


def _check_missing(
  report: Report, rows: Mapping[str, Rows], sizes: Mapping[str, int]
) -> None:
  """Reports missing images and notes spare ones; `sizes` has those present."""
  used = set()
  for split, rows_of_split in rows.items():
    used |= rows_of_split.keys()
    for name, row in rows_of_split.items():
      if name not in sizes:
        like = record_files.like_names([name], sizes).get(name)
        also = f"; {like!r} is there" if like else ""
        text = f"{split}: image {name} is missing{also}"
        report.problems.append(Finding("missing", text, **row.where()))
  spare = sorted(sizes.keys() - used)
  for name in spare:
    report.note("images without a record", name)


def _check_row(report: Report, split: str, row: Row, words: Vocabulary) -> bool:
  """Reports a record's faults; False if one is about the image file."""
  errors = records.problems(
    row.entry, row.place, words, boxes_required=split == "train"
  )
  report.problems += [Finding.of(error) for error in errors]
  return all(error.kind != "image" for error in errors)


def _check_image(item: Checked) -> tuple[bytes, bool] | RecordError:
  """sha256 of the image and whether a tag turns it, or its fault."""
  try:
    content = item.row.place.read_image(item.size)
  except RecordError as error:
    return error
  return hashlib.sha256(content).digest(), images.is_turned(content)
