"""The data of one world: its cache, and its features in memory, read once.

All runs of a world share them. Training features are loaded with every part
that some run of the study reads; a run gets views of those that it uses.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Int

from input_pipeline import feature_cache
from input_pipeline.stream import Source
from mipd_jax.ablations import holdout, studied_tasks
from mipd_jax.ablations.studied_tasks import StudiedTask
from mipd_jax.config import Config
from mipd_jax.devices import sharding
from mipd_jax.feeding import feeds, resident, shuffled
from mipd_jax.feeding.feeds import Feed, FromMemory, Streaming
from mipd_jax.feeding.resident import Resident, loading
from mipd_jax.stages import train as train_stage
from mipd_jax.tasks.prepared import Prepared
from mipd_jax.training import programs

# Training sets kept in memory at once: all images, verbs held out, shuffled.
_KEPT = 3


@dataclasses.dataclass(frozen=True)
class Data:
  """The data that a run reads of one split.

  Attributes:
    source: of examples; gives the shapes.
    feed: of their batches.
    rows: int [n], the examples' rows in the split.
  """

  source: Source
  feed: Feed
  rows: Int[np.ndarray, "n"]


class WorldData:
  """The data of all runs of one world; opened once.

  Args:
    config: of any of the runs: its mesh, batch sizes and residence are used.
    prepared: the world's dataset and cache.
    parts: parts of the cache that some run trains on.
    held_out_verbs: how many; see `holdout.draw`.

  Attributes:
    prepared: as given.
    mesh: of all devices.
  """

  def __init__(
    self,
    config: Config,
    prepared: Prepared,
    parts: frozenset[str],
    held_out_verbs: int,
  ):
    self._config = config
    self.prepared = prepared
    self._parts = tuple(p for p in feature_cache.PARTS if p in parts)
    self.mesh = train_stage.make_mesh(config)
    self._held_out_verbs = held_out_verbs
    self._training = functools.lru_cache(maxsize=_KEPT)(self._load_training)
    # Views are cheap, but each has its own gather program.
    self.training = functools.lru_cache(maxsize=8)(self._view_training)
    self.selection = functools.cache(self._load_selection)
    self.evaluated = functools.cache(self._load_evaluated)

  @functools.cached_property
  def held_out(self) -> holdout.HeldOut:
    """The verbs that some runs are trained without."""
    return self.studied(self._config).held_out(self._held_out_verbs)

  def studied(self, config: Config) -> StudiedTask:
    """The task of a run in this world."""
    return studied_tasks.of(config, self.prepared)

  def banks(self, rows: Int[np.ndarray, "n"], config: Config) -> dict[str, Any]:
    """Banks of a run that trains on these images, on the devices."""
    banks = self.studied(config).banks(rows)
    return jax.device_put(banks, sharding.replicated(self.mesh))

  def all_rows(self, split: str) -> Int[np.ndarray, "n"]:
    """Every row of a split."""
    return np.arange(self.prepared.cache.split(split, ()).num_examples)

  def _view_training(
    self, parts: tuple[str, ...], kind: str, held_out: bool
  ) -> Data:
    """Training examples with the features of some parts.

    Args:
      parts: of the cache.
      kind: of the shuffled features (feeding/shuffled.py).
      held_out: whether verbs are held out.
    """
    source, rows = self._train_source(parts, kind, held_out)
    loaded = self._training(kind, held_out)
    size = self._config.train.batch_size
    feed = (
      FromMemory(_view(loaded, source))
      if loaded
      else Streaming(source, size, self.mesh)
    )
    return Data(source, feed, rows)

  def _load_selection(self) -> Data:
    """Dev images of seen and rare verbs, the images for choices."""
    rows = self.held_out.selection_rows(self._annotations("dev"))
    parts = train_stage.student_parts(self._config)
    source = holdout.Subset(self._stored("dev", *parts), rows)
    return self._open(source, rows, "dev")

  def _load_evaluated(self, split: str, part: str = "") -> Data:
    """A whole split, with one part of the cache.

    Args:
      split: its name.
      part: of the cache; "" for those that the student reads.
    """
    parts = (part,) if part else train_stage.student_parts(self._config)
    source = self._stored(split, *parts)
    return self._open(source, self.all_rows(split), split)

  def _open(
    self, source: Source, rows: Int[np.ndarray, "n"], what: str
  ) -> Data:
    """Data in the batches of an evaluation."""
    size = self._config.eval.batch_size
    loaded = self._load(source, size, what)
    feed = FromMemory(loaded) if loaded else Streaming(source, size, self.mesh)
    return Data(source, feed, rows)

  def _load_training(self, kind: str, held_out: bool) -> Resident | None:
    source, _ = self._train_source(self._parts, kind, held_out)
    return self._load(source, self._config.train.batch_size, "train")

  def _load(self, source: Source, size: int, what: str) -> Resident | None:
    """A whole source in device memory, or None if it does not fit."""
    layout = resident.layout(source, size, self.mesh)
    train = self._config.train
    if not feeds.decide(train.resident, train.resident_gib, layout, what):
      return None
    with loading(source, layout, f"load {what}") as ready:
      return ready()

  def _train_source(
    self, parts: tuple[str, ...], kind: str, held_out: bool
  ) -> tuple[Source, Int[np.ndarray, "n"]]:
    """Training images, and their rows in the split."""
    source = shuffled.control(self._stored("train", *parts), kind)
    if not held_out:
      return source, np.arange(source.num_examples)
    rows = self.held_out.train_rows(self._annotations("train"))
    return holdout.Subset(source, rows), rows

  def _stored(self, split: str, *parts: str) -> Source:
    return train_stage.stored(self.prepared, split, parts)

  def _annotations(self, split: str) -> Mapping[str, np.ndarray]:
    return self.prepared.cache.split(split, ()).annotations


def first_batch(source: Source) -> dict[str, np.ndarray]:
  """A batch of one, zeros, as the model sees it."""
  shapes = programs.example_batch(source)
  return {key: np.zeros(x.shape, x.dtype) for key, x in shapes.items()}


def _view(loaded: Resident, source: Source) -> Resident:
  """The loaded features that a source has."""
  keys = resident.read_fields(source, np.zeros(1, np.int64))
  layout = loaded.layout
  example = {key: x for key, x in layout.example.items() if key in keys}
  arrays = {key: loaded.arrays[key] for key in example}
  return Resident(dataclasses.replace(layout, example=example), arrays)
