"""TFDS builder `hico_det`: a folder of HICO-DET as a prepared dataset.

  python -m input_pipeline.hico_det.check DIR     reports all faults
  python -m input_pipeline.hico_det.builder DIR   builds
  tfds build input_pipeline/hico_det/builder.py --manual_dir=DIR   by TFDS

The dataset has all labels, seen and unseen: zero-shot splits are applied when
a split is read, so that one dataset serves them all. A changed folder is
another dataset, since the configuration's name holds its fingerprint.
"""

import argparse
import dataclasses
import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds

from input_pipeline.hico_det import folder, vocabulary
from input_pipeline.hico_det.folder import FORMS, SPLITS, Layout
from input_pipeline.hico_det.image_split import HicoSplit
from input_pipeline.hico_det.records import Record
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io import builds, commands
from input_pipeline.io.errors import InputError
from input_pipeline.io.findings import RecordError
from input_pipeline.io.progress import Progress

_CITATION = """
@inproceedings{chao2018learning, title={Learning to Detect Human-Object
  Interactions}, author={Chao, Yu-Wei and Liu, Yunfan and Liu, Xieyang and
  Zeng, Huayi and Deng, Jia}, booktitle={WACV}, year={2018}}
"""


@dataclasses.dataclass(eq=False)
class HicoDetConfig(tfds.core.BuilderConfig):
  """What to read.

  Attributes:
    folder: DIR; None: TFDS's manual_dir.
    form: which annotations, one of `FORMS`; None: those that exist.
    skip_broken: whether images and entries that cannot be used are left out,
      named and counted, rather than refused.
  """

  folder: str | None = None
  form: str | None = None
  skip_broken: bool = False

  @classmethod
  def of(cls, layout: Layout, *, skip_broken: bool = False) -> "HicoDetConfig":
    """The configuration of a folder, named after it and its content."""
    path = layout.folder.resolve()
    stem = re.sub(r"[^a-z0-9]+", "_", path.name.lower()).strip("_") or "hico"
    name = f"{stem}_{layout.form}_{layout.fingerprint()[:12]}"
    name += "_without_broken" if skip_broken else ""
    return cls(
      name=name, folder=str(path), form=layout.form, skip_broken=skip_broken
    )


@dataclasses.dataclass(frozen=True)
class _Shard:
  """The examples of one file; TFDS calls it."""

  start: int
  records: list[Record]
  progress: Progress | None

  def __call__(self) -> Iterator[tuple[int, dict[str, Any]]]:
    for index, record in enumerate(self.records, self.start):
      yield index, _example(record)
      if self.progress is not None:
        self.progress.advance()


class HicoDet(tfds.core.ShardBasedBuilder):
  """Human-object interactions: people, objects, and what they do.

  `info.metadata` explains the numbers: its 'classes' has verbs, objects and
  interactions. Boxes are x1 y1 x2 y2 in pixels from 0, corners inside.
  """

  VERSION = tfds.core.Version("1.1.0")
  RELEASE_NOTES: ClassVar[dict[str, str]] = {
    "1.1.0": "Digests of all files.",
    "1.0.0": "First version.",
  }
  BUILDER_CONFIGS = (HicoDetConfig(name="manual"),)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "Put images/train2015/ and images/test2015/ of hico_20160224_det.tar.gz "
    "(https://umich-ywchao-hico.github.io) into manual_dir, and either "
    "trainval_hico.json and test_hico.json "
    "(https://github.com/YueLiao/gen-vlkt) or instances_train2015.json and "
    "instances_test2015.json (https://github.com/fredzzhang/hicodet). Check "
    "them by `python -m input_pipeline.hico_det.check DIR`."
  )
  _progress: Progress | None = None
  _records: dict[str, list[Record]]

  def _info(self) -> tfds.core.DatasetInfo:
    tensor = tfds.features.Tensor
    return tfds.core.DatasetInfo(
      builder=self,
      description=HicoDet.__doc__,
      homepage="https://umich-ywchao-hico.github.io",
      citation=_CITATION,
      metadata=tfds.core.MetadataDict(),
      # Shards keep the order of the annotations.
      disable_shuffling=True,
      features=tfds.features.FeaturesDict(
        {
          "image": tfds.features.Image(shape=(None, None, 3)),
          "image_name": tfds.features.Text(),
          "height": np.int32,
          "width": np.int32,
          "boxes": tensor(shape=(None, 4), dtype=np.float32),
          "objects": tensor(shape=(None,), dtype=np.int32),
          "pairs": tensor(shape=(None, 2), dtype=np.int32),
          "labels": tensor(shape=(None, 2), dtype=np.int32),
        }
      ),
    )

  def _download_and_prepare(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig | None = None,
  ) -> None:
    config = self.builder_config
    layout = folder.find(config.folder or dl_manager.manual_dir, config.form)
    words = vocabulary.load(layout.folder)
    records, errors = _read(layout, words, skip_broken=config.skip_broken)
    self.info.metadata.update(_metadata(layout, words, records, errors))
    self._records = records
    total = sum(len(rows) for rows in records.values())
    with Progress("build", total, "images") as progress:
      self._progress = progress
      super()._download_and_prepare(
        dl_manager, download_config or tfds.download.DownloadConfig()
      )
    self._records = {}
    builds.seal(self)

  def _shard_iterators_per_split(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, list[_Shard]]:
    return {
      split: [
        _Shard(start, rows[start:stop], self._progress)
        for start, stop in builds.cuts(rows)
      ]
      for split, rows in self._records.items()
    }


def _example(record: Record) -> dict[str, Any]:
  return {
    "image": record.read_image(),
    "image_name": record.name,
    "height": record.height,
    "width": record.width,
    "boxes": record.boxes,
    "objects": record.objects,
    "pairs": record.pairs,
    "labels": record.labels,
  }


