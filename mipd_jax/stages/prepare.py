"""Stage 1: folder, dataset, frozen encoders, cache; each made when absent.

A finished cache gets a note of everything it was made from. Its plan names the
encoders by a hash of their weights, and reading these takes minutes for a large
teacher; a restarted run, after a preemption above all, must not pay that each
time. The note lists files by size and time of change. While nothing differs,
the cache is opened without reading the encoders. If anything differs, our code
included, the encoders are read, and the plan made of them
(feature_cache/plan.py) says whether the cache still fits.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING

import jax

from input_pipeline import feature_cache
from input_pipeline.dataset import Dataset
from input_pipeline.feature_cache import source_code
from input_pipeline.io import atomic, buckets, json_files, lock, paths
from input_pipeline.io.errors import InputError
from mipd_jax import tasks
from mipd_jax.config import Config
from mipd_jax.devices import compilation, distributed, sharding
from mipd_jax.models import eyes
from mipd_jax.stages import inputs
from mipd_jax.tasks.prepared import Prepared
from mipd_jax.teachers import cache_plan

if TYPE_CHECKING:
  from mipd_jax.rationales.source import RationaleSource

NOTE = "made_from.json"
# Fields of `config.teacher` that change nothing in the cache.
_WITHOUT_EFFECT = (
  "cache",
  "only",
  "process_index",
  "process_count",
  "batch_size",
  "served",
)
# The function that makes a cache.
_START = "mipd_jax.stages.prepare._make_cache"
Facts = dict[str, object]


def origin_facts(
  config: Config,
  dataset: Dataset,
  encoders: Iterable[pathlib.Path],
) -> Facts:
  """All that determines a cache.

  Args:
    config: of the run.
    dataset: its images are encoded.
    encoders: folders of the checkpoints.
  """
  fields = dataclasses.asdict(config.teacher)
  return {
    "settings": {k: v for k, v in fields.items() if k not in _WITHOUT_EFFECT},
    "eyes": eyes.of(config.model).keys,
    "dataset": dataset.fingerprint,
    "vocabulary": dataset.vocabulary.fingerprint,
    "groups": dataset.groups.sha256,
    "encoders": {str(folder): _files(folder) for folder in encoders},
    "libraries": cache_plan.libraries(),
    "code": _code(),
    "code_of_data": source_code.reached(source_code.entries_of(dataset)),
  }


def same_origin(cache: str | os.PathLike, wanted: Facts) -> bool:
  """Whether a cache's note equals these facts; False without a note."""
  try:
    noted = json_files.read(pathlib.Path(cache) / NOTE)
  except InputError:  # absent or damaged: the plan decides
    return False
  return noted == json.loads(json.dumps(wanted))


def write_origin(cache: str | os.PathLike, facts: Facts) -> None:
  """Writes the note of a cache that was made from these facts, or fits them."""
  with atomic.replacing(pathlib.Path(cache) / NOTE) as path:
    path.write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")


def _files(folder: pathlib.Path) -> list[list[object]]:
  """Name, size and time of change (ns) of a checkpoint's files."""
  entries = [(path.name, path.stat()) for path in folder.iterdir()]
  return sorted([name, s.st_size, s.st_mtime_ns] for name, s in entries)


def _code() -> dict[str, str]:
  """Digests of the code that makes a cache, for any encoder and task.

  Every task's choice of rationales counts. `tasks.of` itself is not followed:
  it would reach all code of every task.
  """
  choosers = [task.rationales for task in tasks.classes().values()]
  names = (f"{one.__module__}.{one.__qualname__}" for one in choosers)
  return source_code.reached((_START, *names), without=("mipd_jax.tasks.of",))


def prepare(config: Config) -> Prepared | None:
  """Makes what is missing and opens everything.

  Returns:
    Dataset and cache, opened; None if teacher.only left a part undone.

  Raises:
    InputError: the folder, the checkpoints or an existing cache cannot be
      used.
  """
  settings = _precompute_config(config)
  local, dataset = distributed.agreed(lambda: _made_inputs(config))
  facts = origin_facts(local, dataset, inputs.encoder_folders(local))
  cache = _opened(local, facts)
  if cache is None:
    with _bucket_alone(config.teacher.cache):
      cache = _make_and_note(local, dataset, settings, facts)
      _upload(cache, local, config.teacher.cache)
  else:
    _upload(cache, local, config.teacher.cache)
  return tasks.of(config).prepared(dataset, cache) if cache else None


def _made_inputs(config: Config) -> tuple[Config, Dataset]:
  """The inputs of the cache, unless another run makes that cache."""
  folder = config.teacher.cache
  if not paths.is_remote(folder):
    index, count = _process(config)
    lock.refuse(folder, index=index, count=count)
  return inputs.make(config)


def _bucket_alone(cache: str) -> contextlib.AbstractContextManager:
  """Locks a bucket's cache; folders have their own lock."""
  if not paths.is_remote(cache):
    return contextlib.nullcontext()
  return lock.holding(cache, "preparing this cache")


def _upload(
  cache: feature_cache.Cache | None, local: Config, where: str
) -> None:
  """Copies a cache into the bucket that the config names."""
  if cache and local.teacher.cache != where:
    buckets.upload(where, last=feature_cache.MANIFEST)


