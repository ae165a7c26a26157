"""Bad input through the stages: one message, the thing, the remedy.

`no_long_work` makes what takes long (encoders, training) fail the test, so a
message that comes late is noticed.
"""

import json
import pathlib
import resource
import shutil

import pytest

from configs import ov_swig
from input_pipeline import feature_cache
from input_pipeline.io.errors import InputError
from mipd_jax import config as config_lib
from mipd_jax import stages
from mipd_jax.stages import prepare
from mipd_jax.teachers import precompute
from mipd_jax.training import loop
from tests.fixtures import pipeline_fixture, swig_fixture


@pytest.fixture
def no_long_work(monkeypatch):
  def never(*_, **__):
    raise AssertionError("long work began")

  monkeypatch.setattr(precompute.Encoders, "encode", never)
  monkeypatch.setattr(loop, "train", never)


@pytest.fixture
def swig(tmp_path) -> pathlib.Path:
  return swig_fixture.write(tmp_path / "swig", per_verb=1)


def _config(folder: pathlib.Path, **values) -> config_lib.Config:
  """Real-data config on a folder; the encoders are only looked for."""
  encoder = folder.parent / "clip"
  encoder.mkdir(exist_ok=True)
  (encoder / "config.json").write_text("{}")
  config = ov_swig.get_config("debug")
  config.update_from_flattened_dict(
    {
      "workdir": str(folder.parent / "work"),
      "dataset.folder": str(folder),
      "teacher.student_encoder": str(encoder),
      "teacher.teacher_encoder": str(encoder),
      "teacher.text_encoder": str(encoder),
      "teacher.cache": str(folder.parent / "cache"),
    }
    | values
  )
  return config_lib.unpack(config)


def _edit(path: pathlib.Path, change) -> None:
  content = swig_fixture.load(path)
  swig_fixture.dump(path, change(content) or content)


def _missing(folder):
  shutil.rmtree(folder)


def _cut_json(folder):
  path = folder / "SWiG_jsons/dev.json"
  path.write_text(path.read_text()[:-40])


def _missing_image(folder):
  (folder / "images_512/jumping_train_0.jpg").unlink()


def _corrupt_image(folder):
  path = folder / "images_512/jumping_train_0.jpg"
  path.write_bytes(path.read_bytes()[:300])


def _no_image(folder):
  (folder / "images_512/jumping_train_0.jpg").write_bytes(b"<html>not found")


def _unknown_verb(folder):
  def change(records):
    records["jumping_train_0.jpg"]["verb"] = "jumpping"

  _edit(folder / "SWiG_jsons/train.json", change)


def _unknown_role(folder):
  def change(records):
    records["jumping_train_0.jpg"]["frames"][1]["tool"] = ""

  _edit(folder / "SWiG_jsons/train.json", change)


def _outside(folder):
  def change(records):
    records["jumping_train_0.jpg"]["bb"]["agent"] = [1, 2, 4000, 30]

  _edit(folder / "SWiG_jsons/train.json", change)


def _overlap(folder):
  train = swig_fixture.load(folder / "SWiG_jsons/train.json")
  name = "jumping_train_0.jpg"
  _edit(folder / "SWiG_jsons/test.json", lambda r: r | {name: train[name]})


def _two_groups(folder):
  def change(groups):
    groups["rare"].append("eating")

  _edit(folder / "SWiG_jsons/ov_splits.json", change)


@pytest.mark.parametrize(
  ("spoil", "words"),
  [
    (_missing, ["swig", "images_512", "train.json", "github.com/allenai"]),
    (_cut_json, ["dev.json"]),
    (_missing_image, ["jumping_train_0.jpg"]),
    (_corrupt_image, ["jumping_train_0.jpg"]),
    (_no_image, ["jumping_train_0.jpg"]),
    (_unknown_verb, ["train.json", "jumping_train_0.jpg", "jumpping"]),
    (_unknown_role, ["train.json", "jumping_train_0.jpg", "'tool'"]),
    (_outside, ["train.json", "jumping_train_0.jpg", "'agent'", "4000"]),
    (_overlap, ["jumping_train_0.jpg", "train", "test"]),
    (_two_groups, ["ov_splits.json", "eating"]),
  ],
)
def test_bad_folder(swig, no_long_work, spoil, words):
  spoil(swig)
  with pytest.raises(InputError) as error:
    stages.run(_config(swig), "all")
  message = str(error.value)
  for word in words:
    assert word in message
  assert error.value.remedy and message.count("Remedy:") == 1
  assert not (swig.parent / "cache").exists()
  assert not (swig.parent / "work").exists()


def test_missing_encoders_and_folder_are_one_message(tmp_path, no_long_work):
  config = _config(tmp_path / "swig")
  shutil.rmtree(tmp_path / "clip")
  with pytest.raises(InputError) as error:
    stages.run(config, "prepare")
  assert error.value.problem.count("\n  - ") == 2
  assert "hf download" in error.value.remedy


