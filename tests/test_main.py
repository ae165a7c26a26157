"""The command line, end to end: made from nothing, reused, stopped, refused."""

import json
import math
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from input_pipeline.errors import InputError
from mipd_jax import stages
from mipd_jax.training import loop
from tests import pipeline_fixture
from tests.pipeline_fixture import pipeline  # noqa: F401

GROUPS = ("seen", "rare", "unseen", "all")


def _results(workdir):
  return json.loads((workdir / "results.json").read_text())


def _metrics(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_results_hold_numbers(pipeline):  # noqa: F811
  results = _results(pipeline.work)
  assert results["preset"] == "mipd" and results["step"] in (6, 12)
  student = results["models"]["student"]
  teacher = results["models"]["teacher zero-shot"]
  for group in GROUPS:
    assert student[group]["images"] == teacher[group]["images"] > 0
    for name, value in student[group].items():
      assert math.isfinite(value), f"{group} {name}"
    assert 0 <= teacher[group]["verb_top1"] <= teacher[group]["verb_top5"]
  assert sum(student[group]["images"] for group in GROUPS[:3]) == 38
  assert student["all"]["images"] == 38
  assert len(results["per_verb"]) == 12
  # The same numbers for people.
  text = (pipeline.work / "results.md").read_text()
  assert f"{student['seen']['verb_top5']:.2f}" in text
  assert f"{teacher['unseen']['verb_top1']:.2f}" in text


def test_metrics_hold_every_term_and_dev_scores(pipeline):  # noqa: F811
  rows = _metrics(pipeline.work)
  losses = {r["step"]: r["loss/total"] for r in rows if "loss/total" in r}
  assert list(losses) == [4, 6, 8, 12]
  assert all(math.isfinite(x) for x in losses.values())
  assert losses[12] < losses[4]
  terms = {name for row in rows for name in row if name.startswith("loss/")}
  assert {"loss/scene_distill", "loss/gaze_distill", "loss/giou"} <= terms
  dev = {r["step"]: r["dev/selection"] for r in rows if "dev/selection" in r}
  assert list(dev) == [6, 12]
  # What is evaluated is the best by dev, ties to either.
  assert dev[_results(pipeline.work)["step"]] == max(dev.values())


def test_tensorboard_has_the_same_losses(pipeline):  # noqa: F811
  import tensorflow as tf
  from tensorboard.backend.event_processing import event_accumulator

  events = event_accumulator.EventAccumulator(
    str(pipeline.work / "tensorboard")
  ).Reload()
  found = {
    e.step: float(tf.make_ndarray(e.tensor_proto))
    for e in events.Tensors("loss/total")
  }
  wanted = {
    r["step"]: r["loss/total"]
    for r in _metrics(pipeline.work)
    if "loss/total" in r
  }
  assert found == pytest.approx(wanted)


@pytest.mark.parametrize("name", ["losses.png", "frequency.png", "sheet.png"])
def test_pictures_show_something(pipeline, name):  # noqa: F811
  with Image.open(pipeline.work / name) as picture:
    picture.load()
    assert min(picture.size) > 300
    colours = picture.convert("RGB").resize((64, 64)).getcolors(64 * 64)
  assert len(colours) > 20


def test_second_run_reuses_everything(pipeline):  # noqa: F811
  kept = (
    *(pipeline.folder / n for n in ("world", "tfds", "foundation", "cache")),
    *(pipeline.work / n for n in ("checkpoints", "best")),
  )
  before, results = pipeline_fixture.snapshot(*kept), _results(pipeline.work)
  metrics = _metrics(pipeline.work)
  start = time.monotonic()
  again = pipeline_fixture.run(
    pipeline_fixture.command(pipeline.folder, pipeline.work)
  )
  assert again.returncode == 0, again.stderr[-2000:]
  assert pipeline_fixture.snapshot(*kept) == before
  assert _results(pipeline.work) == results
  assert _metrics(pipeline.work) == metrics
  assert "encode" not in again.stderr and "encode" in pipeline.done.stderr
  assert time.monotonic() - start < 60


def test_modes_one_after_another(pipeline, tmp_path):  # noqa: F811
  """prepare, train and eval on their own, as the whole: no distillation."""
  made = pipeline_fixture.snapshot(pipeline.folder / "cache")
  settings = pipeline.config(
    tmp_path, "debug,no_distillation", {"train.steps": 4}
  )
  stages.run(settings, "prepare")
  assert pipeline_fixture.snapshot(pipeline.folder / "cache") == made
  with pytest.raises(InputError, match="no checkpoint") as error:
    stages.run(settings, "eval")
  assert "--mode=train" in error.value.remedy
  stages.run(settings, "train")
  assert not (tmp_path / "results.json").exists()
  stages.run(settings, "eval")
  results = _results(tmp_path)
  assert results["preset"] == "no_distillation" and results["step"] == 4
  assert math.isfinite(results["models"]["student"]["all"]["value_gt"])
  terms = {name for name in _metrics(tmp_path)[0] if name.startswith("loss/")}
  assert "loss/verb" in terms and "loss/scene_distill" not in terms


def test_reference_preset_runs(pipeline, tmp_path):  # noqa: F811
  settings = pipeline.config(tmp_path, "debug,reference", {"train.steps": 2})
  stages.run(settings, "all")
  assert _results(tmp_path)["preset"] == "reference"
  row = _metrics(tmp_path)[0]
  assert math.isfinite(row["loss/total"]) and "loss/noun_closed" in row


def test_reference_preset_needs_the_width_of_texts(
  pipeline,  # noqa: F811
  tmp_path,
  monkeypatch,
):
  def never(*_):
    raise AssertionError("trained")

  monkeypatch.setattr(loop, "train", never)
  settings = pipeline.config(
    tmp_path, "debug,reference", {"model.hidden": 48, "model.heads": 4}
  )
  with pytest.raises(InputError, match=r"model\.hidden=48.* of width 32") as e:
    stages.run(settings, "train")
  assert "model.hidden=32" in e.value.remedy


def test_terminated_run_exits_with_0_and_continues(
  pipeline,  # noqa: F811
  tmp_path,
):
  values = {
    "train.log_every": 1,
    "train.eval_every": 0,
    "train.checkpoint_every": 0,
    "train.schedule": "constant",
  }
  process = subprocess.Popen(
    pipeline_fixture.command(
      pipeline.folder,
      tmp_path,
      *("--mode=train", "--config.train.steps=100000"),
      *(f"--config.{name}={value}" for name, value in values.items()),
    ),
    cwd=pipeline_fixture.ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  metrics = tmp_path / "metrics.jsonl"
  deadline = time.monotonic() + 200
  while process.poll() is None and time.monotonic() < deadline:
    if metrics.exists() and metrics.read_text().count("\n") >= 3:
      process.send_signal(signal.SIGTERM)
      break
    time.sleep(0.05)
  said, _ = process.communicate(timeout=200)
  assert process.returncode == 0, said[-2000:]
  assert "Stopped by a signal" in said and "Traceback" not in said
  stopped = [int(p.name) for p in (tmp_path / "checkpoints").glob("[0-9]*")]
  assert stopped == [_metrics(tmp_path)[-1]["step"]]
  assert not (tmp_path / "results.json").exists()
  steps = stopped[0] + 2
  settings = pipeline.config(tmp_path, "debug", values | {"train.steps": steps})
  stages.run(settings, "all")
  assert [row["step"] for row in _metrics(tmp_path) if "grad_norm" in row] == [
    *range(1, steps + 1)
  ]
  assert _results(tmp_path)["step"] == steps


def test_absent_data_is_named_with_the_way_to_get_it(tmp_path):
  done = pipeline_fixture.run(
    [
      *(sys.executable, "-m", "mipd_jax.main"),
      "--config=configs/ov_swig.py",
      f"--workdir={tmp_path / 'work'}",
      f"--config.dataset.folder={tmp_path / 'swig'}",
      f"--config.teacher.student_encoder={tmp_path / 'clip-336'}",
    ]
  )
  assert done.returncode == 2
  said = done.stdout + done.stderr
  assert "Traceback" not in said
  assert said.count("Remedy:") == 1
  for word in (
    str(tmp_path / "swig"),
    "SWiG_jsons/train.json",
    "images_512",
    str(tmp_path / "clip-336"),
    "https://github.com/allenai/swig",
    "hf download",
  ):
    assert word in said
  assert not (tmp_path / "work").exists()
