"""Runs the frozen encoders once over a dataset and fills the cache.

The order of operations: check the inputs and the folder, embed the labels,
then per split annotations, rationales, features shard by shard, and at the
very end the manifest. Stopped anywhere, the same call continues.
"""

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from input_pipeline import feature_cache, schema, stream
from input_pipeline.errors import InputError
from input_pipeline.feature_cache import TEACHER, Cache, CacheWriter
from input_pipeline.feature_cache.plan import Shard
from input_pipeline.image_split import ImageSplit
from input_pipeline.progress import Progress
from mipd_jax import sharding
from mipd_jax.rationales import templates
from mipd_jax.teachers import labels
from mipd_jax.teachers.cache_plan import TRAIN, PrecomputeConfig, make_plan
from mipd_jax.teachers.encoding import Encoder, Encoders

if TYPE_CHECKING:
  from input_pipeline.ov_swig import PreparedSwig

# The labels in the teacher's own text space; what verb_logits were made with.
TEACHER_VERB_TEXT = "teacher_verb_text"
# Images whose rationales are checked for length, and the share to warn at.
_SAMPLED, _MANY = 256, 0.1
Texts = list[tuple[str, ...]]


def build_cache(
  dataset: "PreparedSwig",
  student: Encoder,
  teacher: Encoder,
  out: str | Path,
  config: PrecomputeConfig | None = None,
  mesh: Mesh | None = None,
  text: Encoder | None = None,
) -> Cache:
  """Makes, continues or mends a cache; opens one that is complete.

  Args:
    dataset: images with annotations, vocabulary and verb groups.
    student: CLIP whose image tokens the student reads.
    teacher: CLIP whose tokens and zero-shot logits are distilled.
    out: the cache's folder.
    config: how; the defaults if None.
    mesh: devices of this process; all of them if None.
    text: CLIP whose text tower embeds labels and rationales; the student's
      if None.

  Raises:
    InputError: `out` holds a cache for something else, the disk is full, an
      image is broken, sizes do not fit.
  """
  config = config or PrecomputeConfig()
  text = text or student
  if jax.process_count() > 1:
    raise InputError(
      f"{jax.process_count()} processes were started to make one cache",
      "prepare with one process (it may use all devices of its machine), then "
      "train with as many as you like",
    )
  mesh = mesh or sharding.make_mesh(devices=jax.local_devices())
  sharding.check_batch_size(mesh, config.batch_size)
  plan = make_plan(dataset, student, teacher, text, config)
  if not feature_cache.is_complete(out, plan):
    builder = _Builder(dataset, student, teacher, text, config, mesh)
    builder.build(CacheWriter(out, plan))
  return feature_cache.open_cache(out, plan)


