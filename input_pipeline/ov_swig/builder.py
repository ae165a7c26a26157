"""TFDS builder `ov_swig`: any SWiG-layout folder as a prepared dataset.

  python -m input_pipeline.ov_swig --check DIR     reports all faults
  python -m input_pipeline.ov_swig --build DIR     checks and builds
  tfds build input_pipeline/ov_swig/builder.py --manual_dir=DIR    TFDS's own

`prepare` builds the dataset unless it exists. A changed folder is another
dataset, since the configuration's name holds its fingerprint. Plain TFDS uses
the configuration `manual`, whose name has no fingerprint: a data_dir holds only
one such dataset.
"""

import dataclasses
import functools
import pathlib
import re
import sys
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from input_pipeline.io import builds
from input_pipeline.io.builds import Watch
from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from input_pipeline.ov_swig import folder as folder_lib
from input_pipeline.ov_swig import layout, shards, vocabulary
from input_pipeline.ov_swig.image_split import ImageSplit
from input_pipeline.ov_swig.mirror import BothViews
from input_pipeline.ov_swig.splits import groups as groups_lib
from input_pipeline.schema import ANNOTATORS, MAX_ROLES, RATIONALES

_CITATION = """
@inproceedings{pratt2020grounded, title={Grounded Situation Recognition},
  author={Pratt, Sarah and Yatskar, Mark and Weihs, Luca and Farhadi, Ali and
  Kembhavi, Aniruddha}, booktitle={ECCV}, year={2020}}
@inproceedings{yatskar2016situation, title={Situation Recognition: Visual
  Semantic Role Labeling for Image Understanding}, author={Yatskar, Mark and
  Zettlemoyer, Luke and Farhadi, Ali}, booktitle={CVPR}, year={2016}}
"""


@dataclasses.dataclass(eq=False)
class OvSwigConfig(tfds.core.BuilderConfig):
  """What to read.

  Attributes:
    folder: DIR with images_512 and SWiG_jsons; None: TFDS's manual_dir.
    withhold: whether training images lose rationales that name an unseen
      verb, see `folder.read_folder`.
    skip_broken: whether images that are missing or cannot be decoded are left
      out, and wrong boxes clipped or dropped, rather than refused.
  """

  folder: str | None = None
  withhold: bool = True
  skip_broken: bool = False

  @classmethod
  def of(
    cls,
    folder: str | pathlib.Path,
    *,
    withhold: bool = True,
    skip_broken: bool = False,
  ) -> "OvSwigConfig":
    """The configuration of a folder, named after it and its content."""
    path = pathlib.Path(folder).resolve()
    stem = re.sub(r"[^a-z0-9]+", "_", path.name.lower()).strip("_") or "swig"
    name = f"{stem}_{folder_lib.fingerprint(path)[:12]}"
    name += "" if withhold else "_as_given"
    name += "_without_broken" if skip_broken else ""
    return cls(
      name=name,
      folder=str(path),
      withhold=withhold,
      skip_broken=skip_broken,
    )


