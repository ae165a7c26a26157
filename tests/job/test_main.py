"""The command line, end to end: made from nothing, reused, stopped, refused."""

import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest
from PIL import Image

from input_pipeline import feature_cache
from input_pipeline.io import lock
from input_pipeline.io.errors import InputError
from mipd_jax import stages
from mipd_jax.stages import train as train_stage
from mipd_jax.training import loop
from tests.fixtures import pipeline_fixture

GROUPS = ("seen", "rare", "unseen", "all")


def _results(workdir):
  return json.loads((workdir / "results.json").read_text())


def _metrics(workdir):
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines]


def test_results_hold_numbers(pipeline):
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


def test_metrics_hold_every_term_and_dev_scores(pipeline):
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


def test_tensorboard_has_the_same_losses(pipeline):
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
def test_pictures_show_something(pipeline, name):
  with Image.open(pipeline.work / name) as picture:
    picture.load()
    assert min(picture.size) > 300
    colours = picture.convert("RGB").resize((64, 64)).getcolors(64 * 64)
  assert len(colours) > 20


def test_second_run_reuses_everything(pipeline):
  kept = (
    *(pipeline.folder / n for n in ("world", "tfds", "foundation", "cache")),
    *(pipeline.work / n for n in ("checkpoints", "best")),
  )
  before, results = pipeline_fixture.snapshot(*kept), _results(pipeline.work)
  metrics = _metrics(pipeline.work)
  start = time.monotonic()
  again = pipeline_fixture.all_stages(pipeline.folder, pipeline.work)
  assert pipeline_fixture.snapshot(*kept) == before
  assert _results(pipeline.work) == results
  assert _metrics(pipeline.work) == metrics
  assert "encode" not in again.done.stderr and "encode" in pipeline.done.stderr
  assert time.monotonic() - start < 60


def test_another_split_is_written_beside(pipeline, tmp_path):
  """Nothing of the test split is overwritten, and every table names its own."""
  work = shutil.copytree(pipeline.work, tmp_path / "work")
  before = pipeline_fixture.snapshot(work)
  config = pipeline.config(work, values={"eval.split": "dev"})
  for mode in ("eval", "report"):
    stages.run(config, mode)
  after = pipeline_fixture.snapshot(work)
  changed = {pathlib.Path(k).name for k in before if after[k] != before[k]}
  assert changed <= {"losses.png"}  # of training, drawn anew
  new = sorted(pathlib.Path(p).name for p in after.keys() - before.keys())
  assert new == [
    "frequency-dev.png",
    "report-dev.html",
    "results-dev.json",
    "results-dev.md",
    "sheet-dev.png",
  ]
  found = json.loads((work / "results-dev.json").read_text())
  assert found["split"] == "dev"
  assert found["models"]["student"]["all"]["images"] == 24
  for name, split in (("results.md", "test"), ("results-dev.md", "dev")):
    text = (work / name).read_text()
    titles = [line for line in text.splitlines() if line.startswith("## ")]
    assert titles and all(t.endswith(f", {split} split") for t in titles)
    assert f"split {split}, " in text
  assert "dev split" in (work / "report-dev.html").read_text()


def test_a_work_directory_in_use_is_left_alone(pipeline, tmp_path):
  work = shutil.copytree(pipeline.work, tmp_path / "work")
  before = pipeline_fixture.snapshot(work)
  with lock.holding(work, "main --mode=train"):
    for mode in ("all", "train", "eval", "report"):
      with pytest.raises(InputError, match=rf"in use by process {os.getpid()}"):
        stages.run(pipeline.config(work), mode)
  assert pipeline_fixture.snapshot(work) == before
  # A refused run leaves no folder behind.
  config = pipeline.config(tmp_path / "new", values={"teacher.only": "labels"})
  with pytest.raises(InputError, match=r"teacher\.only"):
    stages.run(config, "train")
  assert not (tmp_path / "new").exists()


@pytest.mark.slow
def test_reference_preset_runs(pipeline, tmp_path):
  done = pipeline_fixture.run(
    pipeline_fixture.command(
      pipeline.folder,
      tmp_path,
      "--config.train.steps=2",
      variant="debug,reference",
    )
  )
  assert done.returncode == 0, done.stderr[-2000:]
  assert _results(tmp_path)["preset"] == "reference"
  row = _metrics(tmp_path)[0]
  assert math.isfinite(row["loss/total"]) and "loss/noun_closed" in row


@pytest.mark.slow
def test_variant_jrg_writes_with_the_small_model(
  pipeline,
  tmp_path,
):
  # A copy: other tests compare what the shared run left.
  for name in ("world", "tfds", "foundation"):
    shutil.copytree(pipeline.folder / name, tmp_path / name)
  model = tmp_path / "foundation" / "language_model"
  done = pipeline_fixture.run(
    pipeline_fixture.command(
      tmp_path,
      tmp_path / "work",
      f"--config.teacher.language_model={model}",
      "--config.teacher.jrg.max_new_tokens=8",
      "--config.teacher.jrg.attempts=2",
      "--config.teacher.only=rationales",
      "--mode=prepare",
      variant="debug,jrg",
    )
  )
  assert done.returncode == 0, done.stderr[-2000:]
  warning = "No language model is given"
  assert warning in pipeline.done.stderr and warning not in done.stderr
  folder = tmp_path / "cache-rationales"
  texts = json.loads((folder / "train.json").read_text())
  report = json.loads((folder / "train.report.json").read_text())
  assert len(texts) == report["images"] > 20
  # It has learnt nothing: that templates stand in for it is counted.
  asked = [
    kind["written_by_model"] + kind["written_by_template"]
    for kind in report["kinds"].values()
  ]
  assert min(asked) > 0
  assert sum(sum(k["reasons"].values()) for k in report["kinds"].values()) > 0