def test_batch_that_devices_do_not_divide(tmp_path, no_long_work):
  config = _config(tmp_path / "nothing", **{"train.batch_size": 15})
  with pytest.raises(InputError, match="a batch of 15 does not divide"):
    stages.run(config, "all")


def test_training_without_a_cache(swig, no_long_work):
  with pytest.raises(InputError, match="cache") as error:
    stages.run(_config(swig), "train")
  assert str(swig.parent / "cache") in error.value.problem


def test_another_small_world_in_the_folder(pipeline, tmp_path, no_long_work):
  config = pipeline.config(tmp_path, values={"dataset.world.num_nouns": 31})
  with pytest.raises(InputError, match="another small world: num_nouns"):
    stages.run(config, "prepare")


def test_cache_of_another_teacher(pipeline, tmp_path, no_long_work):
  before = pipeline_fixture.snapshot(pipeline.folder / "cache")
  shutil.copytree(pipeline.folder / "foundation", tmp_path / "foundation")
  weights = tmp_path / "foundation/teacher_clip/model.safetensors"
  content = bytearray(weights.read_bytes())
  content[-1] ^= 1
  weights.write_bytes(content)
  teacher = str(tmp_path / "foundation" / "teacher_clip")
  values = {"teacher.teacher_encoder": teacher, "teacher.foundation": ""}
  values["teacher.instances.show"] = "crop"  # a CLIP has no tokens to ask
  config = pipeline.config(tmp_path / "work", values=values)
  with pytest.raises(InputError, match="teacher_revision") as error:
    stages.run(config, "prepare")
  assert str(pipeline.folder / "cache") in error.value.problem
  assert pipeline_fixture.snapshot(pipeline.folder / "cache") == before


@pytest.mark.parametrize("mode", ["prepare", "train"])
def test_cache_of_other_images(pipeline, tmp_path, no_long_work, mode):
  """Same vocabulary, one image changed."""
  folder = shutil.copytree(pipeline.folder / "world", tmp_path / "world")
  image = next((folder / "images_512").glob("*.jpg"))
  image.write_bytes(image.read_bytes() + b"\0")
  values = {"dataset.folder": str(folder)}
  config = pipeline.config(tmp_path / "work", values=values)
  with pytest.raises(InputError) as error:
    stages.run(config, mode)
  assert str(pipeline.folder / "cache") in error.value.problem
  assert "dataset" in error.value.problem or "images" in error.value.problem
  assert "cache" in error.value.remedy


def test_checkpoint_of_another_run(pipeline, tmp_path, no_long_work):
  work = shutil.copytree(pipeline.work, tmp_path / "work")
  before = pipeline_fixture.snapshot(work)
  values = {"model.feed_forward": 32, "train.learning_rate": 0.5}
  config = pipeline.config(work, values=values)
  for mode in ("train", "eval"):
    with pytest.raises(InputError) as error:
      stages.run(config, mode)
    assert str(work) in error.value.problem
    assert "model.feed_forward 64 -> 32" in error.value.problem
    assert "train.learning_rate 0.001 -> 0.5" in error.value.problem
    assert "--workdir" in error.value.remedy
  assert pipeline_fixture.snapshot(work) == before


def test_checkpoint_that_lies_about_its_run(pipeline, tmp_path):
  """run.json fits, the arrays do not."""
  work = shutil.copytree(pipeline.work, tmp_path / "work")
  config = pipeline.config(work, values={"model.feed_forward": 32})
  run = json.loads((work / "run.json").read_text())
  run["model"]["feed_forward"] = 32
  (work / "run.json").write_text(json.dumps(run))
  with pytest.raises(InputError, match="does not fit the model") as error:
    stages.run(config, "eval")
  assert str(work) in error.value.problem


def test_full_disk_while_the_cache_is_made(pipeline, tmp_path):
  """Nothing half-written is taken for whole; the next run finishes it."""
  cache = tmp_path / "cache"
  values = {"teacher.cache": str(cache)}
  config = pipeline.config(tmp_path / "work", values=values)
  whole = pipeline_fixture.snapshot(pipeline.folder / "cache")
  largest = max(size for size, _ in whole.values())
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  # Python ignores SIGXFSZ, so writing past the limit is an OSError.
  resource.setrlimit(resource.RLIMIT_FSIZE, (largest // 2, limits[1]))
  try:
    with pytest.raises(InputError, match="no space left") as error:
      prepare.prepare(config)
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  assert "MB are still to write" in error.value.problem
  assert "free space" in error.value.remedy
  assert not (cache / "manifest.json").exists()
  with pytest.raises(InputError, match="unfinished"):
    stages.run(config, "train")
  prepare.prepare(config)
  sizes = [size for size, _ in pipeline_fixture.snapshot(cache).values()]
  assert len(sizes) == len(whole)
  feature_cache.verify(cache)
