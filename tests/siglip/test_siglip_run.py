"""SigLIP as student encoder, text encoder and teacher, by config alone."""

import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from PIL import Image

from input_pipeline import feature_cache, schema
from input_pipeline.geometry import letterbox_image
from mipd_jax.devices import sharding
from mipd_jax.exporting import exported_folder
from mipd_jax.exporting import programs as exported_programs
from mipd_jax.inference.predictor import Predictor
from mipd_jax.inference.workdir import open_workdir
from mipd_jax.teachers import siglip
from tests.fixtures import export_fixture, pipeline_fixture
from tests.inference.test_export import assert_equal
from tests.siglip import tiny

pytestmark = pytest.mark.slow  # a minute; the parts of it have tests beside

WORDS = (
  *("a", "the", "of", "is", "in", "with", "on", "left", "right", "photo"),
  *("man", "woman", "dog", "cat", "ball", "table", "park", "agent", "place"),
)
SIDES = {"student": 32, "teacher": 48, "text": 16}
TOP_K = 3


def _run(folder: pathlib.Path, **values) -> subprocess.CompletedProcess:
  """All stages of a debug run whose encoders are SigLIPs."""
  given = {
    "dataset.folder": folder / "world",
    "teacher.cache": folder / "cache",
    "teacher.foundation": "",
    "teacher.student_encoder": folder / "student",
    "teacher.teacher_encoder": folder / "teacher",
    "teacher.text_encoder": folder / "text",
    # A dual encoder's tokens cannot be asked about a box.
    "teacher.instances.show": "crop",
    **values,
  }
  return pipeline_fixture.run(
    [
      *(sys.executable, "-m", "mipd_jax.main"),
      "--config=configs/synthetic.py:debug",
      f"--workdir={folder / 'work'}",
      *(f"--config.{name}={value}" for name, value in given.items()),
    ]
  )


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
  """The folder of a finished run."""
  folder = tmp_path_factory.mktemp("siglip")
  for seed, (name, side) in enumerate(SIDES.items()):
    tiny.write(folder / name, WORDS, positions=56, image_size=side, seed=seed)
  done = _run(folder)
  assert done.returncode == 0, done.stderr[-3000:]
  return folder


def test_the_cache_is_siglips(run):
  cache = feature_cache.open_cache(run / "cache")
  shapes = {field.name: field.shape for field in cache.plan.fields}
  assert shapes[schema.STUDENT_TOKENS] == (4 * 4 + 1, 16)
  assert shapes[schema.TEACHER_TOKENS] == (6 * 6 + 1, 16)
  assert shapes[schema.RATIONALE_TOKENS] == (4, 56, 16)
  assert schema.ANSWER_CLASSES in shapes
  text = siglip.load(run / "text")
  lines = (run / "cache/train/rationales.jsonl").read_text().splitlines()
  told = [json.loads(lines[0])[name] for name in schema.RATIONALES]
  ids, mask = text.tokenize(told)
  stored = cache.split("train", ("text",)).read(np.arange(1))
  np.testing.assert_array_equal(stored[schema.RATIONALE_MASK][0], mask)
  # The row of the end token is the sentence.
  ends = np.asarray(stored[schema.RATIONALE_TOKENS][0], np.float32)
  found = ends[np.arange(len(told)), mask.sum(axis=1) - 1]
  wanted = np.asarray(text.text_embedding(text.params, ids, mask))
  np.testing.assert_allclose(found, wanted, atol=0.02 * np.abs(wanted).max())


def test_results_are_numbers(run):
  models = json.loads((run / "work/results.json").read_text())["models"]
  for name in ("student", "teacher zero-shot"):
    values = models[name]["all"].values()
    assert len(values) > 2 and np.isfinite(list(values)).all()


def test_prediction_and_export_agree(run, tmp_path):
  paths = sorted((run / "world/images_512").glob("*.jpg"))[:3]
  images = [Image.open(path).convert("RGB") for path in paths]
  device = jax.local_devices()[:1]
  predictor = Predictor.from_workdir(run / "work", devices=device)
  expected = predictor.predict(images, top_k=TOP_K)
  mesh = sharding.make_mesh(devices=device)
  opened = open_workdir(run / "work", mesh)
  assert isinstance(opened.encoder, siglip.Siglip)
  names = [name.split(".") for name in exported_programs.parameters(opened)]
  towers = {name[1] for name in names if name[0] == exported_programs.ENCODER}
  assert towers == {"vision_model"}
  settings = exported_folder.Settings(forms=("passed",), top_k=TOP_K)
  exported_folder.write(opened, tmp_path / "export", None, settings)
  student = export_fixture.student(tmp_path / "export", "passed")
  found = student(
    [letterbox_image(image, SIDES["student"]) for image in images],
    [(image.height, image.width) for image in images],
  )
  for one, other in zip(found, expected, strict=True):
    assert_equal(one, other)


def test_longer_rationales_than_the_tower_reads_are_refused(run):
  done = _run(run, **{"teacher.text_length": 77})
  assert done.returncode == 2
  assert "reads 56 tokens at most" in done.stderr
