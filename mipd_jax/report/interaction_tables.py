"""Results of interactions as tables: results.md and the terminal.

A results dict has `models`: {name: {"full", "rare", "non_rare", "seen",
"unseen", "hm", "known_object": {the same}}} in percent, and `detector`,
`zero_shot`: what found the boxes, and which interactions are unseen.
"""

from collections.abc import Mapping
from typing import Any

from mipd_jax.report.tables import Block, models_of, number

COLUMNS = (
  ("Full", "full"),
  ("Rare", "rare"),
  ("Non-rare", "non_rare"),
  ("Seen", "seen"),
  ("Unseen", "unseen"),
  ("HM", "hm"),
)


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
    (name, zero_shot, *(number(scores.get(key)) for _, key in COLUMNS))
    for name, scores in models.items()
  )
  header = ("model", "split", *(name for name, _ in COLUMNS))
  return Block(title, header, rows)
