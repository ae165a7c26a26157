"""A finished cache is opened again without its encoders being read."""

import dataclasses
import os
import pathlib
import types

import pytest

from configs import synthetic
from input_pipeline.io import lock
from input_pipeline.io.errors import InputError
from mipd_jax import config as config_lib
from mipd_jax import tasks
from mipd_jax.stages import inputs, prepare


@pytest.fixture
def world(tmp_path, monkeypatch):
  """A config with an encoder's folder, and calls of what makes the cache."""
  encoder, cache = tmp_path / "clip", tmp_path / "cache"
  for folder in (encoder, cache):
    folder.mkdir()
  (encoder / "config.json").write_text("{}")
  (encoder / "model.safetensors").write_bytes(b"weights")
  values = synthetic.get_config("debug").to_dict()
  values["workdir"] = str(tmp_path)
  values["teacher"] |= {
    "student_encoder": str(encoder),
    "teacher_encoder": str(encoder),
    "text_encoder": "",
    "cache": str(cache),
  }
  config = config_lib.unpack(values)
  dataset = types.SimpleNamespace(
    fingerprint="images",
    vocabulary=types.SimpleNamespace(fingerprint="words"),
    groups=types.SimpleNamespace(sha256="groups"),
  )
  monkeypatch.setattr(inputs, "make", lambda config: (config, dataset))
  monkeypatch.setattr(prepare, "_is_whole", lambda folder: True)
  monkeypatch.setattr(
    prepare.feature_cache, "open_cache", lambda folder: "opened"
  )
  made = []

  def make(*_):
    made.append(1)
    return "made"

  monkeypatch.setattr(prepare, "_make_cache", make)
  return types.SimpleNamespace(
    config=config, dataset=dataset, encoder=encoder, made=made
  )


def test_the_code_of_every_task_that_chooses_rationales_counts(monkeypatch):
  every = prepare._code()
  assert "mipd_jax.rationales.interactions" in every
  known = tasks.classes()
  alone = {"situations": known["situations"]}
  monkeypatch.setattr(tasks, "classes", lambda: alone)
  assert "mipd_jax.rationales.interactions" not in prepare._code()
  # A task may have the rationales of another one.
  further = type("Verbs", (known["interactions"],), {})
  monkeypatch.setattr(tasks, "classes", lambda: alone | {"verbs": further})
  assert prepare._code() == every


def _changed(world, **fields):
  teacher = dataclasses.replace(world.config.teacher, **fields)
  return dataclasses.replace(world.config, teacher=teacher)


def test_second_time_nothing_is_read(world):
  assert prepare.prepare(world.config).cache == "made"
  assert prepare.prepare(world.config).cache == "opened"
  assert len(world.made) == 1


def test_what_does_not_matter(world):
  prepare.prepare(world.config)
  prepare.prepare(_changed(world, process_count=2, batch_size=7))
  assert len(world.made) == 1


@pytest.mark.parametrize("what", ["setting", "encoder", "images", "code"])
def test_what_matters(world, what, monkeypatch):
  prepare.prepare(world.config)
  config = world.config
  if what == "setting":
    config = _changed(world, text_length=5)
  elif what == "encoder":  # same length, written again
    path = world.encoder / "model.safetensors"
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
  elif what == "images":
    world.dataset.fingerprint = "other images"
  else:
    monkeypatch.setattr(prepare, "_code", lambda: "newer")
  assert prepare.prepare(config).cache == "made"
  assert prepare.prepare(config).cache == "opened"


def test_a_cache_that_lost_a_file_is_mended(world, monkeypatch):
  prepare.prepare(world.config)
  monkeypatch.setattr(prepare, "_is_whole", lambda folder: False)
  assert prepare.prepare(world.config).cache == "made"


def test_a_damaged_note_is_as_good_as_none(world):
  prepare.prepare(world.config)
  note = pathlib.Path(world.config.teacher.cache) / prepare.NOTE
  for text in ("", "[]", "[" * 100_000, '{"code": 1}'):
    note.write_text(text)
    assert prepare.prepare(world.config).cache == "made"
    assert prepare.prepare(world.config).cache == "opened"


def test_a_cache_that_another_run_makes_is_refused_before_any_work(
  world, monkeypatch
):
  def work(_):
    raise AssertionError("images were looked for")

  cache = world.config.teacher.cache
  with lock.holding(cache, "preparing this cache"):
    monkeypatch.setattr(inputs, "make", work)
    with pytest.raises(InputError, match=r"in use by process .*preparing"):
      prepare.prepare(world.config)


def test_processes_that_make_one_cache_do_not_refuse_each_other(world):
  cache = world.config.teacher.cache
  with lock.holding(cache, "preparing this cache", index=0, count=2):
    two = _changed(world, process_count=2, process_index=1)
    assert prepare.prepare(two).cache == "made"
    with pytest.raises(InputError, match="in use"):
      prepare.prepare(_changed(world, process_count=2, process_index=0))


def test_unfinished_work_leaves_no_note(world, monkeypatch):
  monkeypatch.setattr(prepare, "_make_cache", lambda *_: None)
  assert prepare.prepare(world.config) is None
  assert not prepare.same_origin(
    world.config.teacher.cache,
    prepare.origin_facts(world.config, world.dataset, [world.encoder]),
  )