@pytest.mark.parametrize("source", ["teacher", "clip"])
def test_training_reads_the_logits_it_distils(
  pipeline,
  tmp_path,
  source,
):
  settings = pipeline.config(tmp_path, values={"loss.verb_kl_source": source})
  parts = set(train_stage.train_parts(settings))
  logits = {
    "teacher": feature_cache.VERB_LOGITS,
    "clip": feature_cache.CLIP_LOGITS,
  }
  assert parts & set(logits.values()) == {logits[source]}


@pytest.mark.parametrize("field", ["only", "parts"])
def test_unknown_parts_are_refused_before_any_work(tmp_path, field):
  done = pipeline_fixture.run(
    pipeline_fixture.command(
      tmp_path,
      tmp_path / "work",
      f"--config.teacher.{field}=student,taecher",
      "--mode=prepare",
    )
  )
  assert done.returncode == 2
  assert "taecher" in done.stderr and "Traceback" not in done.stderr
  assert not list(tmp_path.iterdir())


def test_reference_preset_needs_the_width_of_texts(
  pipeline,
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


_TERMINATED = (
  "--config.train.schedule=constant",
  "--config.train.log_every=1",
  "--config.train.eval_every=0",
  "--config.train.checkpoint_every=0",
)


def _no_distillation(pipeline, workdir, *arguments):
  return pipeline_fixture.command(
    pipeline.folder,
    workdir,
    *_TERMINATED,
    *arguments,
    variant="debug,no_distillation",
  )


def test_modes_one_by_one_and_a_signal(pipeline, tmp_path):
  """prepare, train until SIGTERM, train on, eval: no distillation."""
  cache = pipeline.folder / "cache"
  made = pipeline_fixture.snapshot(cache)
  settings = pipeline.config(tmp_path, "debug,no_distillation")
  stages.run(settings, "prepare")
  assert pipeline_fixture.snapshot(cache) == made
  with pytest.raises(InputError, match="no checkpoint") as error:
    stages.run(settings, "eval")
  assert "--mode=train" in error.value.remedy
  command = _no_distillation(
    pipeline, tmp_path, "--mode=train", "--config.train.steps=100000"
  )
  code, said = _terminate_at_a_step(command, tmp_path / "metrics.jsonl")
  assert code == 128 + signal.SIGTERM, said[-2000:]
  assert said.count("Stopped by SIGTERM. The same command continues.") == 1
  assert "Traceback" not in said
  stopped = [int(p.name) for p in (tmp_path / "checkpoints").glob("[0-9]*")]
  assert stopped == [_metrics(tmp_path)[-1]["step"]]
  steps = stopped[0] + 2
  shown = (
    "--config.eval.trained_bias=1000",
    f"--config.eval.beside={pipeline.work}",
  )
  for mode in ("train", "eval"):
    assert not (tmp_path / "results.json").exists()
    arguments = (f"--mode={mode}", f"--config.train.steps={steps}", *shown)
    done = pipeline_fixture.run(
      _no_distillation(pipeline, tmp_path, *arguments)
    )
    assert done.returncode == 0, done.stderr[-2000:]
  rows = [row for row in _metrics(tmp_path) if "grad_norm" in row]
  assert [row["step"] for row in rows] == [*range(1, steps + 1)]
  assert "loss/verb" in rows[0] and "loss/scene_distill" not in rows[0]
  results = _results(tmp_path)
  assert results["preset"] == "no_distillation" and results["step"] == steps
  models = results["models"]
  assert math.isfinite(models["student"]["all"]["value_gt"])
  # So large a bias leaves nothing but untrained verbs.
  biased = models["student, trained verbs -1000"]
  assert biased["seen"]["verb_top1"] == biased["rare"]["verb_top1"] == 0
  among = models["student"]["among"]["untrained"]
  assert biased["unseen"]["verb_top1"] == pytest.approx(among)
  assert biased["all"]["value_gt"] == models["student"]["all"]["value_gt"]
  # The other run's row is its own.
  assert models["mipd"] == _results(pipeline.work)["models"]["student"]
  assert "| mipd | seen |" in (tmp_path / "results.md").read_text()


def _terminate_at_a_step(command, metrics, step=3):
  """Sends SIGTERM once a step is logged: (exit code, output)."""
  process = subprocess.Popen(
    command,
    cwd=pipeline_fixture.ROOT,
    env=pipeline_fixture.environment(),
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )
  deadline = time.monotonic() + 200
  while process.poll() is None and time.monotonic() < deadline:
    if metrics.exists() and metrics.read_text().count("\n") >= step:
      break
    time.sleep(0.05)
  process.send_signal(signal.SIGTERM)
  said, _ = process.communicate(timeout=200)
  return process.returncode, said


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
