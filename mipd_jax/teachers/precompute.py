"""Runs the frozen encoders once over a dataset and fills the cache.

The order of operations: check the inputs and the folder, embed the labels,
then per split annotations, rationales, features shard by shard, and at the
very end the manifest. After a stop anywhere, the same call continues. Several
processes may make one cache: each encodes its own shards on its own devices;
the first also writes the files that exist once, and finishes.
"""

import contextlib
import dataclasses
import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
from absl import logging
from jax.sharding import Mesh

from input_pipeline import feature_cache, schema, stream
from input_pipeline.dataset import Dataset, Split
from input_pipeline.feature_cache import (
  ANSWERS,
  INSTANCE_TEXT,
  PARTS,
  TEXT,
  Cache,
  CachePlan,
  CacheWriter,
  Shard,
)
from input_pipeline.io.errors import InputError
from input_pipeline.io.progress import Progress
from mipd_jax.devices import chips, distributed, sharding
from mipd_jax.models.eyes import ENCODER_TOKENS, Eyes
from mipd_jax.rationales import source as rationale_source
from mipd_jax.rationales.source import RationaleSource, Texts
from mipd_jax.teachers import cache_plan, encoding, labels
from mipd_jax.teachers.answers import Asker
from mipd_jax.teachers.cache_plan import TRAIN, PrecomputeConfig
from mipd_jax.teachers.encoding import (
  CLIP_VERB_TEXT,
  Encoders,
  Features,
  error_name,
)
from mipd_jax.teachers.interfaces import (
  Encoder,
  ImageTeacher,
  InstanceSource,
)

_OF_TEXT = (TEXT, INSTANCE_TEXT)
# (part, field -> rows, indices of the rows' examples): raises for bad rows.
Check = Callable[[str, Mapping[str, np.ndarray], np.ndarray], None]


@dataclasses.dataclass(frozen=True)
class Work:
  """One batch: `indices` [batch]; the first `count` are real."""

  parts: tuple[str, ...]
  indices: np.ndarray
  count: int


def by_number(shards: Sequence[Shard]) -> list[list[Shard]]:
  """Groups the shards of several parts that hold the same examples."""
  groups: dict[int, list[Shard]] = {}
  for shard in shards:
    groups.setdefault(shard.number, []).append(shard)
  return [groups[number] for number in sorted(groups)]


def batches_of(shards: Sequence[Shard], batch_size: int) -> list[Work]:
  """Batches of each shard by itself, so a restart sees the same ones."""
  parts = tuple(shard.part for shard in shards)
  start, stop = shards[0].start, shards[0].stop
  works = []
  for first in range(start, stop, batch_size):
    indices = np.arange(first, first + batch_size)
    count = min(batch_size, stop - first)
    # Filler repeats the last example.
    works.append(Work(parts, np.minimum(indices, stop - 1), count))
  return works


def one_behind(results: Iterator) -> Iterator:
  """Yields a result after the next one started, so devices never wait."""
  previous = next(results, None)
  for result in results:
    yield previous
    previous = result
  if previous is not None:
    yield previous


def write(
  writer: CacheWriter,
  shards: Sequence[Shard],
  results: Iterator[tuple[Work, Features]],
  progress: "EncodingProgress",
  check: Check,
) -> None:
  """Writes shards of the same examples from their batches.

  `check` sees each batch before it is written, see `Encoders.check`.
  """
  with contextlib.ExitStack() as stack:
    files = [stack.enter_context(writer.open_shard(s)) for s in shards]
    for work, features in results:
      for shard, file in zip(shards, files, strict=True):
        names = [f.name for f in writer.plan.part_fields(shard.part)]
        rows = {n: np.asarray(features[n])[: work.count] for n in names}
        check(shard.part, rows, work.indices[: work.count])
        file.write(rows)
        _count_errors(file, names, features, work.count)
      progress.advance(work.count)


def _count_errors(
  file: feature_cache.ShardWriter,
  names: Sequence[str],
  features: Features,
  count: int,
) -> None:
  for name in names:
    if error_name(name) in features:
      sums = np.asarray(features[error_name(name)], np.float64)[:count]
      file.count_error(name, *sums.sum(axis=0))


