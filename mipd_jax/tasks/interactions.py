"""The task of interactions: pairs of a person and an object, and its sheet.

The sheet shows images with their pairs: the best predictions beside the truth.
"""

import functools
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from input_pipeline import feature_cache, schema, stream
from input_pipeline.hico_det import folder as hico_folder
from input_pipeline.hico_det import pair_columns, splits
from input_pipeline.hico_det.pair_dataset import (
  PairDataset,
  PairSplit,
  Settings,
)
from input_pipeline.hico_det.records import Record
from input_pipeline.io import paths
from input_pipeline.io.errors import InputError
from mipd_jax.config import Config
from mipd_jax.devices import compilation
from mipd_jax.evaluation import interactions as pair_eval
from mipd_jax.evaluation import situations as eval_lib
from mipd_jax.feeding.feeds import Feed
from mipd_jax.losses.banks import VERB_TRAINED
from mipd_jax.metrics import hico_det, hico_det_files, hico_det_scores
from mipd_jax.metrics.hico_det_matching import Detections, Truth, match
from mipd_jax.models.pairs import VERB_OBJECT, PairMipd
from mipd_jax.rationales.interactions import (
  InteractionFrames,
  InteractionRationales,
)
from mipd_jax.rationales.jrg import JrgRationales
from mipd_jax.rationales.source import RationaleSource
from mipd_jax.report import files, plots, tables
from mipd_jax.report.sheets import (
  MAX_PAIRS,
  PairExample,
  ShownPair,
  pair_sheet,
)
from mipd_jax.tasks import worlds
from mipd_jax.tasks.instances import PairInstances
from mipd_jax.tasks.prepared import Prepared
from mipd_jax.tasks.task import rationales_file


class PreparedInteractions(Prepared):
  """A dataset of pairs and its cache."""

  dataset: PairDataset

  @functools.cached_property
  def train_images(self) -> np.ndarray:
    """Training pairs of each interaction, int [V]."""
    columns = self.cache.split("train", ()).annotations
    return pair_columns.labelled(columns, self.sizes.num_verbs)

  @functools.cached_property
  def banks(self) -> dict[str, np.ndarray]:
    """Text embeddings, each interaction's object, and which are trained.

    Texts of interactions share most of their direction; it is subtracted, as
    for nouns (teachers/labels.py), and kept as `verb_center`.
    """
    from mipd_jax.teachers import labels

    text = self.cache.labels()
    text["verb_center"] = text["verb_text"].mean(axis=0)
    text["verb_text"] = labels.center(text["verb_text"], text["verb_center"])
    return text | {
      VERB_OBJECT: self.dataset.words.object_of,
      VERB_TRAINED: self.train_images > 0,
    }

  def truth(self, split: str) -> Truth:
    """The labels that a split is scored against."""
    return _truth(self.dataset, split)


