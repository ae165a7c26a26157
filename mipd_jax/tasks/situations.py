"""Situations: one verb an image, its frame of roles filled and grounded."""

import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from absl import logging

from input_pipeline import feature_cache, schema, stream
from input_pipeline.io import paths
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import builder, folder
from mipd_jax.config import Config
from mipd_jax.devices import precision
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.feeding.feeds import Feed
from mipd_jax.metrics import calibration, swig_scores
from mipd_jax.models.mipd import Mipd
from mipd_jax.rationales.source import RationaleSource, TemplateRationales
from mipd_jax.report import files, plots, tables
from mipd_jax.tasks import pictures, worlds
from mipd_jax.tasks.prepared import Prepared
from mipd_jax.tasks.task import rationales_file


class Situations:
  """See `task.Task`."""

  has_report = True

  def __init__(self, config: Config):
    self.config = config

  def check_folder(self) -> None:
    try:
      folder.check_layout(self.config.dataset.folder)
    except InputError as error:
      raise InputError(
        error.problem,
        "get SWiG's images_512.zip and SWiG_jsons from "
        "https://github.com/allenai/swig",
      ) from error

  def dataset(self) -> builder.SwigDataset:
    settings = self.config.dataset
    folder = pathlib.Path(settings.folder)
    if settings.world is not None:
      from input_pipeline.small_world.situations.folder import write_folder

      worlds.draw(folder, settings.world, write_folder, self.config.world_field)
    found = builder.prepare(
      folder,
      folder.parent / "tfds",
      num_rare=settings.num_rare,
      num_unseen=settings.num_unseen,
      seed=settings.split_seed,
      skip_broken=settings.skip_broken,
    )
    if broken := found.broken:
      logging.warning(
        "%d images are missing or broken and were left out: %s%s",
        len(broken),
        ", ".join(broken[:5]),
        " ..." if len(broken) > 5 else "",
      )
    return found.with_mirrored_views() if settings.mirrored else found

  def rationales(
    self, dataset: builder.SwigDataset, writer: Any
  ) -> RationaleSource:
    del dataset
    from mipd_jax.rationales.jrg import JrgRationales

    if writer is None:
      return TemplateRationales()
    out = rationales_file(self.config)
    return JrgRationales(writer, out, self.config.teacher.jrg)

  def prepared(
    self, dataset: builder.SwigDataset, cache: feature_cache.Cache
  ) -> Prepared:
    return Prepared(dataset, cache)

  def model(self, prepared: Prepared) -> Mipd:
    config = self.config
    width = prepared.banks["verb_text"].shape[-1]
    # Class-token targets stay in the hidden space; the losses compare them
    # with embeddings of texts (METHOD, the reference's teacher branch).
    alike = (
      config.model.teacher_branch and config.model.teacher_pooling == "cls"
    )
    if alike and config.model.hidden != width:
      raise InputError(
        f"model.teacher_pooling='cls' (preset {config.preset}) compares "
        f"teacher targets of width model.hidden={config.model.hidden} with "
        f"text embeddings of width {width}",
        f"set --config.model.hidden={width}, or "
        "--config.model.teacher_pooling=text",
      )
    dtype = precision.compute_dtype(config.train.dtype)
    return Mipd(config.model, prepared.sizes, dtype)

  def identity(self) -> Mapping[str, Any]:
    return {}

  def cached(self, key: str) -> eval_lib.Predict:
    return eval_lib.cached_logits(key)

  def eval_settings(self) -> tuple:
    return ()

  def eval_step(self, predict: eval_lib.Predict) -> Callable:
    return eval_lib.compile_eval_step(predict)

  def evaluate(
    self,
    evaluator: eval_lib.Evaluator,
    source: stream.Source,
    what: str,
    feed: Feed | None = None,
  ) -> eval_lib.Evaluation:
    return eval_lib.evaluate(evaluator, source, what, feed)

  def summary(
    self, prepared: Prepared, split: str, found: eval_lib.Evaluation
  ) -> dict:
    """Scores by group, and verb top-1 among trained and untrained names."""
    truth = prepared.cache.split(split, ()).annotations
    among = calibration.among_names(
      found.verb_scores, truth[schema.VERB], prepared.train_images > 0
    )
    summary = swig_scores.summarise(found.totals, prepared.groups)
    return summary | {"among": among}

  def dev_report(self, summary: dict) -> tuple[dict[str, float], float]:
    return swig_scores.dev_report(summary)

  def details(
    self, prepared: Prepared, found: eval_lib.Evaluation
  ) -> Mapping[str, Any]:
    return {"per_verb": _per_verb(prepared, found.totals)}

  def write(
    self,
    prepared: Prepared,
    results: Mapping[str, Any],
    found: eval_lib.Evaluation,
  ) -> Iterable[str]:
    config = self.config
    workdir = paths.path(config.workdir)
    named = functools.partial(files.named, split=config.eval.split)
    files.write_results(workdir, results)
    tables.print_results(results)
    if (workdir / "metrics.jsonl").exists():  # an imported run has none
      plots.loss_curves(workdir / "metrics.jsonl", workdir / "losses.png")
    plots.accuracy_vs_frequency(results, workdir / named("frequency.png"))
    pictures.write_sheet(config, prepared, found, workdir / named("sheet.png"))
    return ("results", "plots", "pictures")


def _per_verb(prepared: Prepared, totals: swig_scores.VerbTotals) -> dict:
  """Scores of each verb, with its group and its number of images."""
  return {
    name: {
      "group": schema.GROUPS[prepared.groups[verb]],
      "train_images": int(prepared.train_images[verb]),
      "test_images": int(totals.images[verb]),
      **totals.of_verb(verb),
    }
    for verb, name in enumerate(prepared.dataset.vocabulary.verbs)
  }
