"""Stage 3: scores the best checkpoint, writes tables, plots and pictures."""

import jax
from absl import logging

from input_pipeline import feature_cache, paths, schema
from mipd_jax import distributed, sharding
from mipd_jax.config import Config
from mipd_jax.evaluation import evaluate as eval_lib
from mipd_jax.metrics import calibration, scores
from mipd_jax.report import files, plots, tables
from mipd_jax.stages import pictures
from mipd_jax.stages import train as train_stage
from mipd_jax.stages.prepare import Prepared
from mipd_jax.training import program
from mipd_jax.training import state as state_lib
from mipd_jax.training.checkpoints import Checkpoints

STUDENT = "student"
# What else is scored, where the cache has it: name -> part and key.
ZERO_SHOT = {
  "teacher zero-shot": (feature_cache.VERB_LOGITS, schema.VERB_LOGITS),
  "CLIP zero-shot": (feature_cache.CLIP_LOGITS, schema.CLIP_LOGITS),
}


def evaluate(config: Config, prepared: Prepared) -> dict:
  """Scores student and teacher on the chosen split and writes the results.

  Returns:
    The content of results.json.
  """
  mesh = train_stage.make_mesh(config)
  model = train_stage.make_model(config, prepared)
  banks = jax.device_put(dict(prepared.banks), sharding.replicated(mesh))
  params, step = _best_params(config, prepared, model, banks, mesh)

  def run(predict, part, what):
    source = train_stage.stored(prepared, config.eval.split, (part,))
    return eval_lib.evaluate(
      eval_lib.compile_eval_step(predict, prepared.sizes.num_verbs),
      params,
      source,
      banks,
      mesh,
      batch_size=config.eval.batch_size,
      what=f"{config.eval.split}, {what}",
    )

  predict = train_stage.student_predict(model)
  student = run(predict, feature_cache.STUDENT, STUDENT)
  models = {STUDENT: _summary(config, prepared, student)}
  there = prepared.cache.plan.split(config.eval.split).parts
  for name, (part, key) in ZERO_SHOT.items():
    if part in there:
      found = run(eval_lib.cached_logits(key), part, name)
      models[name] = _summary(config, prepared, found)
  results = {
    "dataset": prepared.dataset.name,
    "split": config.eval.split,
    "preset": config.preset,
    "step": step,
    "seed": config.seed,
    "config_hash": config.hash(),
    "models": models,
    "per_verb": _per_verb(prepared, student.totals),
  }
  if distributed.is_first():
    host_params = jax.device_get(params)
    _write(config, prepared, results, student, predict, host_params)
  return results


def _write(config, prepared, results, student, predict, params):
  """Tables, plots and pictures, by one process."""
  workdir = paths.path(config.workdir)
  files.write_results(workdir, results)
  tables.print_results(results)
  if (workdir / "metrics.jsonl").exists():  # an imported run has none
    plots.loss_curves(workdir / "metrics.jsonl", workdir / "losses.png")
  plots.accuracy_vs_frequency(results, workdir / "frequency.png")
  pictures.write_sheet(
    *(config, prepared, student, predict, params, prepared.banks),
    workdir / "sheet.png",
  )
  logging.info("Results, plots and pictures are in %s.", workdir)


def _best_params(config, prepared, model, banks, mesh):
  """The student's parameters, best by seen and rare dev images."""
  identity = train_stage.identity(config, prepared)
  checkpoints = Checkpoints(config.workdir, identity, config.train.keep)
  source = prepared.cache.split(config.eval.split, (feature_cache.STUDENT,))
  like = state_lib.student_shapes(
    model, program.example_batch(source), banks, sharding.replicated(mesh)
  )
  try:
    step = checkpoints.best_step()
    return checkpoints.restore_best_params(like), step
  finally:
    checkpoints.close()


def _summary(config, prepared, found: eval_lib.Evaluation) -> dict:
  """Scores by group, and verb top-1 among trained and untrained names."""
  truth = prepared.cache.split(config.eval.split, ()).annotations
  among = calibration.among_names(
    found.verb_scores, truth[schema.VERB], prepared.train_images > 0
  )
  return scores.summarise(found.totals, prepared.groups) | {"among": among}


def _per_verb(prepared: Prepared, totals: scores.VerbTotals) -> dict:
  """Scores of each verb, with its group and its number of images."""
  result = {}
  for verb, name in enumerate(prepared.dataset.vocabulary.verbs):
    count = totals.counts[verb]
    scores = totals.sums[verb] * 100 / count if count else []
    result[name] = {
      "group": schema.GROUPS[prepared.groups[verb]],
      "train_images": int(prepared.train_images[verb]),
      "test_images": int(count),
      **dict(zip(totals.names, map(float, scores), strict=False)),
    }
  return result
