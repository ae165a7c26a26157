"""Stage 4: the report, one web page of an evaluated run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from input_pipeline import feature_cache, schema
from input_pipeline.io import atomic, json_files, paths
from input_pipeline.io.errors import InputError
from mipd_jax import tasks
from mipd_jax.config import Config
from mipd_jax.devices import distributed
from mipd_jax.metrics import calibration
from mipd_jax.models import outputs as out
from mipd_jax.report import examples, files, report_page
from mipd_jax.report.report_page import Report, Trade
from mipd_jax.stages import report_examples
from mipd_jax.stages import train as train_stage
from mipd_jax.stages.evaluate import open_student
from mipd_jax.stages.prepare import Prepared

PAGE = "report.html"
# Images per kind and group, per side of teacher and student, and of training;
# at most 40 KB each.
_EACH, _DIFFERING, _TRAINING = 2, 3, 6
# The fields of results.json that the page reads.
_RESULTS = {
  "models": {str: dict},
  "per_verb": {str: {"group": str, "train_images": int}},
}
_EVALUATE = "run --mode=eval first, or --mode=all, which does both"


def report(config: Config, prepared: Prepared) -> None:
  """Writes WORKDIR/report.html beside results.json, which it shows.

  For another split than test both are named after it, as in report-dev.html.

  The images of a split are predicted once more, for values that results.json
  does not keep; pixels are read only for the images that are shown.

  Raises:
    InputError: the task has no report, or results.json is missing or of
      another run, checkpoint, dataset or split.
  """
  if not fits(config):
    raise InputError(
      f"there is no report of the task {config.task} yet",
      "see results.md and the pictures in the work directory",
    )
  workdir = paths.path(config.workdir)
  results = distributed.agreed(lambda: _results(workdir, config.eval.split))
  runner = _Runner(config, prepared)
  distributed.agreed(lambda: _check(results, config, prepared, runner.step))
  split = config.eval.split
  source = runner.source(split)
  predicted = runner.run(source, f"{split}, report")
  truth = prepared.cache.split(split, ()).annotations
  rows = predicted.rows(truth)
  chosen = examples.choose_for_report(rows, _EACH, _DIFFERING)
  shown = chosen.all
  own = runner.run_own(source, shown, predicted.values["verb"][shown])
  training = _training(config, prepared, runner)
  if not distributed.is_first():
    return
  viewer = report_examples.Viewer(prepared, split)
  views = report_examples.split_views(
    viewer, shown, predicted.values, own.values, rows.score
  )
  page = Report(
    name=config.name,
    results=results,
    rows=rows,
    verbs=prepared.dataset.vocabulary.verbs,
    trade=_trade(
      predicted.rivals, truth[schema.VERB], prepared.train_images > 0
    ),
    examples={
      cell: [views[i] for i in indices]
      for cell, indices in chosen.examples.items()
    },
    student_ahead=[views[i] for i in chosen.student_ahead],
    teacher_ahead=[views[i] for i in chosen.teacher_ahead],
    **training(),
    **_use(config),
  )
  path = workdir / files.named(PAGE, split)
  report_page.write_report(path, page)
  logging.info("The report is %s.", path)


def _training(
  config: Config, prepared: Prepared, runner: "_Runner"
) -> Callable[[], dict[str, Any]]:
  """Predicts some training images; returns a function that shows them."""
  truth = prepared.cache.split("train", ()).annotations
  drawn = examples.choose_training(
    truth[schema.VERB], truth[schema.GROUP], _TRAINING, config.seed
  )
  source = runner.source("train")
  predicted = runner.run(
    report_examples.Chosen(source, drawn), "training images"
  )
  own = runner.run_own(source, drawn, predicted.values["verb"])
  scores = predicted.rows({k: x[drawn] for k, x in truth.items()}).score

  def views():
    viewer = report_examples.Viewer(prepared, "train")
    version, texts = prepared.cache.plan.rationales, viewer.have_texts(drawn)
    return {
      "training": report_examples.training_views(
        viewer, prepared.cache, drawn, predicted.values, own.values, scores
      ),
      "written": files.author(version, texts, len(drawn)),
    }

  return views


def _use(config: Config) -> dict[str, Any]:
  """The page's facts on the teacher's part in training."""
  model, objective = config.model, config.objective
  teacher = bool(model.teacher_branch and objective.teacher_terms)
  read = model.scene_prompt or model.instance_prompt
  texts = out.SCENE_POSITIVE, out.SCENE_NEGATIVE, out.GAZE_NEGATIVE
  said = files.use(
    teacher=teacher, read=read or objective.reads(*texts), preset=config.preset
  )
  return {"use": said, "has_teacher": teacher}


def fits(config: Config) -> bool:
  """Whether the task has a report."""
  return tasks.of(config).has_report


class _Runner:
  """The best student, for any source of its cache."""

  def __init__(self, config: Config, prepared: Prepared):
    self._prepared = prepared
    self._parts = train_stage.student_parts(config)
    student = open_student(config, prepared)
    self.step = student.best.step
    self._evaluator = student.evaluator(
      report_examples.compile_step(student.predict)
    )

  def source(self, split: str) -> feature_cache.StoredSplit:
    """The student's features, and the teacher's verbs if there are any."""
    there = self._prepared.cache.plan.split(split).parts
    wanted = (*self._parts, feature_cache.VERB_LOGITS)
    parts = tuple(part for part in wanted if part in there)
    return train_stage.stored(self._prepared, split, parts)

  def run(self, source: Any, what: str) -> report_examples.Predicted:
    return report_examples.predict_rows(
      self._evaluator,
      source,
      trained=self._prepared.train_images > 0,
      what=what,
    )

  def run_own(
    self, source: Any, indices: Sequence[int], verbs: np.ndarray
  ) -> report_examples.Predicted:
    """Some images with roles filled for given verbs; not for scoring."""
    frames = _frames(self._prepared, verbs)
    chosen = report_examples.Chosen(source, indices, frames)
    return self.run(chosen, "the student's own frames")


def _frames(prepared: Prepared, verbs: np.ndarray) -> dict[str, np.ndarray]:
  """The frames of given verbs [n], as arrays [n, R] of a batch."""
  frames = prepared.dataset.vocabulary.frames
  roles = np.full((len(verbs), schema.MAX_ROLES), -1, np.int32)
  for row, verb in enumerate(verbs):
    roles[row, : len(frames[verb])] = frames[verb]
  return {
    schema.VERB: np.asarray(verbs, np.int32),
    schema.ROLES: roles,
    schema.ROLE_MASK: roles >= 0,
  }


def _trade(
  rivals: calibration.Rivals, verb: np.ndarray, trained: np.ndarray
) -> Trade | None:
  """The trade-off by bias; None unless both kinds of verbs have images."""
  if trained[verb].all() or not trained[verb].any():
    return None
  curve = calibration.curve(rivals, verb, trained)
  seen, new = curve[calibration.TRAINED], curve[calibration.UNTRAINED]
  here = curve[calibration.BIAS].index(0.0)
  points = list(zip(new, seen, strict=True))
  return Trade(points[::-1], points[here])


def _results(workdir: paths.AnyPath, split: str) -> dict[str, Any]:
  atomic.check_folder(workdir, "--workdir")
  results = files.read_results(workdir, split, _EVALUATE)
  json_files.check(results, _RESULTS, str(workdir), _EVALUATE)
  return results


def _check(
  results: Mapping[str, Any], config: Config, prepared: Prepared, step: int
) -> None:
  """Raises InputError if results.json is of another checkpoint."""
  expected = {
    "dataset": prepared.dataset.name,
    "split": config.eval.split,
    "preset": config.preset,
    "seed": config.seed,
    "step": step,
  }
  differ = [
    f"{name} {results.get(name)!r} -> {value!r}"
    for name, value in expected.items()
    if results.get(name) != value
  ]
  if differ:
    raise InputError(
      f"the results in {config.workdir} are of something else; these differ "
      f"(there -> here): {'; '.join(differ)}",
      _EVALUATE,
    )