class EncodingProgress(contextlib.AbstractContextManager):
  """Images per second, operations per second, and their share of the peak."""

  def __init__(self, split: str, total: int, encoders: Encoders):
    self._encoders = encoders
    self._peak = chips.peak_flops(jax.devices()[0].device_kind)
    self._progress = Progress(f"encode {split}", total, "images")
    self._first: tuple[float, float] | None = None

  def __enter__(self) -> "EncodingProgress":
    self._progress.__enter__()
    return self

  def __exit__(self, *error) -> None:
    self._progress.__exit__(*error)

  def advance(self, images: int) -> None:
    self._progress.advance(images, note=self._rate())

  def _rate(self) -> str:
    """The rate since the first finished batch, which includes compilation."""
    now = (time.monotonic(), self._encoders.flops)
    if self._first is None:
      self._first = now
      return ""
    seconds, flops = (b - a for a, b in zip(self._first, now, strict=True))
    rate = flops / max(seconds, 1e-9)
    size, unit = (1e12, "T") if rate >= 1e12 else (1e9, "G")
    note = f"({rate / size:.3g} {unit}FLOP/s a device"
    if self._peak:
      note += f", {100 * rate / self._peak:.0f} % of its peak"
    return note + ")"


# Images whose rationales are checked for length; the share that warns.
_SAMPLED, _MANY = 256, 0.1


@dataclasses.dataclass(frozen=True)
class Process:
  """This process's index among those that make a cache."""

  index: int = 0
  count: int = 1

  def __post_init__(self):
    if not 0 <= self.index < self.count:
      raise InputError(
        f"process {self.index} of {self.count}",
        "number the processes from 0; all get the same count",
      )


def build_cache(
  dataset: Dataset,
  student: Encoder,
  teacher: ImageTeacher,
  out: str | Path,
  config: PrecomputeConfig | None = None,
  mesh: Mesh | None = None,
  text: Encoder | None = None,
  rationales: RationaleSource | None = None,
  only: Collection[str] = (),
  process: Process | None = None,
  eyes: Eyes = ENCODER_TOKENS,
  instances: InstanceSource | None = None,
) -> Cache | None:
  """Makes, continues or repairs a cache; opens a complete one.

  Args:
    dataset: images with annotations, vocabulary and verb groups.
    student: the student's image encoder.
    teacher: its image tokens and verb logits are distilled.
    out: the cache's folder.
    config: the settings; the defaults if None.
    mesh: devices of this process; all of them if None.
    text: its text tower embeds labels and rationales; the student's if None.
    rationales: their source; templates if None.
    only: of `cache_plan.TASKS`, the tasks of this call; all if empty.
    process: this process's index among several; JAX's own if None.
    eyes: of the student that the cache is for.
    instances: about which the teacher is asked; for `PrecomputeConfig.showing`.

  Returns:
    The cache, or None if `only` left a part undone.

  Raises:
    InputError: `out` holds another cache, or another run writes it; the disk
      is full, an image is broken, sizes do not fit.
  """
  config = config or PrecomputeConfig()
  text = text or student
  rationales = rationales or rationale_source.TemplateRationales()
  process = process or Process(jax.process_index(), jax.process_count())
  mesh = mesh or sharding.make_mesh(devices=jax.local_devices())
  cache_plan.check_tasks(only)
  sharding.check_batch_size(mesh, config.batch_size)
  plan = cache_plan.make_plan(
    dataset, student, teacher, text, rationales, config, eyes, instances
  )
  if not feature_cache.is_complete(out, plan):
    tasks = cache_plan.with_eyes(only or PARTS, eyes)
    builder = _Builder(
      dataset=dataset,
      student=student,
      teacher=teacher,
      text=text,
      rationales=rationales,
      config=config,
      mesh=mesh,
      tasks=tasks,
      eyes=eyes,
      instances=instances,
    )
    with _alone(out, process):
      writer = CacheWriter(
        out, plan, process_index=process.index, process_count=process.count
      )
      if not builder.build(writer, everything=not only):
        return None
  cache = feature_cache.open_cache(out, plan)
  cache_plan.warn_of_libraries(cache)
  for name, error in sorted(cache.quantisation_error().items()):
    logging.info("%s as int8: relative error %.2f %%.", name, 100 * error)
  return cache