@dataclasses.dataclass(frozen=True)
class _Builder:
  """The steps of `build_cache`, with what they share."""

  dataset: "PreparedSwig"
  student: Encoder
  teacher: Encoder
  text: Encoder
  config: PrecomputeConfig
  mesh: Mesh

  def build(self, writer: CacheWriter) -> None:
    paths = [feature_cache.LABELS]
    banks = self._labels(writer)
    encoders = Encoders(
      self.student,
      self.teacher,
      self.text,
      banks[TEACHER_VERB_TEXT],
      self.mesh,
      self.config.dtype,
    )
    for name in self.config.splits:
      split = self.dataset.split(name)
      paths.append(_write_annotations(writer, split))
      texts = None
      if name == TRAIN:
        texts = self._rationales(split)
        paths.append(_write_rationales(writer, split, texts))
      self._features(writer, split, encoders, texts)
    writer.finish(tuple(paths))

  def _labels(self, writer: CacheWriter) -> dict[str, np.ndarray]:
    if writer.is_done(feature_cache.LABELS):
      return feature_cache.load_arrays(writer.folder / feature_cache.LABELS)
    words = self.dataset.vocabulary
    banks = labels.label_banks(self.text, words, self.mesh)
    banks[TEACHER_VERB_TEXT] = labels.text_bank(
      self.teacher, labels.verb_prompts(words), self.mesh
    )
    writer.write_arrays(feature_cache.LABELS, banks)
    return banks

  def _rationales(self, split: ImageSplit) -> Texts:
    """Four texts per image: the record's own, or else by template."""
    columns = split.annotations()
    write = templates.RationaleWriter(
      self.dataset.vocabulary,
      # Training may not name an unseen verb, not even as a wrong answer.
      allowed_verbs=np.unique(columns[schema.VERB]),
      noun_pools=templates.noun_pools(self.dataset.vocabulary, columns),
      seed=self.config.rationale_seed,
      definition_words=self.config.definition_words,
    ).write
    rows = zip(
      split.names,
      columns[schema.VERB].tolist(),
      columns[schema.NOUNS],
      columns[schema.BOXES],
      strict=True,
    )
    texts = [split.rationales(i) or write(*row) for i, row in enumerate(rows)]
    self._warn_of_long(texts[:_SAMPLED])
    return texts

  def _warn_of_long(self, texts: Texts) -> None:
    """Rationales that fill all their tokens have most likely lost some."""
    _, mask = self._tokenize(texts)
    share = float(mask.all(axis=-1).mean())
    if share > _MANY:
      logging.warning(
        "%.0f %% of the first rationales fill all %d tokens and may be cut "
        "off; consider a greater text_length or fewer definition_words",
        100 * share,
        self.config.text_length,
      )

  def _features(
    self,
    writer: CacheWriter,
    split: ImageSplit,
    encoders: Encoders,
    texts: Texts | None,
  ) -> None:
    """Writes all shards of a split that are still missing."""
    size = self.config.batch_size
    groups = _by_number(writer.pending(split.name))
    works = [work for shards in groups for work in _batches_of(shards, size)]
    if not works:
      return
    total = sum(work.count for work in works)
    with Progress(f"encode {split.name}", total, "images") as progress:
      results = _one_behind(self._encode(split, works, encoders, texts))
      for shards in groups:
        count = len(_batches_of(shards, size))
        _write_shards(
          writer, shards, itertools.islice(results, count), progress
        )

  def _encode(
    self,
    split: ImageSplit,
    works: list["_Work"],
    encoders: Encoders,
    texts: Texts | None,
  ) -> Iterator[tuple["_Work", dict[str, jax.Array]]]:
    """Starts the encoders on each batch, while later ones are decoded."""
    batches = stream.image_batches(
      split,
      sizes=(self.student.image_size, self.teacher.image_size),
      batch_size=self.config.batch_size,
      indices=np.concatenate([work.indices for work in works]),
    )
    for work, batch in zip(works, batches, strict=True):
      tokens = None
      if TEACHER in work.parts:
        tokens = self._tokenize([texts[i] for i in work.indices])
      yield work, encoders.encode(work.parts, batch.pixels, tokens)

  def _tokenize(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """ids int32 and mask bool, [B, 4, L]."""
    flat = [text for four in texts for text in four]
    length = self.config.text_length
    shape = (len(texts), len(schema.RATIONALES), length)
    ids, mask = self.text.tokenize(flat, length)
    return ids.reshape(shape), mask.reshape(shape)


@dataclasses.dataclass(frozen=True)
class _Work:
  """One batch: `indices` [batch], of which the first `count` are real."""

  parts: tuple[str, ...]
  indices: np.ndarray
  count: int


def _by_number(shards: tuple[Shard, ...]) -> list[list[Shard]]:
  """Shards of several parts that hold the same examples go together."""
  groups: dict[int, list[Shard]] = {}
  for shard in shards:
    groups.setdefault(shard.number, []).append(shard)
  return [groups[number] for number in sorted(groups)]


def _batches_of(shards: list[Shard], batch_size: int) -> list[_Work]:
  """Batches begin anew in each shard, so a restart sees the same ones."""
  parts = tuple(shard.part for shard in shards)
  start, stop = shards[0].start, shards[0].stop
  works = []
  for first in range(start, stop, batch_size):
    indices = np.arange(first, first + batch_size)
    count = min(batch_size, stop - first)
    # Filler repeats the last example.
    works.append(_Work(parts, np.minimum(indices, stop - 1), count))
  return works


def _one_behind(results: Iterator) -> Iterator:
  """Yields a result once the next one is started, so devices never wait."""
  previous = next(results, None)
  for result in results:
    yield previous
    previous = result
  if previous is not None:
    yield previous


def _write_shards(
  writer: CacheWriter,
  shards: list[Shard],
  results: Iterator,
  progress: Progress,
) -> None:
  with contextlib.ExitStack() as stack:
    files = [stack.enter_context(writer.open_shard(s)) for s in shards]
    for work, features in results:
      for shard, file in zip(shards, files, strict=True):
        keys = feature_cache.PARTS[shard.part]
        file.write({k: np.asarray(features[k])[: work.count] for k in keys})
      progress.advance(work.count)


def _write_annotations(writer: CacheWriter, split: ImageSplit) -> str:
  path = f"{split.name}/{feature_cache.ANNOTATIONS}"
  if not writer.is_done(path):
    columns = split.annotations()
    arrays = {key: columns[key] for key in feature_cache.COLUMNS}
    names = {feature_cache.NAMES: np.array(split.names)}
    writer.write_arrays(path, names | arrays)
  return path


def _write_rationales(
  writer: CacheWriter, split: ImageSplit, texts: Texts
) -> str:
  path = f"{split.name}/{feature_cache.RATIONALES}"
  if not writer.is_done(path):
    lines = (
      json.dumps({"image": name, **dict(zip(schema.RATIONALES, four))})  # noqa: B905
      for name, four in zip(split.names, texts, strict=True)
    )
    writer.write_text(path, "\n".join(lines) + "\n")
  return path
