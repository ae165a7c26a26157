"""Checks a folder and tells all that is wrong with it, without building.

The reader (`folder.read_folder`) stops at the first problem; this goes on, so
that a folder is mended in one round. Records take seconds, images minutes.
"""

import dataclasses
import hashlib
import pathlib
import time
from collections.abc import Collection, Mapping
from concurrent import futures

from input_pipeline.io import builds, images
from input_pipeline.io.builds import ImageDigest
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import Finding, RecordError
from input_pipeline.io.progress import Progress
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

_CHUNK = 64  # images a thread checks at a time
_THREADS = 8  # they wait for the disk most of the time


@dataclasses.dataclass(frozen=True)
class Checked:
  """An image whose record could be read.

  Attributes:
    split: where it stands.
    row: its record.
    size: (height, width) that the record says; None if it does not.
    built: whether a build takes it: not a training image of an unseen verb.
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
  """Prints what a folder holds and what is wrong with it; 0 if it is sound.

  Args:
    folder: DIR with images_512 and SWiG_jsons.
    read_images: whether to read every image as well.
    report_path: a JSON file to write everything to.
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
  """Checks all but the content of images.

  Returns:
    The report so far, and the images to check.

  Raises:
    InputError: files are missing, or the vocabulary is wrong: without them
      records mean nothing.
  """
  report = Report(pathlib.Path(folder))
  files = layout.find(folder)
  words = _vocabulary(folder)
  groups = _groups(report, files, words)
  rows, sound = {}, set()
  for split in SPLITS:
    told = len(report.problems)
    rows[split] = _read(report, files, split, words)
    if len(report.problems) == told:
      sound.add(split)
  if not rows["train"]:  # From no record, no noun class would follow.
    words = vocabulary.load(folder, all_nouns=True)
  _check_overlap(report, rows)
  _check_whole(report, files, rows, words, groups)
  _check_images_of(report, files, rows, sound, words, groups)
  there = files.image_sizes()
  _check_there(report, rows, there)
  unseen = () if groups is None else leaks.unseen_names(words, groups)
  checked = []
  for split, found in rows.items():
    for row in found.values():
      sound = _check_row(report, split, row, words)
      if sound and row.place.image_path.name in there:
        size = (row.entry.get("height"), row.entry.get("width"))
        size = size if all(type(side) is int for side in size) else None
        built = split != "train" or row.entry["verb"] not in unseen
        checked.append(Checked(split, row, size, built))
  check_report.add(report, files, rows, words, groups)
  return report, checked


def check_images(report: Report, checked: list[Checked]) -> None:
  """Reads every image; adds problems, and a checksum of each split's images."""
  digests = {split: ImageDigest() for split in SPLITS}
  first: dict[bytes, Checked] = {}
  chunks = [checked[i : i + _CHUNK] for i in range(0, len(checked), _CHUNK)]
  with (
    Progress("check", len(checked), "images") as progress,
    futures.ThreadPoolExecutor(_THREADS) as pool,
  ):
    for chunk, results in zip(
      chunks, pool.map(_check_chunk, chunks), strict=True
    ):
      for item, found in zip(chunk, results, strict=True):
        if isinstance(found, RecordError):
          report.problems.append(Finding.of(found))
          continue
        found, is_turned = found
        if is_turned:
          report.note(
            "images with an orientation tag, which is ignored",
            "boxes are those of the image as stored",
            item.row,
          )
        name = item.row.place.image_path.name
        if item.built:
          digests[item.split].add(name, found.hex())
        other = first.setdefault(found, item)
        if other.split != item.split:
          report.note(
            "the same image in two splits",
            f"{item.split}: {name} is {other.split}: "
            f"{other.row.place.image_path.name}",
            item.row,
          )
      progress.advance(len(chunk))
  report.facts["image_checksums"] = {
    split: digest.result() for split, digest in digests.items()
  }


def _groups(
  report: Report, files: Layout, words: Vocabulary
) -> groups_lib.VerbGroups | None:
  """The groups as they are or follow from the files; None if to be drawn."""
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
  """Without classes from train.json where that cannot be read: told later."""
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
  for split, found in rows.items():
    for name, row in found.items():
      if home.setdefault(name, split) != split:
        report.problems.append(
          Finding(
            "overlap",
            f"image {name} stands in the splits {home[name]} and {split}",
            **row.where(),
          )
        )


def _try_to_draw(report: Report, files: Layout, words: Vocabulary) -> None:
  """Whether a first build could draw groups; files are told of elsewhere."""
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
  """What whole files and splits tell, see `record_conventions`."""
  unseen = () if groups is None else leaks.unseen_names(words, groups)
  share = report.facts.setdefault("out_of_vocabulary", {})
  for split, found in rows.items():
    for path, error in record_conventions.wrong_boxes(found):
      report.problems.append(
        Finding("boxes of a file", str(error), file=path.name)
      )
    for path in record_conventions.corner_files(found):
      text = f"{path.name}: {record_conventions.CORNER}"
      report.note("files whose boxes all lie in one quarter", text)
    nouns = record_conventions.nouns(found, words, unseen)
    share[split] = {"nouns": nouns.total, "share": nouns.share}
    if found and not record_conventions.has_nouns(found):
      report.note("splits in which every noun is blank", split)
    if found and not record_conventions.has_boxes(found):
      report.note("splits without a box, nothing is grounded there", split)
    error = record_conventions.wrong_nouns(files, split, nouns, words)
    if error is not None:
      report.problems.append(Finding.of(error, "nouns"))
    for noun, name in record_conventions.differing(
      nouns.unlisted, words
    ).items():
      report.note(
        f"nouns that differ from a class by capitals alone, {split}",
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
  """What splits lack, but for those of which a record could not be read."""
  verbs_of = {
    split: {name: row.entry["verb"] for name, row in found.items()}
    for split, found in rows.items()
    if split in sound
  }
  for error in record_conventions.missing_images(
    files, verbs_of, words, groups
  ):
    report.problems.append(Finding.of(error, "split"))


def _check_there(
  report: Report, rows: Mapping[str, Rows], there: Mapping[str, int]
) -> None:
  used = set()
  for split, found in rows.items():
    used |= found.keys()
    for name, row in found.items():
      if name not in there:
        like = record_files.like_names([name], there).get(name)
        also = f"; {like!r} is there" if like else ""
        text = f"{split}: image {name} is missing{also}"
        report.problems.append(Finding("missing", text, **row.where()))
  spare = sorted(there.keys() - used)
  for name in spare:
    report.note("images without a record", name)


def _check_row(report: Report, split: str, row: Row, words: Vocabulary) -> bool:
  """Whether its image can be opened, as far as reading the record told."""
  found = records.problems(
    row.entry, row.place, words, boxes_required=split == "train"
  )
  report.problems += [Finding.of(error) for error in found]
  return all(error.kind != "image" for error in found)


def _check_chunk(
  chunk: list[Checked],
) -> list[tuple[bytes, bool] | RecordError]:
  """sha256 of each image and whether a tag turns it, or what is wrong with it.

  Runs on a thread.
  """
  return [_check_image(item) for item in chunk]


def _check_image(item: Checked) -> tuple[bytes, bool] | RecordError:
  try:
    content = item.row.place.read_image(item.size)
  except RecordError as error:
    return error
  return hashlib.sha256(content).digest(), images.is_turned(content)