@contextlib.contextmanager
def _alone(out: str | Path, process: Process) -> Iterator[None]:
  """Holds the cache's lock, on all processes of a run or on none."""
  with contextlib.ExitStack() as stack:
    problem = None
    try:
      stack.enter_context(
        feature_cache.alone(out, process.index, process.count)
      )
    except InputError as error:
      problem = error
    if process.count == jax.process_count():
      distributed.raise_together(problem)
    elif problem:
      raise problem
    yield


@dataclasses.dataclass(frozen=True)
class _Builder:
  """The steps of `build_cache`, with their shared state."""

  dataset: Dataset
  student: Encoder
  teacher: ImageTeacher
  text: Encoder
  rationales: RationaleSource
  config: PrecomputeConfig
  mesh: Mesh
  tasks: set[str]
  eyes: Eyes
  instances: InstanceSource | None

  def build(self, writer: CacheWriter, *, everything: bool) -> bool:
    """Does this process's share; True when the cache is finished."""
    plan, once = writer.plan, self._once(writer.plan)
    if writer.is_first:
      self._write_once(writer, once if everything else self._needed(once))
    needed = self._needed(once)
    if needed:
      writer.wait_for(needed)
    if self.tasks & set(PARTS):
      self._write_features(writer)
    if not everything and (missing := writer.missing(once)):
      logging.info(
        "%s: %s done; %d files are still to be made, %s first.",
        writer.folder,
        ", ".join(sorted(self.tasks)),
        len(missing),
        missing[0],
      )
      return False
    writer.wait_for(tuple(s.path for s in plan.all_shards()) + once)
    if writer.is_first:
      writer.finish(once, cache_plan.libraries())
    writer.wait_for_manifest()
    return True

  def _once(self, plan: CachePlan) -> tuple[str, ...]:
    """Files that exist once, in the order in which they are made."""
    paths = [feature_cache.LABELS]
    for split in plan.splits:
      paths.append(_path(split.name, feature_cache.ANNOTATIONS))
      if split.name == TRAIN:
        paths.append(_path(split.name, feature_cache.RATIONALES))
    return tuple(paths)

  def _needed(self, once: tuple[str, ...]) -> tuple[str, ...]:
    """Those of these files that this run's tasks write or read."""
    unneeded = set()
    if not self.tasks & {cache_plan.LABELS, *PARTS}:
      unneeded.add(feature_cache.LABELS)
    if not self.tasks & {cache_plan.RATIONALES, *_OF_TEXT}:
      unneeded.add(_path(TRAIN, feature_cache.RATIONALES))
    return tuple(path for path in once if path not in unneeded)

  def _write_once(self, writer: CacheWriter, paths: tuple[str, ...]) -> None:
    for path in paths:
      if writer.is_done(path):
        continue
      if path == feature_cache.LABELS:
        writer.write_arrays(path, self._labels())
        continue
      split = self.dataset.split(path.split("/")[0])
      if path.endswith(feature_cache.ANNOTATIONS):
        writer.write_arrays(path, _annotations(split))
      else:
        texts = self.rationales.write(split, self.dataset.vocabulary)
        lines = rationale_source.to_lines(split.names, texts)
        writer.write_text(path, lines)

  def _labels(self) -> dict[str, np.ndarray]:
    words, mesh = self.dataset.vocabulary, self.mesh
    prompts = labels.verb_prompts(words)
    return {
      **labels.label_banks(self.text, words, mesh),
      CLIP_VERB_TEXT: labels.text_bank(self.student, prompts, mesh),
      **self.teacher.verb_bank(words, mesh),
      **self.teacher.open_weights(),
    }

  def _write_features(self, writer: CacheWriter) -> None:
    """Writes the missing shards of this process and its tasks."""
    parts = tuple(part for part in PARTS if part in self.tasks)
    splits = [s.name for s in writer.plan.splits]
    pending = {name: writer.pending(name, parts) for name in splits}
    if not any(pending.values()):
      return
    # Read back from the first process's file: the same in all processes.
    bank = writer.load_arrays(feature_cache.LABELS)
    asker = None
    if self.config.showing and ANSWERS in parts:
      asker = Asker(
        self.teacher, self.instances, self.config.showing, self.mesh
      )
    encoders = Encoders(
      student=self.student,
      teacher=self.teacher,
      text=self.text,
      verbs=self.dataset.vocabulary.verbs,
      bank=bank,
      mesh=self.mesh,
      dtype=self.config.dtype,
      eyes=self.eyes,
      asker=asker,
    )
    for name in splits:
      texts = None
      if any(shard.part in _OF_TEXT for shard in pending[name]):
        texts = self._texts(writer, name)
      self._features(writer, pending[name], encoders, texts)

  def _texts(self, writer: CacheWriter, split: str) -> Texts:
    path = _path(split, feature_cache.RATIONALES)
    names = self.dataset.split(split).names
    lines, where = writer.load_text(path), str(writer.folder / path)
    texts = rationale_source.from_lines(lines, names, where)
    self._warn_of_long(texts[:_SAMPLED])
    return texts

  def _warn_of_long(self, texts: Texts) -> None:
    """Warns if many rationales fill all their tokens: some are likely cut."""
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
    shards: tuple[feature_cache.Shard, ...],
    encoders: Encoders,
    texts: Texts | None,
  ) -> None:
    """Writes the shards of one split, those of equal number together."""
    groups = by_number(shards)
    size = self.config.batch_size
    works = [w for group in groups for w in batches_of(group, size)]
    if not works:
      return
    split = self.dataset.split(shards[0].split)
    results = one_behind(self._encode(split, works, encoders, texts))
    total = sum(work.count for work in works)

    def check(part, rows, indices):
      encoders.check(part, rows, [split.names[i] for i in indices])

    with EncodingProgress(split.name, total, encoders) as progress:
      for group in groups:
        count = len(batches_of(group, size))
        some = itertools.islice(results, count)
        write(writer, group, some, progress, check)

  def _encode(
    self,
    split: Split,
    works: list[Work],
    encoders: Encoders,
    texts: Texts | None,
  ) -> Iterator[tuple[Work, Features]]:
    """Starts the encoders on each batch while later ones are decoded."""
    seeing = any(set(work.parts) - {*_OF_TEXT} for work in works)
    sizes = [self.student.image_size, self.teacher.image_size]
    asked = None
    if any(ANSWERS in work.parts for work in works):
      asked = self.instances.of(split)
      sizes.append(encoders.asker.canvas)
    told = None
    if any(INSTANCE_TEXT in work.parts for work in works):
      told = self.instances.sentences(split, texts)
    batches = stream.image_batches(
      split,
      sizes=tuple(sizes) if seeing else (),
      batch_size=self.config.batch_size,
      indices=np.concatenate([work.indices for work in works]),
    )
    for work, batch in zip(works, batches, strict=True):
      tokens = None
      if TEXT in work.parts:
        tokens = self._tokenize([texts[i] for i in work.indices])
      some = asked and asked.rows(work.indices)
      sentences = None
      if INSTANCE_TEXT in work.parts:
        some_told = [told[i] for i in work.indices]
        sentences = encoding.tokenized_sentences(self.text, some_told)
      yield (
        work,
        encoders.encode(work.parts, batch.pixels, tokens, some, sentences),
      )

  def _tokenize(self, texts: Texts) -> tuple[np.ndarray, np.ndarray]:
    """ids int32 and mask bool, [B, 4, L]."""
    flat = [text for four in texts for text in four]
    length = self.config.text_length
    shape = (len(texts), len(schema.RATIONALES), length)
    ids, mask = self.text.tokenize(flat, length)
    return ids.reshape(shape), mask.reshape(shape)


def _path(split: str, name: str) -> str:
  return f"{split}/{name}"


def _annotations(split: Split) -> dict[str, np.ndarray]:
  columns = split.annotations()
  arrays = {k: x for k, x in columns.items() if k != schema.EXAMPLE_MASK}
  return {feature_cache.NAMES: np.array(split.names), **arrays}