def _read(
  layout: Layout, words: Vocabulary, *, skip_broken: bool
) -> tuple[dict[str, list[Record]], list[RecordError]]:
  if not skip_broken:
    return {s: folder.read_records(layout, s, words) for s in SPLITS}, []
  records, errors = {}, []
  for split in SPLITS:
    records[split], more = folder.read_usable_records(
      layout, split, words, read_images=True
    )
    errors += more
  return records, errors


def _metadata(
  layout: Layout,
  words: Vocabulary,
  records: dict[str, list[Record]],
  errors: list[RecordError],
) -> dict[str, Any]:
  return {
    "form": layout.form,
    "fingerprint": layout.fingerprint(),
    "checksums": layout.checksums(),
    "classes": {
      "verbs": list(words.verbs),
      "objects": list(words.objects),
      "interactions": np.stack([words.verb_of, words.object_of], 1).tolist(),
      "texts": list(words.texts),
      "rare": np.flatnonzero(words.rare).tolist(),
      "sha256": words.sha256,
    },
    "statistics": {s: folder.statistics(rows) for s, rows in records.items()},
    "broken": [
      {"file": x.file, "image": x.image, "problem": x.problem} for x in errors
    ],
  }


@dataclasses.dataclass(frozen=True)
class HicoImages:
  """HICO-DET on disk, as published: without a zero-shot split.

  Attributes:
    builder: the builder of the records.
    words: verbs, objects and interactions.
    folder: DIR, for its zero-shot splits.
    fingerprint: sha256 over all of the dataset's content.
  """

  builder: HicoDet
  words: Vocabulary
  folder: pathlib.Path
  fingerprint: str

  @property
  def name(self) -> str:
    """Name of the dataset, with the first digits of its fingerprint."""
    return self.builder.builder_config.name

  @property
  def broken(self) -> tuple[str, ...]:
    """Names of the images that were left out."""
    return tuple(row["image"] for row in self.builder.info.metadata["broken"])

  def split(self, name: str) -> HicoSplit:
    """Random access to 'train' or 'test', all labels.

    Raises:
      InputError: there is no such split, or it cannot be read.
    """
    if name not in SPLITS:
      raise InputError(
        f"there is no split {name!r}", f"choose one of {list(SPLITS)}"
      )
    where = pathlib.Path(self.builder.data_dir)
    builds.check_shards(self.builder, name)
    with builds.opening(where):
      rows = self.builder.as_data_source(
        name, decoders={"image": tfds.decode.SkipDecoding()}
      )
    return HicoSplit.read(name, rows, where)


def prepare(
  directory: str | pathlib.Path,
  data_dir: str | pathlib.Path,
  *,
  form: str | None = None,
  skip_broken: bool = False,
) -> HicoImages:
  """Builds the dataset of a folder, or opens it if it is built.

  Args:
    directory: DIR, see `folder`.
    data_dir: folder of prepared datasets.
    form: which annotations, see `folder.find`.
    skip_broken: whether images and entries that cannot be used are left out,
      named and counted (`HicoImages.broken`); False refuses them.

  Raises:
    InputError: a fault of the folder, a broken image, a full disk. An
      unfinished dataset is never taken for a finished one.
  """
  layout = folder.find(directory, form)
  data_dir = pathlib.Path(data_dir)
  config = HicoDetConfig.of(layout, skip_broken=skip_broken)
  where = data_dir / HicoDet.name / config.name / str(HicoDet.VERSION)
  if not builds.is_built(where):
    builds.make_folder(data_dir)
    with builds.alone(where):
      # Another process may have built it meanwhile.
      if not builds.is_built(where):
        _build(_builder(config, data_dir), layout, data_dir)
  with builds.opening(where):
    builder = _builder(config, data_dir)
  words = vocabulary.load(layout.folder)
  dataset = HicoImages(builder, words, layout.folder, layout.fingerprint())
  builds.check(builder, dataset.fingerprint)
  return dataset


def _builder(config: HicoDetConfig, data_dir: pathlib.Path) -> HicoDet:
  with builds.quiet():
    return HicoDet(
      config=config, data_dir=str(data_dir), file_format="array_record"
    )


def _build(builder: HicoDet, layout: Layout, data_dir: pathlib.Path) -> None:
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()  # its bars would fill a log file
  need = sum(sum(layout.image_sizes(split).values()) for split in SPLITS)
  with builds.room_for(need, data_dir), builds.quiet():
    builder.download_and_prepare()


def main(arguments: list[str] | None = None) -> int:
  """The command line, see the top of this file."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.hico_det.builder",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("folder", metavar="DIR")
  parser.add_argument("--form", choices=FORMS, help="which annotations")
  parser.add_argument("--data-dir", help="target; default DIR/../tfds")
  parser.add_argument(
    "--skip-broken",
    action="store_true",
    help="leave out images and entries that cannot be used; all are named",
  )
  given = parser.parse_args(arguments)
  return commands.guarded(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
  beside = pathlib.Path(given.folder).resolve().parent / "tfds"
  dataset = prepare(
    given.folder,
    given.data_dir or beside,
    form=given.form,
    skip_broken=given.skip_broken,
  )
  info = dataset.builder.info
  print(f"{dataset.builder.data_path}: {info.dataset_size}")
  for split, counts in info.metadata["statistics"].items():
    text = ", ".join(f"{n} {key}" for key, n in counts.items())
    print(f"{split:<6} {text}".replace("_", " "))
  for row in info.metadata["broken"]:
    print(f"left out: {row['problem']}")
  if dataset.broken:
    print(f"{len(dataset.broken)} images left out, see above")
  return 0


if __name__ == "__main__":
  commands.start(main)
