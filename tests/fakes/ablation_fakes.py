"""A world in memory for tests of the ablations, and plans of tiny runs."""

import dataclasses
import functools
import types

import jax
import numpy as np

from input_pipeline import feature_cache, schema
from input_pipeline.small_world.situations.config import WorldConfig
from mipd_jax.ablations import programs, world_data
from mipd_jax.ablations.plan import Plan, Variant, World
from mipd_jax.config import (
  Config,
  DatasetConfig,
  EvalConfig,
  TeacherConfig,
  TrainConfig,
)
from mipd_jax.devices import sharding
from mipd_jax.losses import banks as bank_lib
from mipd_jax.stages import train as train_stage
from tests.fixtures import batches, models

# Verbs by group; the last three have no training image.
GROUPS = np.array([0] * 6 + [1] * 3 + [2] * 3)
HELD_OUT = 2
IMAGES = {"train": 40, "dev": 26, "test": 30}
WORLD = World("w", {})


def base(**train) -> dict:
  """Nested values of a tiny run, preset mipd."""
  model, losses = models.configs("mipd")
  settings = {
    "steps": 4,
    "batch_size": 8,
    "log_every": 0,
    "learning_rate": 1e-2,
    "steps_per_dispatch": 3,
  }
  return Config(
    name="tiny",
    preset="mipd",
    workdir="none",
    dataset=DatasetConfig(folder="none", world=WorldConfig.tiny()),
    teacher=TeacherConfig("none", "none", "none"),
    model=model,
    loss=losses,
    train=TrainConfig(**settings | train),
    eval=EvalConfig(batch_size=16),
  ).to_dict()


def plan(folder, *variants: Variant, worlds=(WORLD,), seeds=1, **train) -> Plan:
  """A plan of tiny runs; without variants the one without a teacher."""
  variants = variants or (Variant("plain", "no_distillation", against=()),)
  return Plan(base(**train), variants, worlds, seeds, 1, HELD_OUT, folder)


class Split:
  """A cached split that notes which rows are read."""

  def __init__(self, name: str, parts: tuple[str, ...]):
    self.num_examples = IMAGES[name]
    self.names = tuple(f"{name}_{i}.jpg" for i in range(self.num_examples))
    self.rows: list[int] = []
    data = batches.batch(self.num_examples, seed=len(name))
    last = len(GROUPS) - (batches.UNTRAINED if name == "train" else 0)
    data[schema.VERB] = np.arange(self.num_examples, dtype=np.int32) % last
    data[schema.GROUP] = GROUPS[data[schema.VERB]].astype(np.int32)
    keys = [k for part in parts for k in feature_cache.PARTS[part]]
    self.annotations = {k: data[k] for k in schema.ANNOTATIONS}
    self.features = {k: data[k] for k in keys}

  def read_stored(self, indices):
    """As of `CachedSplit`."""
    self.rows += np.asarray(indices).tolist()
    columns = {k: self.annotations[k] for k in feature_cache.COLUMNS}
    return {k: x[indices] for k, x in (columns | self.features).items()}


class Cache:
  """Splits by name and parts; `closed` ones may not be opened."""

  def __init__(self, closed: tuple[str, ...] = ()):
    self.closed = closed
    self._splits: dict[tuple, Split] = {}
    evaluated = (feature_cache.STUDENT, feature_cache.VERB_LOGITS)
    self.plan = types.SimpleNamespace(
      plan_hash="none", split=lambda _: types.SimpleNamespace(parts=evaluated)
    )

  def split(self, name: str, parts: tuple[str, ...]) -> Split:
    assert name not in self.closed, f"{name} was opened"
    key = (name, tuple(parts))
    if key not in self._splits:
      self._splits[key] = Split(name, parts)
    return self._splits[key]

  def rows(self, name: str) -> set[int]:
    """Rows of a split whose features were read."""
    return {
      row
      for (split, parts), found in self._splits.items()
      if split == name and parts
      for row in found.rows
    }


@dataclasses.dataclass
class Prepared:
  """As of `stages.prepare`, of a cache in memory."""

  cache: Cache = dataclasses.field(default_factory=Cache)
  sizes = batches.SIZES
  groups = GROUPS

  @property
  def train_images(self):
    verbs = self.cache.split("train", ()).annotations[schema.VERB]
    return np.bincount(verbs, minlength=len(GROUPS))

  def open_layers(self, config):
    assert not config.open_layers

  def training_banks(self, config, dtype):
    del config, dtype
    return self.banks

  @functools.cached_property
  def banks(self):
    return batches.banks() | bank_lib.of_verbs(self.train_images)


def one_device(monkeypatch) -> None:
  """Runs on one device; eight take long to compile and run."""
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  monkeypatch.setattr(train_stage, "make_mesh", lambda config: mesh)


def no_steps(monkeypatch) -> None:
  """Training reads its batches and changes nothing: compiling it is long."""

  def train_steps(*_):
    def run(state, batches_, count, banks, seed):
      return state, {"total": np.zeros(count)}

    return run

  monkeypatch.setattr(programs, "train_steps", train_steps)


def open_world(plan_: Plan, prepared: Prepared) -> world_data.WorldData:
  """A world that is open for all runs of a plan."""
  configs = [plan_.config(v, plan_.worlds[0], 0) for v in plan_.variants]
  parts = frozenset(p for c in configs for p in train_stage.train_parts(c))
  return world_data.WorldData(configs[0], prepared, parts, HELD_OUT)
