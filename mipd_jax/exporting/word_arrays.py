"""A list of words as the arrays that an exported program takes.

| name | shape and dtype | meaning |
|---|---|---|
| verb_text | float32 [v, E] | embedding of each verb |
| verb_mask | bool [v] | False for filler |
| verb_row | int32 [v] | the verb whose role queries are asked |
| roles | int32 [v, 6] | each verb's frame, rows of role_text; -1: no role |
| role_text | float32 [q, E] | embedding of each role |
| noun_text | float32 [n, E] | embedding of each noun |
| noun_column | int32 [n] | its class of training, 0 for a new word |
| noun_mask | bool [n] | False for filler |
| noun_bank | float32 [C, E] | embeddings of training's classes |
| by_text | bool [] | whether nouns are compared by text alone |
"""

import numpy as np

from input_pipeline.schema import MAX_ROLES
from mipd_jax.inference import programs
from mipd_jax.inference.lexicon import Lexicon

FREE = _V, _Q, _N = "v", "q", "n"  # sizes that are free when words are passed
SHAPES: dict[str, tuple[str | None, ...]] = {
  "verb_text": (_V, None),
  "verb_mask": (_V,),
  "verb_row": (_V,),
  "roles": (_V, None),
  "role_text": (_Q, None),
  "noun_text": (_N, None),
  "noun_column": (_N,),
  "noun_mask": (_N,),
  "noun_bank": (None, None),
  "by_text": (),
}
Arrays = dict[str, np.ndarray]


def arrays(lexicon: Lexicon, least: int) -> Arrays:
  """The arrays of a list.

  Args:
    lexicon: the words.
    least: rows that lists have at least, filled up with filler.
  """
  nouns = lexicon.nouns
  verbs, used = len(lexicon.verbs), len(nouns.names)
  rows = max(verbs, least)
  roles = np.full((rows, MAX_ROLES), -1, np.int32)
  for frame, row in zip(lexicon.frames, roles, strict=False):
    row[: len(frame.rows)] = frame.rows
  found = {
    "verb_text": _rows(lexicon.verb_text[:verbs], rows),
    "verb_mask": np.arange(rows) < verbs,
    "verb_row": _rows(np.array(lexicon.verb_rows, np.int32), rows),
    "roles": roles,
    "role_text": lexicon.banks["role_text"],
    "noun_text": _rows(nouns.arrays["text"][:used], max(used, least)),
    "noun_column": _rows(nouns.arrays["column"][:used], max(used, least)),
    "noun_mask": np.arange(max(used, least)) < used,
    "noun_bank": lexicon.banks["noun_text"],
    "by_text": np.array(nouns.rule == programs.BY_TEXT),
  }
  return {name: np.asarray(x, order="C") for name, x in found.items()}


def labels(lexicon: Lexicon) -> dict[str, list]:
  """The words themselves, in the order of the arrays' rows."""
  return {
    "verbs": list(lexicon.verbs),
    "frames": [list(frame.roles) for frame in lexicon.frames],
    "abstracts": [frame.abstract for frame in lexicon.frames],
    "nouns": list(lexicon.nouns.names),
    "noun_classes": list(lexicon.nouns.classes),
  }


def _rows(array: np.ndarray, count: int) -> np.ndarray:
  filler = [(0, count - len(array))] + [(0, 0)] * (array.ndim - 1)
  return np.pad(array, filler)