def _process(config: Config) -> tuple[int, int]:
  """This process's index among those that make the cache, and their count."""
  if config.teacher.process_count:
    return config.teacher.process_index, config.teacher.process_count
  return jax.process_index(), jax.process_count()


def open_prepared(config: Config) -> Prepared:
  """Opens what `prepare` made; makes only the TFDS form.

  Raises:
    InputError: something is missing, or the cache belongs to other images.
  """
  config = inputs.on_this_machine(config, need_cache=True)
  inputs.check_sources(config, encoders=False)
  dataset = inputs.dataset(config)
  cache = feature_cache.open_cache(config.teacher.cache)
  for what, kept, wanted in (
    ("images or annotations", cache.plan.dataset, dataset.fingerprint),
    ("vocabulary", cache.plan.vocabulary, dataset.vocabulary.fingerprint),
  ):
    if kept != wanted:
      raise InputError(
        f"the cache {cache.folder} was made for other {what} than those of "
        f"{config.dataset.folder}",
        "run --mode=prepare with another --config.teacher.cache, or delete "
        "this one",
      )
  return tasks.of(config).prepared(dataset, cache)


def _precompute_config(config: Config) -> cache_plan.PrecomputeConfig:
  """The settings of the cache; refuses wrong names before any work."""
  teacher_settings = config.teacher
  cache_plan.check_tasks(_listed(teacher_settings.only))
  shown, showing = teacher_settings.instances, None
  if shown.show:
    showing = cache_plan.Showing(shown.show, shown.margin, shown.top_k)
  return cache_plan.PrecomputeConfig(
    showing=showing,
    sentences=shown.sentences,
    batch_size=teacher_settings.batch_size,
    text_length=teacher_settings.text_length,
    dtype=teacher_settings.dtype,
    parts=_listed(teacher_settings.parts),
  )


def _opened(config: Config, facts: Facts) -> feature_cache.Cache | None:
  """The cache, if it is whole and nothing that determines it changed."""
  folder = config.teacher.cache
  if distributed.all_of(same_origin(folder, facts) and _is_whole(folder)):
    return feature_cache.open_cache(folder)
  return None


def _make_and_note(
  config: Config,
  dataset: Dataset,
  settings: cache_plan.PrecomputeConfig,
  facts: Facts,
) -> feature_cache.Cache | None:
  """Makes the cache if needed and writes its note.

  Returns:
    The cache, or None if teacher.only left a part undone.
  """
  cache = _make_cache(config, dataset, settings)
  if cache and distributed.is_first():
    write_origin(config.teacher.cache, facts)
  return cache


def _is_whole(folder: str) -> bool:
  """Whether no file of a finished cache was lost or truncated since."""
  plan = feature_cache.open_cache(folder).plan
  return feature_cache.is_complete(folder, plan)


def _make_cache(
  config: Config,
  dataset: Dataset,
  settings: cache_plan.PrecomputeConfig,
) -> feature_cache.Cache | None:
  """Runs the frozen encoders over every split, unless that is done.

  Returns:
    The cache, or None if teacher.only left a part undone.
  """
  from mipd_jax.teachers import families, precompute

  teacher_settings = config.teacher
  rationales = _rationales(config, dataset)  # first: a server may be down
  dtype = compilation.compute_dtype(teacher_settings.compute_dtype)
  names = (teacher_settings.student_encoder, inputs.text_encoder(config))
  encoders = {name: families.load_encoder(name, dtype) for name in set(names)}
  mesh = sharding.make_mesh(
    model=config.mesh.model, devices=jax.local_devices()
  )
  teacher = families.load_teacher(
    teacher_settings.teacher_encoder,
    dtype,
    question=teacher_settings.question,
    verb_score=teacher_settings.verb_score,
    mesh=mesh,
    open_name=teacher_settings.open_layers,
  )
  process = None
  if teacher_settings.process_count:
    process = precompute.Process(
      teacher_settings.process_index, teacher_settings.process_count
    )
  return precompute.build_cache(
    dataset,
    encoders[teacher_settings.student_encoder],
    teacher,
    teacher_settings.cache,
    config=settings,
    mesh=mesh,
    text=encoders[inputs.text_encoder(config)],
    rationales=rationales,
    only=_listed(teacher_settings.only),
    process=process,
    eyes=eyes.of(config.model),
    instances=tasks.of(config).instances(dataset),
  )


def _rationales(config: Config, dataset: Dataset) -> "RationaleSource":
  """The task's rationales, by the language model if one is given."""
  from mipd_jax.teachers.language import language_model
  from mipd_jax.teachers.served import served_model

  teacher_settings, model = config.teacher, None
  if teacher_settings.is_served:
    model = served_model.load(
      teacher_settings.language_model, teacher_settings.served
    )
  elif teacher_settings.language_model:
    dtype = compilation.compute_dtype(teacher_settings.compute_dtype)
    model = language_model.load(teacher_settings.language_model, dtype)
  return tasks.of(config).rationales(dataset, model)


def _listed(names: str) -> tuple[str, ...]:
  return tuple(name.strip() for name in names.split(",") if name.strip())
