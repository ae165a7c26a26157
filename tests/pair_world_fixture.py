"""A tiny drawn world of interactions, prepared once, and a fake cache of it."""

import pathlib

import jax
import pytest

from input_pipeline.hico_det import builder, splits
from input_pipeline.hico_det.pair_columns import Selection
from input_pipeline.hico_det.pair_dataset import PairDataset, Settings
from input_pipeline.small_world.interactions.config import PairWorldConfig
from input_pipeline.small_world.interactions.folder import write_folder
from mipd_jax.devices import sharding
from mipd_jax.rationales.interactions import InteractionRationales
from mipd_jax.tasks.interactions import PreparedInteractions
from mipd_jax.teachers import precompute
from mipd_jax.teachers.image_teachers import ZeroShotTeacher
from tests import fakes

WORLD = PairWorldConfig.tiny()
SLOTS, SPLIT = 4, "UV"


def settings(folder: pathlib.Path, **changes) -> Settings:
  values = {
    "dropping": "pair",
    "dev_share": 0.2,
    "slots": SLOTS,
    "selection": Selection(6, 6, 0.2),
    "train_detections": str(folder / "detections/train.json"),
    "test_detections": str(folder / "detections/test.json"),
  }
  return Settings(**values | changes)


def pairs(folder: pathlib.Path, split: str = SPLIT, **changes) -> PairDataset:
  """The dataset of a drawn folder; nothing is made twice."""
  hico = builder.prepare(folder, folder.parent / "tfds")
  zero_shot = splits.load(split, hico.words, folder)
  return PairDataset(hico, zero_shot, settings(folder, **changes))


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> pathlib.Path:
  """The folder of the world."""
  return write_folder(tmp_path_factory.mktemp("pairs") / "world", WORLD)


@pytest.fixture(scope="session")
def dataset(folder) -> PairDataset:
  return pairs(folder)


@pytest.fixture(scope="session")
def prepared(dataset, tmp_path_factory) -> PreparedInteractions:
  """With a cache that fake encoders made."""
  cache = precompute.build_cache(
    dataset,
    fakes.FakeClip(image_size=32, width=8, text_width=6, seed=0),
    ZeroShotTeacher(
      fakes.FakeClip(image_size=32, width=10, text_width=7, seed=1)
    ),
    tmp_path_factory.mktemp("made") / "cache",
    precompute.PrecomputeConfig(
      batch_size=8, examples_per_shard=64, text_length=24
    ),
    sharding.make_mesh(devices=jax.devices()[:1]),
    rationales=InteractionRationales(dataset.words),
  )
  return PreparedInteractions(dataset, cache)
