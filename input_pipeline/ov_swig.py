"""TFDS builder `ov_swig`: any SWiG-layout folder as a prepared dataset.

  python -m input_pipeline.ov_swig --check DIR     reads and checks a folder

`prepare` builds the dataset where it does not exist yet. A changed folder is
another dataset, since the configuration's name holds its fingerprint.
"""

import argparse
import contextlib
import dataclasses
import io
import logging
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from input_pipeline import images, splits, swig, vocabulary
from input_pipeline.errors import InputError
from input_pipeline.image_split import ImageSplit
from input_pipeline.schema import ANNOTATORS, MAX_ROLES, RATIONALES
from input_pipeline.swig_record import Record

_FULL_DISK = "No space left on device"


@dataclasses.dataclass(eq=False)
class OvSwigConfig(tfds.core.BuilderConfig):
  """Which folder to read; None: TFDS's manual_dir."""

  folder: str | None = None

  @classmethod
  def of(cls, folder: str | pathlib.Path) -> "OvSwigConfig":
    """The configuration of a folder, named after it and its content."""
    path = pathlib.Path(folder).resolve()
    stem = re.sub(r"[^a-z0-9]+", "_", path.name.lower()).strip("_") or "swig"
    return cls(name=f"{stem}_{swig.fingerprint(path)[:12]}", folder=str(path))


