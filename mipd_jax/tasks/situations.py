"""The task of situations: one verb per image, its frame filled and grounded.

And its sheet: test images with predictions drawn beside the truth.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from absl import logging

from input_pipeline import feature_cache, schema, stream
from input_pipeline.geometry import Letterbox
from input_pipeline.io import paths
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import builder, folder
from mipd_jax.config import Config
from mipd_jax.devices import compilation
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.evaluation.situations import Evaluation
from mipd_jax.feeding.feeds import Feed
from mipd_jax.metrics import calibration, swig_scores
from mipd_jax.models.mipd import Mipd
from mipd_jax.rationales.source import RationaleSource, TemplateRationales
from mipd_jax.report import examples, files, plots, sheets, tables
from mipd_jax.tasks import worlds
from mipd_jax.tasks.instances import RoleInstances
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
      from input_pipeline.small_world.situations.folder import (
        write_folder,
      )

      worlds.draw(folder, settings.world, write_folder, self.config.world_field)
    dataset = builder.prepare(
      folder,
      folder.parent / "tfds",
      num_rare=settings.num_rare,
      num_unseen=settings.num_unseen,
      seed=settings.split_seed,
      skip_broken=settings.skip_broken,
    )
    if broken := dataset.broken:
      logging.warning(
        "%d images are missing or broken and were left out: %s%s",
        len(broken),
        ", ".join(broken[:5]),
        " ..." if len(broken) > 5 else "",
      )
    return dataset.with_mirrored_views() if settings.mirrored else dataset

  def rationales(
    self, dataset: builder.SwigDataset, writer: Any
  ) -> RationaleSource:
    del dataset
    from mipd_jax.rationales.jrg import JrgRationales

    if writer is None:
      return TemplateRationales()
    out = rationales_file(self.config)
    return JrgRationales(writer, out, self.config.teacher.jrg)

  def instances(self, dataset: builder.SwigDataset) -> RoleInstances:
    question = self.config.teacher.instances.question
    return RoleInstances(dataset, question)

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
    dtype = compilation.compute_dtype(config.train.dtype)
    return Mipd(
      config.model,
      prepared.sizes,
      dtype,
      open_layers=prepared.open_layers(config.model),
    )

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
    self, prepared: Prepared, split: str, evaluation: eval_lib.Evaluation
  ) -> dict:
    """Scores by group, and verb top-1 among trained and untrained names."""
    truth = prepared.cache.split(split, ()).annotations
    among = calibration.among_names(
      evaluation.verb_scores, truth[schema.VERB], prepared.train_images > 0
    )
    summary = swig_scores.summarise(evaluation.totals, prepared.groups)
    return summary | {"among": among}

  def dev_report(self, summary: dict) -> tuple[dict[str, float], float]:
    return swig_scores.dev_report(summary)

  def details(
    self, prepared: Prepared, evaluation: eval_lib.Evaluation
  ) -> Mapping[str, Any]:
    return {"per_verb": _per_verb(prepared, evaluation.totals)}

  def write(
    self,
    prepared: Prepared,
    results: Mapping[str, Any],
    evaluation: eval_lib.Evaluation,
  ) -> Iterable[str]:
    config = self.config
    workdir = paths.path(config.workdir)
    named = functools.partial(files.named, split=config.eval.split)
    files.write_results(workdir, results)
    tables.print_results(results)
    if (workdir / "metrics.jsonl").exists():  # an imported run has none
      plots.loss_curves(workdir / "metrics.jsonl", workdir / "losses.png")
    plots.accuracy_vs_frequency(results, workdir / named("frequency.png"))
    write_sheet(config, prepared, evaluation, workdir / named("sheet.png"))
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


_NOTE = (
  "Chosen at random, evenly over groups and over right and wrong verbs; "
  "roles are filled for the true verb's frame."
)


def write_sheet(
  config: Config,
  prepared: Prepared,
  evaluation: Evaluation,
  path: pathlib.Path,
) -> None:
  """Draws a few images with the frames that were scored."""
  truth = prepared.cache.split(config.eval.split, ()).annotations
  chosen = examples.choose_for_sheet(
    truth[schema.GROUP],
    evaluation.verb == truth[schema.VERB],
    config.eval.sheet_examples,
    config.seed,
  )
  images = prepared.dataset.split(config.eval.split)
  shown = [
    _example(prepared, evaluation, images, truth, index) for index in chosen
  ]
  sheets.example_sheet(
    shown,
    path,
    columns=3,
    title=f"{config.name}: {config.eval.split}",
    note=_NOTE,
  )


def _example(prepared, evaluation, images, truth, index):
  words = prepared.dataset.vocabulary
  geometry = Letterbox(*truth[schema.IMAGE_SIZE][index].tolist())
  true_boxes = geometry.boxes_to_pixels(truth[schema.BOXES][index])
  nouns, boxes = evaluation.frames.noun[index], evaluation.frames.box[index]

  def box(values, present):
    return tuple(float(x) for x in values) if present else None

  verb = int(truth[schema.VERB][index])
  roles = [
    examples.RoleExample(
      role=words.roles[role],
      true_nouns=tuple(
        noun_word(words, noun) for noun in truth[schema.NOUNS][index, i]
      ),
      predicted_noun=noun_word(words, nouns[i]),
      true_box=box(true_boxes[i], truth[schema.BOX_MASK][index, i]),
      predicted_box=box(boxes[i], not np.isnan(boxes[i, 0])),
    )
    for i, role in enumerate(words.frames[verb])
  ]
  return examples.Example(
    image=images.image(index),
    name=images.names[index],
    group=schema.GROUPS[truth[schema.GROUP][index]],
    true_verb=words.verbs[verb],
    predicted_verb=words.verbs[evaluation.verb[index]],
    probability=float(evaluation.probability[index]),
    roles=roles,
  )


def noun_word(words: Any, noun: int) -> str:
  """The first gloss of a noun class; "" for blank."""
  name = words.nouns[noun]
  glosses = words.noun_glosses[noun]
  return "" if name == "blank" else glosses[0] if glosses else name