class Interactions:
  """See `task.Task`."""

  has_report = False

  def __init__(self, config: Config):
    self.config = config

  def check_folder(self) -> None:
    hico_folder.find(self.config.dataset.folder)

  def dataset(self) -> PairDataset:
    from input_pipeline.hico_det import builder

    config, settings = self.config, self.config.interactions
    folder = pathlib.Path(config.dataset.folder)
    if settings.world is not None:
      from input_pipeline.small_world.interactions.folder import (
        write_folder,
      )

      worlds.draw(folder, settings.world, write_folder, config.world_field)
    hico = builder.prepare(
      folder,
      folder.parent / "tfds",
      form=settings.form or None,
      skip_broken=config.dataset.skip_broken,
    )
    if broken := hico.broken:
      logging.warning("%d images cannot be used and are left out.", len(broken))
    chosen = Settings(
      dropping=settings.dropping,
      dev_share=settings.dev_share,
      slots=settings.slots,
      selection=pair_columns.Selection(
        settings.max_people, settings.max_objects, settings.min_score
      ),
      train_detections=settings.train_detections,
      test_detections=settings.test_detections,
    )
    zero_shot = splits.load(settings.split, hico.words, hico.folder)
    return PairDataset(hico, zero_shot, chosen)

  def rationales(self, dataset: PairDataset, writer: Any) -> RationaleSource:
    words = dataset.words
    if writer is None:
      return InteractionRationales(words)

    def frames(split, vocabulary, settings, allowed):
      del vocabulary, allowed
      return InteractionFrames(words, split, settings)

    out, jrg = rationales_file(self.config), self.config.teacher.jrg
    return JrgRationales(writer, out, jrg, frames=frames)

  def instances(self, dataset: PairDataset) -> PairInstances:
    question = self.config.teacher.instances.question
    return PairInstances(dataset, self.config.interactions.slots, question)

  def prepared(
    self, dataset: PairDataset, cache: feature_cache.Cache
  ) -> PreparedInteractions:
    return PreparedInteractions(dataset, cache)

  def model(self, prepared: Prepared) -> PairMipd:
    config = self.config
    if config.model.teacher_branch and config.model.teacher_pooling == "cls":
      raise InputError(
        f"model.teacher_pooling='cls' (preset {config.preset}) has no target "
        "for a pair",
        "choose another preset, or --config.model.teacher_pooling=text",
      )
    dtype = compilation.compute_dtype(config.train.dtype)
    return PairMipd(
      config.model,
      prepared.sizes,
      dtype,
      open_layers=prepared.open_layers(config.model),
    )

  def identity(self) -> Mapping[str, Any]:
    settings = self.config.interactions
    names = ("split", "dropping", "pair", "focal_alpha", "focal_gamma")
    return {
      "task": self.config.task,
      "interactions": {name: getattr(settings, name) for name in names},
    }

  def cached(self, key: str) -> eval_lib.Predict:
    return pair_eval.cached_pair_logits(key)

  def eval_settings(self) -> tuple[tuple[str, Any], ...]:
    """(name, value) of each argument of `compile_pair_step`."""
    names = ("slots", "top_k", "detection_power")
    settings = self.config.interactions
    return tuple((name, getattr(settings, name)) for name in names)

  def eval_step(self, predict: eval_lib.Predict) -> Callable:
    return pair_eval.compile_pair_step(predict, **dict(self.eval_settings()))

  def evaluate(
    self,
    evaluator: eval_lib.Evaluator,
    source: stream.Source,
    what: str,
    feed: Feed | None = None,
  ) -> list[Detections]:
    """The best hypotheses of every image."""
    settings = self.config.interactions
    return pair_eval.evaluate(
      evaluator,
      source,
      top_k=settings.top_k,
      nms_threshold=settings.nms_threshold if settings.nms else None,
      what=what,
      feed=feed,
    )

  def summary(
    self,
    prepared: PreparedInteractions,
    split: str,
    evaluation: list[Detections],
  ) -> dict:
    dataset = prepared.dataset
    return hico_det.score(
      evaluation,
      prepared.truth(split),
      dataset.words,
      dataset.zero_shot,
      skip_empty=self.config.interactions.skip_empty,
    )

  def dev_report(self, summary: dict) -> tuple[dict[str, float], float]:
    return hico_det_scores.dev_report(summary)

  def details(
    self, prepared: PreparedInteractions, evaluation: list[Detections]
  ) -> Mapping[str, Any]:
    del evaluation
    dataset = prepared.dataset
    return {
      "zero_shot": dataset.zero_shot.name,
      "dropping": self.config.interactions.dropping,
      "detector": dataset.detector(self.config.eval.split),
      "interactions": [
        {
          "interaction": name,
          "unseen": bool(dataset.zero_shot.unseen[i]),
          "rare": bool(dataset.words.rare[i]),
          "train_pairs": int(prepared.train_images[i]),
        }
        for i, name in enumerate(dataset.words.names)
      ],
    }

  def write(
    self,
    prepared: PreparedInteractions,
    results: Mapping[str, Any],
    evaluation: list[Detections],
  ) -> Iterable[str]:
    config = self.config
    workdir = paths.path(config.workdir)
    files.write_results(workdir, results, tables.interaction_blocks)
    tables.print_results(results, blocks_of=tables.interaction_blocks)
    if (workdir / "metrics.jsonl").exists():
      plots.loss_curves(workdir / "metrics.jsonl", workdir / "losses.png")
    write_sheet(
      config,
      prepared.dataset,
      evaluation,
      workdir / files.named("sheet.png", config.eval.split),
    )
    return ("results", "loss curves", "pictures")