class OvSwig(tfds.core.ShardBasedBuilder):
  """Open-vocabulary grounded situation recognition on SWiG-like data.

  Numbers are those of `info.metadata`: its 'vocabulary' has verbs with
  definitions, roles with definitions and questions, nouns with glosses.
  """

  VERSION = tfds.core.Version("2.2.0")
  RELEASE_NOTES: ClassVar[dict[str, str]] = {
    "2.2.0": "Digests of all files; empty splits are refused.",
    "2.1.0": "Every image is decoded; what is broken can be left out.",
    "2.0.0": "Shards of bounded size; metadata; the authors' files.",
    "1.0.0": "First version.",
  }
  BUILDER_CONFIGS = (OvSwigConfig(name="manual"),)
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    "Put images_512/ and SWiG_jsons/ into manual_dir. Images: "
    "https://swig-data-weights.s3.us-east-2.amazonaws.com/images_512.zip. "
    "SWiG_jsons: https://github.com/allenai/swig has train.json, dev.json, "
    "test.json and imsitu_space.json; https://github.com/caicch/Ov-GSR links "
    "the authors' Ov-SWiG files, which take their place. Check them by "
    "`python -m input_pipeline.ov_swig --check DIR`."
  )
  # The folder that `prepare` has read, so that it is not read twice.
  source: folder_lib.SwigFolder | None = None
  # Only set for a build in this process; Beam's workers cannot report to it.
  _watch: Watch | None = None

  def _info(self) -> tfds.core.DatasetInfo:
    tensor = tfds.features.Tensor
    return tfds.core.DatasetInfo(
      builder=self,
      description=OvSwig.__doc__,
      homepage="https://prior.allenai.org/projects/gsr",
      citation=_CITATION,
      metadata=tfds.core.MetadataDict(),
      # Shards keep the order of the JSON.
      disable_shuffling=True,
      # `boxes` are x1 y1 x2 y2 in pixels, -1 absent (the batch contract has
      # shares of the canvas). Beyond the frame `roles` are -1 and `nouns` Pad.
      # `height` and `width` are in pixels; `group` is an index into
      # schema.GROUPS. `rationales` are in the order of schema.RATIONALES, ''
      # where there is none.
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

  def _download_and_prepare(
    self,
    dl_manager: tfds.download.DownloadManager,
    download_config: tfds.download.DownloadConfig | None = None,
  ) -> None:
    """Builds in this process, or with Beam if a runner or options are given."""
    config = _with_runner(download_config or tfds.download.DownloadConfig())
    if self.source is None:
      self.source = folder_lib.read_folder(
        self.builder_config.folder or dl_manager.manual_dir,
        withhold=self.builder_config.withhold,
        skip_broken=self.builder_config.skip_broken,
      )
    if error := next(self.source.missing_parts(), None):
      raise error
    self.info.metadata.update(shards.metadata(self.source))
    if config.beam_runner is not None:
      super()._download_and_prepare(dl_manager, config)
      _mend_lengths(self)
      builds.seal(self)
      return
    total = sum(map(len, self.source.splits.values()))
    with Progress("build", total, "images") as progress:
      self._watch = Watch(progress)
      super()._download_and_prepare(dl_manager, config)
    self.info.metadata["image_checksums"] = self._watch.results()
    builds.seal(self)

  def _shard_iterators_per_split(
    self, dl_manager: tfds.download.DownloadManager
  ) -> dict[str, list[shards.Shard]]:
    return {
      split: shards.shards(self.source, split, self._watch)
      for split in layout.SPLITS
    }


def _with_runner(
  config: tfds.download.DownloadConfig,
) -> tfds.download.DownloadConfig:
  """Takes Beam's runner from the options that `tfds build` gives."""
  if config.beam_options is None or config.beam_runner is not None:
    return config
  # Whoever made options for Beam has it installed; nothing else needs it.
  from apache_beam.options import pipeline_options

  standard = config.beam_options.view_as(pipeline_options.StandardOptions)
  return config.replace(beam_runner=standard.runner or "DirectRunner")


def _mend_lengths(builder: OvSwig) -> None:
  """Corrects the order of the shards' lengths after a Beam build.

  TFDS 4.9.10 (split_builder's `submit_shard_based_generation`) sorts them by
  the number of the shard as text, so "10" comes before "2". Also deletes
  *.shard_infos.json, the files in which TFDS passes the lengths on and which it
  leaves beside the shards.
  """
  infos = []
  for split, info in builder.info.splits.items():
    cuts = builds.cuts(builder.source.splits[split])
    lengths = [stop - start for start, stop in cuts]
    infos.append(info.replace(shard_lengths=lengths))
  builder.info.set_splits(tfds.core.SplitDict(infos))
  for infos_file in builder.data_path.glob("*.shard_infos.json"):
    infos_file.unlink()


@dataclasses.dataclass(frozen=True)
class SwigDataset:
  """A `dataset.Dataset` of situations: SWiG, or a folder in its layout.

  Attributes:
    builder: the builder of the records.
    vocabulary, groups: those of the folder.
    fingerprint: names the content, see `folder.fingerprint`, and with mirrored
      views ends in "and mirrored"; the same for any `withhold` and
      `skip_broken`.
    mirrored: whether `train` also has the mirror image of every image.
  """

  builder: OvSwig
  vocabulary: vocabulary.Vocabulary
  groups: groups_lib.VerbGroups
  fingerprint: str
  mirrored: bool = False

  @property
  def name(self) -> str:
    """Name of the dataset, with the first digits of its fingerprint."""
    return self.builder.builder_config.name

  @property
  def broken(self) -> tuple[str, ...]:
    """Names of the images that were left out as broken."""
    rows = self.builder.info.metadata["broken"]
    return tuple(row["image"] for row in rows)

  def with_mirrored_views(self) -> "SwigDataset":
    """This dataset with the mirror image of every training image added."""
    print_ = f"{self.fingerprint} and mirrored"
    return dataclasses.replace(self, fingerprint=print_, mirrored=True)

  def split(self, name: str) -> ImageSplit | BothViews:
    """Random access to 'train', 'dev' or 'test'."""
    if name not in layout.SPLITS:
      raise InputError(
        f"there is no split {name!r}",
        f"choose one of {list(layout.SPLITS)}",
      )
    folder = pathlib.Path(self.builder.data_dir)
    builds.check_shards(self.builder, name)
    with builds.opening(folder):
      rows = self.builder.as_data_source(
        name, decoders={"image": tfds.decode.SkipDecoding()}
      )
    pad = self.vocabulary.noun_index[vocabulary.PAD]
    split = ImageSplit(name, rows, pad, folder)
    return BothViews(split) if self.mirrored and name == "train" else split


def prepare(
  folder: str | pathlib.Path,
  data_dir: str | pathlib.Path,
  *,
  num_rare: int | None = None,
  num_unseen: int | None = None,
  seed: int = 0,
  withhold: bool = True,
  skip_broken: bool = False,
) -> SwigDataset:
  """Builds the dataset of a folder, or opens it if it is built.

  Args:
    folder: DIR with images_512 and SWiG_jsons.
    data_dir: folder of prepared datasets.
    num_rare, num_unseen, seed: settings of the draw if DIR has no
      ov_splits.json, see `groups.load_groups`.
    withhold: whether training images lose rationales that name an unseen
      verb, see `folder.read_folder`.
    skip_broken: whether images that are missing or cannot be decoded are
      left out (`SwigDataset.broken` names them), and wrong boxes clipped or
      dropped (`info.metadata` names them); False refuses both.

  Raises:
    InputError: a fault of the folder, a broken image, a full disk. An
      unfinished dataset is never taken for a finished one.
  """
  folder_lib.check_layout(folder)
  options = {"withhold": withhold, "skip_broken": skip_broken}
  draw = {"num_rare": num_rare, "num_unseen": num_unseen, "seed": seed}
  read = functools.partial(folder_lib.read_folder, folder, **options, **draw)
  data_dir = pathlib.Path(data_dir)
  source = None
  # Reading draws the split file, which is part of the fingerprint, so it comes
  # first.
  if not (layout.jsons_folder(folder) / groups_lib.SPLITS_FILE).exists():
    builds.make_folder(data_dir)
    source = read()
  config = OvSwigConfig.of(folder, **options)
  where = data_dir / OvSwig.name / config.name / str(OvSwig.VERSION)
  if not builds.is_built(where):
    builds.make_folder(data_dir)
    source = source or read()
    with builds.alone(where):
      # Another process may have built it meanwhile.
      if not builds.is_built(where):
        _build(_builder(config, data_dir), source, data_dir)
  with builds.opening(where):
    builder = _builder(config, data_dir)
  words = vocabulary.load(folder)
  groups = groups_lib.load_groups(folder, words, ())
  dataset = SwigDataset(builder, words, groups, folder_lib.fingerprint(folder))
  builds.check(builder, dataset.fingerprint)
  return dataset


def _builder(config: OvSwigConfig, data_dir: pathlib.Path) -> OvSwig:
  with builds.quiet():
    return OvSwig(
      config=config, data_dir=str(data_dir), file_format="array_record"
    )


def _build(
  builder: OvSwig, source: folder_lib.SwigFolder, data_dir: pathlib.Path
) -> None:
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()  # its bars would fill a log file
  builder.source = source
  records = [r for rows in source.splits.values() for r in rows]
  need = sum(record.path.stat().st_size for record in records)
  with builds.room_for(need, data_dir), builds.quiet():
    builder.download_and_prepare()
