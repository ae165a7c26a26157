"""The sheet of images with pairs: the best predictions beside the truth."""

import pathlib
from collections.abc import Sequence

import numpy as np

from input_pipeline import schema
from input_pipeline.hico_det.pair_dataset import PairDataset, PairSplit
from input_pipeline.hico_det.records import Record
from mipd_jax.config import Config
from mipd_jax.metrics import hico_det_files
from mipd_jax.metrics.hico_det_matching import Detections, match
from mipd_jax.report.sheets import PairExample, ShownPair, pair_sheet

_NOTE = (
  "Images drawn at random, those with unseen interactions first in turn. "
  "Solid: the person; dashed: the object. Predicted: the best hypothesis of "
  "each pair of boxes."
)
_PAIRS = 3


def write_sheet(
  config: Config,
  dataset: PairDataset,
  found: Sequence[Detections],
  path: pathlib.Path,
) -> None:
  """Draws some images of the evaluated split."""
  split = dataset.split(config.eval.split)
  labels = [record.as_labels() for record in split.records]
  truth = hico_det_files.make_truth(labels, dataset.words)
  of_image = {int(x.image[0]): x for x in found if len(x.image)}
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
  """Images with labels, every other one with an unseen interaction."""
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
  return tuple(float(x) for x in values)


def _true(dataset: PairDataset, record: Record) -> list[ShownPair]:
  """One row a pair: all its interactions, of the rarest group."""
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
  return rows[:_PAIRS]


def _predicted(
  dataset: PairDataset, found: Detections, right: np.ndarray
) -> list[ShownPair]:
  """The best hypothesis of each pair of boxes, best pairs first."""
  _, first = np.unique(found.boxes, axis=0, return_index=True)
  rows = sorted(first.tolist(), key=lambda row: -found.score[row])[:_PAIRS]
  return [
    ShownPair(
      _box(found.boxes[row, :4]),
      _box(found.boxes[row, 4:]),
      dataset.words.names[found.interaction[row]],
      _group(dataset, int(found.interaction[row])),
      float(found.score[row]),
      bool(right[row]),
    )
    for row in rows
  ]