@functools.lru_cache(maxsize=4)
def _truth(dataset: PairDataset, split: str) -> Truth:
  labels = [record.as_labels() for record in dataset.split(split).records]
  return hico_det_files.make_truth(labels, dataset.words)


_NOTE = (
  "Images drawn at random, those with unseen interactions first in turn. "
  "Solid: the person; dashed: the object. Predicted: the best hypothesis of "
  "each pair of boxes."
)


def write_sheet(
  config: Config,
  dataset: PairDataset,
  evaluation: Sequence[Detections],
  path: pathlib.Path,
) -> None:
  """Draws some images of the evaluated split."""
  split = dataset.split(config.eval.split)
  labels = [record.as_labels() for record in split.records]
  truth = hico_det_files.make_truth(labels, dataset.words)
  of_image = {int(x.image[0]): x for x in evaluation if len(x.image)}
  examples = []
  for index in _choose(dataset, split, config):
    hits = of_image.get(index)
    predicted: list[ShownPair] = []
    if hits is not None:
      predicted = _predicted(dataset, hits, match(truth, hits))
    examples.append(
      PairExample(
        image=split.image(index),
        name=split.names[index],
        true=_true(dataset, split.records[index]),
        predicted=predicted,
      )
    )
  pair_sheet(
    examples,
    path,
    title=f"{config.name}: {config.eval.split}, split {dataset.zero_shot.name}",
    note=_NOTE,
  )


def _choose(
  dataset: PairDataset, split: PairSplit, config: Config
) -> list[int]:
  """Images with labels; every other one has an unseen interaction."""
  order = np.random.default_rng(config.seed).permutation(len(split))
  unseen, others = [], []
  for index in order.tolist():
    labels = split.records[index].labels[:, 1]
    if len(labels):
      is_unseen = dataset.zero_shot.unseen[labels].any()
      (unseen if is_unseen else others).append(index)
  mixed = [
    index for pair in zip(unseen, others, strict=False) for index in pair
  ]
  rest = unseen[len(others) :] + others[len(unseen) :]
  return (mixed + rest)[: config.eval.sheet_examples]


def _group(dataset: PairDataset, interaction: int) -> str:
  return schema.GROUPS[int(dataset.groups.groups[interaction])]


def _box(values: np.ndarray) -> tuple[float, float, float, float]:
  """A box [4] as plain numbers."""
  return tuple(float(x) for x in values)


def _true(dataset: PairDataset, record: Record) -> list[ShownPair]:
  """One row per pair: all its interactions, and the rarest group of these."""
  rows = []
  for pair, (person, thing) in enumerate(record.pairs):
    labels = record.labels[record.labels[:, 0] == pair, 1].tolist()
    groups = [_group(dataset, x) for x in labels]
    rows.append(
      ShownPair(
        _box(record.boxes[person]),
        _box(record.boxes[thing]),
        ", ".join(dataset.words.names[x] for x in labels),
        max(groups, key=schema.GROUPS.index),
      )
    )
  return rows[:MAX_PAIRS]


def _predicted(
  dataset: PairDataset, hits: Detections, right_N: np.ndarray
) -> list[ShownPair]:
  """The best hypothesis of each pair of boxes, best pairs first."""
  _, first = np.unique(hits.boxes, axis=0, return_index=True)
  rows = sorted(first.tolist(), key=lambda row: -hits.score[row])[:MAX_PAIRS]
  return [
    ShownPair(
      _box(hits.boxes[row, :4]),
      _box(hits.boxes[row, 4:]),
      dataset.words.names[hits.interaction[row]],
      _group(dataset, int(hits.interaction[row])),
      float(hits.score[row]),
      bool(right_N[row]),
    )
    for row in rows
  ]
