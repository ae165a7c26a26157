"""Families of encoders and teachers: one table, and protocols that hold."""

import json

import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.teachers import families, interfaces
from mipd_jax.teachers.clip import Clip
from mipd_jax.teachers.families import Family
from mipd_jax.teachers.image_teachers import Blip2Teacher, ZeroShotTeacher
from mipd_jax.teachers.siglip import Siglip
from tests.fakes import fakes
from tests.fixtures import protocols
from tests.repository import test_imports

_ASKED = {"question": "what", "verb_score": "sum"}


@pytest.mark.parametrize(
  ("kind", "protocol"),
  [
    (Clip, interfaces.Encoder),
    (Siglip, interfaces.Encoder),
    (fakes.FakeClip, interfaces.Encoder),
    (ZeroShotTeacher, interfaces.ImageTeacher),
    (Blip2Teacher, interfaces.ImageTeacher),
  ],
)
def test_has_what_the_protocol_asks_for(kind, protocol):
  assert protocols.problems(kind, protocol) == []


@pytest.fixture
def folder(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"model_type": "other"}))
  return str(tmp_path)


def test_a_line_makes_another_family_known(folder, monkeypatch):
  """As encoder and, by its zero-shot logits, as teacher."""
  loaded = []

  def load(folder_or_id, dtype):
    loaded.append((folder_or_id, dtype))
    return fakes.FakeClip()

  table = {**families.FAMILIES, "other": Family("Other", encoder=load)}
  monkeypatch.setattr(families, "FAMILIES", table)
  encoder = families.load_encoder(folder, "float32")
  teacher = families.load_teacher(folder, "float32", **_ASKED)
  assert encoder.name == teacher.name == fakes.FakeClip().name
  assert isinstance(teacher, ZeroShotTeacher)
  assert loaded == [(folder, "float32")] * 2


def test_a_teacher_that_is_no_encoder(folder, monkeypatch):
  asked = []

  def load(folder_or_id, dtype, **options):
    asked.append(options)
    return ZeroShotTeacher(fakes.FakeClip())

  table = {**families.FAMILIES, "other": Family("Other", teacher=load)}
  monkeypatch.setattr(families, "FAMILIES", table)
  families.load_teacher(folder, "float32", **_ASKED)
  assert asked == [{**_ASKED, "mesh": None, "open_name": ""}]
  with pytest.raises(InputError, match="model_type is 'other', not 'clip'"):
    families.load_encoder(folder, "float32")


def test_unknown_families_are_refused_by_name(folder):
  with pytest.raises(InputError) as told:
    families.load_encoder(folder, "float32")
  assert told.value.problem.endswith(
    "model_type is 'other', not 'clip' or 'siglip'"
  )
  assert told.value.remedy == "give the folder of a CLIP or a SigLIP checkpoint"
  with pytest.raises(InputError, match="model_type 'other'") as told:
    families.load_teacher(folder, "float32", **_ASKED)
  remedy = "give a CLIP or a SigLIP or a BLIP-2 checkpoint"
  assert remedy in told.value.remedy


def test_kinds_without_a_fixed_resolution_are_refused_with_another(tmp_path):
  (tmp_path / "config.json").write_text(json.dumps({"model_type": "siglip2"}))
  loads = (
    lambda: families.load_encoder(tmp_path, "float32"),
    lambda: families.load_teacher(str(tmp_path), "float32", **_ASKED),
  )
  for load in loads:
    with pytest.raises(InputError, match=r"model_type .*'siglip2'") as told:
      load()
    assert "google/siglip2-base-patch16-224" in told.value.remedy


def test_nothing_above_the_teachers_names_a_family():
  """Stages, inference and export go through the table."""
  named = ("clip", "siglip", "blip2", "image_teachers")
  forbidden = [f"mipd_jax.teachers.{name}" for name in named]
  for module, path in test_imports.modules():
    if not module.startswith("mipd_jax.") or "teachers" in module:
      continue
    for found in test_imports.imports(path.read_text(encoding="utf-8")):
      for name in forbidden:
        assert not test_imports.within(found.name, name), (module, found)
