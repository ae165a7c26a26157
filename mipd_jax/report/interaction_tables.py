"""Results of interactions as tables: results.md and the terminal.

A results dict has `models`: {name: scores, with "known_object": {the same}}},
where scores are those of `metrics.hico_det_scores` by name, in percent; and
`detector`, `zero_shot`: what found the boxes, and which interactions are
unseen.
"""

from collections.abc import Mapping
from typing import Any

from mipd_jax.metrics.hico_det_scores import SCORES
from mipd_jax.report.tables import Block, models_of, number


def blocks(results: Mapping[str, Any]) -> list[Block]:
  """Mean average precision by default and of known objects.

  Raises:
    InputError: there is no dict of models.
  """
  models = models_of(results, "mipd_jax/report/interaction_tables.py")
  zero_shot = str(results.get("zero_shot", ""))
  told = f"split {zero_shot}; boxes: {results.get('detector', 'not told')}"
  known = {name: x.get("known_object") or {} for name, x in models.items()}
  return [
    _block(f"mAP, Default ({told})", models, zero_shot),
    _block(f"mAP, Known Object ({told})", known, zero_shot),
  ]


def _block(
  title: str, models: Mapping[str, Mapping[str, Any]], zero_shot: str
) -> Block:
  rows = tuple(
    (name, zero_shot, *(number(scores.get(score.name)) for score in SCORES))
    for name, scores in models.items()
  )
  header = ("model", "split", *(score.label for score in SCORES))
  return Block(title, header, rows)
