"""From a drawn folder to tables and pictures, by the stages of every task."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from PIL import Image

from configs import hico_det
from input_pipeline import feature_cache, schema
from mipd_jax import config as config_lib
from mipd_jax.devices import sharding
from mipd_jax.losses.banks import VERB_TRAINED
from mipd_jax.models.pairs import VERB_OBJECT
from mipd_jax.report import sheets
from mipd_jax.stages import evaluate, train
from tests.fixtures import pair_world_fixture


def config(workdir, **changes):
  values = hico_det.get_config("debug")
  values.workdir = str(workdir)
  values.update_from_flattened_dict(
    {
      "interactions.slots": pair_world_fixture.SLOTS,
      "interactions.top_k": 20,
      "model.hidden": 8,
      "model.heads": 2,
      "model.feed_forward": 16,
      "train.steps": 4,
      "train.batch_size": 8,
      "train.log_every": 2,
      "train.eval_every": 2,
      "train.checkpoint_every": 4,
      "train.warmup_steps": 1,
      "eval.batch_size": 8,
      "eval.sheet_examples": 2,
    }
    | changes
  )
  return config_lib.unpack(values)


@pytest.fixture
def one_device(monkeypatch):
  """One device; eight take long to compile."""
  mesh = sharding.make_mesh(devices=jax.devices()[:1])
  monkeypatch.setattr(train, "make_mesh", lambda config: mesh)


def test_the_cache_holds_pairs(prepared):
  cache = prepared.cache
  on_demand = ("answers", "instance_text")
  every = tuple(p for p in feature_cache.PARTS if p not in on_demand)
  assert cache.split("train").parts == every
  source = cache.split("train")
  batch = source.read(np.arange(4))
  batch[schema.EXAMPLE_MASK] = np.ones(4, bool)
  sizes = schema.validate(batch, schema.PAIR_TRAIN_KEYS)
  assert sizes["V"] == len(prepared.dataset.words)
  assert sizes["P"] == pair_world_fixture.SLOTS
  feature_cache.verify(cache.folder)
  banks = prepared.banks
  unseen = prepared.dataset.zero_shot.unseen
  assert not banks[VERB_TRAINED][unseen].any() and banks[VERB_TRAINED].any()
  np.testing.assert_array_equal(
    banks[VERB_OBJECT], prepared.dataset.words.object_of
  )
  norms = np.linalg.norm(banks["verb_text"], axis=1)
  np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_train_evaluate_and_what_is_written(
  prepared,
  tmp_path,
  one_device,
):
  settings = config(tmp_path)
  assert train.train(settings, prepared)
  rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").open("r")]
  losses = next(row for row in rows if "loss/pair" in row)
  for name in ("loss/verb_kl", "loss/gaze_distill", "loss/scene_align"):
    assert np.isfinite(losses[name])
  assert any("dev/seen" in row for row in rows)
  found = evaluate.evaluate(settings, prepared)
  results = json.loads((tmp_path / "results.json").read_text())
  assert set(results["models"]) == {
    "student",
    "teacher zero-shot",
    "CLIP zero-shot",
  }
  assert results["detector"].startswith("imagined detector")
  assert results["zero_shot"] == "UV"
  for scores in results["models"].values():
    for part in (scores, scores["known_object"]):
      assert 0 <= part["full"] <= 100
      count = len(results["interactions"])
      gone = sum(row["unseen"] for row in results["interactions"])
      mean = gone * part["unseen"] + (count - gone) * part["seen"]
      assert part["full"] == pytest.approx(mean / count)
  assert found["models"]["student"]["full"] == pytest.approx(
    results["models"]["student"]["full"]
  )
  text = (tmp_path / "results.md").read_text()
  assert "mAP, Default" in text and "mAP, Known Object" in text
  for name in ("sheet.png", "losses.png"):
    assert np.asarray(Image.open(tmp_path / name).convert("L")).std() > 5
  assert json.loads((tmp_path / "run.json").read_text())["task"] == (
    "interactions"
  )


def test_a_card_shows_both_boxes_and_the_line_between(tmp_path):
  image = Image.new("RGB", (200, 100), (255, 255, 255))
  pair = sheets.ShownPair(
    (10.0, 20.0, 50.0, 80.0), (120.0, 30.0, 180.0, 70.0), "ride bicycle", "seen"
  )
  said = dataclasses.replace(pair, score=0.5, is_right=False)

  def sheet(true, predicted, name):
    path = tmp_path / name
    example = sheets.PairExample(image, "a.jpg", true, predicted)
    sheets.pair_sheet([example], path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)

  empty = sheet([], [], "empty.png")
  full = sheet([pair], [said], "full.png")
  none = sheet([pair], [], "one.png")
  assert full.shape[0] > empty.shape[0]  # a line of text for each
  colour = np.array([0xE6, 0x9F, 0x00])  # of the first pair
  for drawn in (full, none):
    assert (np.abs(drawn - colour).max(axis=-1) < 12).sum() > 150
  # Half way between the boxes there is nothing but the line.
  height = np.flatnonzero((np.abs(none - colour).max(-1) < 12).any(axis=1))
  assert len(height) > 20