class OvSwig(tfds.core.GeneratorBasedBuilder):
  """Open-vocabulary grounded situation recognition on SWiG-like data."""

  VERSION = tfds.core.Version("1.0.0")
  BUILDER_CONFIGS = (OvSwigConfig(name="manual"),)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "Put images_512/ and SWiG_jsons/ of https://github.com/allenai/swig into "
    "manual_dir, or name a folder: OvSwig(config=OvSwigConfig.of(DIR))."
  )
  # The folder as `prepare` has read it, so that it is not read twice.
  content: swig.SwigFolder | None = None

  def _info(self) -> tfds.core.DatasetInfo:
    tensor = tfds.features.Tensor
    return tfds.core.DatasetInfo(
      builder=self,
      description=OvSwig.__doc__,
      homepage="https://prior.allenai.org/projects/gsr",
      # Keys are positions: the order of the JSON is the order on disk.
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(None, None, 3)),
          "image_name": tfds.features.Text(),
          "verb": np.int32,
          "group": np.int32,
          "roles": tensor(shape=(MAX_ROLES,), dtype=np.int32),
          "nouns": tensor(shape=(MAX_ROLES, ANNOTATORS), dtype=np.int32),
          "boxes": tensor(shape=(MAX_ROLES, 4), dtype=np.float32),
          "height": np.int32,
          "width": np.int32,
          "rationales": tfds.features.Sequence(
            tfds.features.Text(), length=len(RATIONALES)
          ),
        }
      ),
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager):
    if self.content is None:
      folder = self.builder_config.folder or dl_manager.manual_dir
      self.content = swig.read_folder(folder)
    return {split: self._generate_examples(split) for split in swig.SPLITS}

  def _generate_examples(
    self, split: str
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    words = self.content.vocabulary
    for index, record in enumerate(self.content.splits[split]):
      yield index, _example(record, words)


def _example(record: Record, words: vocabulary.Vocabulary) -> dict[str, Any]:
  """Features of one record; roles are padded, the image stays as it is."""
  content = record.path.read_bytes()
  images.check(content, str(record.path), record.height, record.width)
  spare = MAX_ROLES - len(record.nouns)
  pad = words.noun_index[vocabulary.PAD]
  pad_rows = ((0, spare), (0, 0))
  return {
    "image": content,
    "image_name": record.name,
    "verb": record.verb,
    "group": record.group,
    "roles": words.frame_array[record.verb],
    "nouns": np.pad(record.nouns, pad_rows, constant_values=pad),
    "boxes": np.pad(record.boxes, pad_rows, constant_values=-1.0),
    "height": record.height,
    "width": record.width,
    "rationales": list(record.rationales or ("",) * len(RATIONALES)),
  }


@dataclasses.dataclass(frozen=True)
class PreparedSwig:
  """A dataset on disk, with its vocabulary and verb groups."""

  builder: OvSwig
  vocabulary: vocabulary.Vocabulary
  groups: splits.VerbGroups
  fingerprint: str

  @property
  def name(self) -> str:
    """Name of the dataset, with the first digits of its fingerprint."""
    return self.builder.builder_config.name

  def split(self, name: str) -> ImageSplit:
    """Random access to 'train', 'dev' or 'test'."""
    if name not in swig.SPLITS:
      raise InputError(
        f"there is no split {name!r}", f"choose one of {list(swig.SPLITS)}"
      )
    if not self.builder.info.splits[name].num_examples:
      raise InputError(
        f"split {name!r} of {self.name} has no images",
        f"add records to {name}.json",
      )
    rows = self.builder.as_data_source(
      name, decoders={"image": tfds.decode.SkipDecoding()}
    )
    pad = self.vocabulary.noun_index[vocabulary.PAD]
    return ImageSplit(name, rows, pad, pathlib.Path(self.builder.data_dir))


def prepare(
  folder: str | pathlib.Path,
  data_dir: str | pathlib.Path,
  *,
  num_rare: int | None = None,
  num_unseen: int | None = None,
  seed: int = 0,
) -> PreparedSwig:
  """Builds the dataset of a folder, or finds it built.

  Args:
    folder: DIR with images_512 and SWiG_jsons.
    data_dir: where prepared datasets live.
    num_rare, num_unseen, seed: of the draw where DIR has no ov_splits.json,
      see `splits.load_groups`.

  Raises:
    InputError: anything wrong with the folder, a broken image, a full disk.
      Nothing unfinished is left behind as if it were whole.
  """
  swig.check_layout(folder)
  draw = {"num_rare": num_rare, "num_unseen": num_unseen, "seed": seed}
  content = None
  if not (vocabulary.jsons_folder(folder) / splits.SPLITS_FILE).exists():
    content = swig.read_folder(folder, **draw)
  with _quiet():
    builder = OvSwig(
      config=OvSwigConfig.of(folder),
      data_dir=str(data_dir),
      file_format="array_record",
    )
  if not builder.is_prepared():
    builder.content = content or swig.read_folder(folder, **draw)
    _build(builder, pathlib.Path(data_dir))
    # The records are on disk now; do not keep them in memory as well.
    builder.content = None
  words = vocabulary.load(folder)
  groups = splits.load_groups(folder, words, ())
  return PreparedSwig(builder, words, groups, swig.fingerprint(folder))


def _build(builder: OvSwig, data_dir: pathlib.Path) -> None:
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()  # it would fill a log file with bars
  data_dir.mkdir(parents=True, exist_ok=True)
  records = [r for rows in builder.content.splits.values() for r in rows]
  need = sum(record.path.stat().st_size for record in records)
  free = shutil.disk_usage(data_dir).free
  if need > free:
    raise _full(data_dir, need, free)
  try:
    with _quiet():
      builder.download_and_prepare()
  except Exception as error:
    if _FULL_DISK in str(error):
      free = shutil.disk_usage(data_dir).free
      raise _full(data_dir, need, free) from error
    raise


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
  """Hides TFDS's talk of downloads (there are none), not its progress bars."""
  logger = logging.getLogger("absl")
  level = logger.level
  logger.setLevel(logging.ERROR)
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    logger.setLevel(level)


def _full(data_dir: pathlib.Path, need: int, free: int) -> InputError:
  return InputError(
    f"{data_dir} has {free / 1e6:.0f} MB free, the dataset needs about "
    f"{need / 1e6:.0f} MB",
    "make room there, or choose another data directory",
  )


def check(folder: str | pathlib.Path) -> int:
  """Prints what a folder holds and its first problems; 0 if it is sound."""
  content = swig.read_folder(folder)
  words = content.vocabulary
  print(
    f"{content.folder}: {len(words.verbs)} verbs, {len(words.roles)} roles, "
    f"{len(words.nouns)} noun classes, fingerprint {content.fingerprint[:12]}"
  )
  print(f"verbs  {content.groups.counts}")
  for split, by_group in content.counts().items():
    print(f"{split:<6} {sum(by_group.values())} images, {by_group}")
  print(f"       {content.dropped} training images of unseen verbs left out")
  problems = swig.verify_images(content)
  for problem in problems:
    print(f"problem: {problem}")
  print("images: " + ("see the problems above" if problems else "all whole"))
  return 1 if problems else 0


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--check", metavar="DIR", required=True)
  folder = parser.parse_args(arguments).check
  try:
    return check(folder)
  except InputError as error:
    with contextlib.suppress(BrokenPipeError):
      print(f"problem: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
  sys.exit(main())
