"""What the small foundation models of a world know, as a table.

A student can only be taught what its teacher knows better. So every fresh
world prints this: whether its encoders tell nouns in boxes and verbs, and how
far they are from what can be told at all.
"""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from input_pipeline import schema
from input_pipeline.small_world import lessons
from input_pipeline.small_world.situations import oracle
from input_pipeline.small_world.situations.world import World
from mipd_jax.teachers.small import box_nouns

NOUNS = "nouns in boxes"
# Which of a model's verb scores stand in the card.
_VERBS = ("question", "name and definition")


def show(
  world: lessons.AnyWorld,
  scores: Mapping[str, Any],
  seconds: Mapping[str, float],
) -> None:
  """Prints the card.

  Args:
    world: the world.
    scores: name of a model -> its scores, see foundation.json; others than
      encoders of images are left out.
    seconds: what the models cost that were trained now.
  """
  table = Table(
    title=f"what the encoders of world {world.config.seed} know, percent",
    title_justify="left",
    box=box.SIMPLE,
  )
  columns = ("noun probe", "noun answers", *schema.GROUPS, "seconds")
  table.add_column("")
  for name in columns:
    table.add_column(name, justify="right")
  for row in rows(world, scores, seconds):
    table.add_row(*row)
  Console().print(table)


def rows(
  world: lessons.AnyWorld,
  scores: Mapping[str, Any],
  seconds: Mapping[str, float],
) -> list[tuple[str, ...]]:
  """The card's rows: name, two scores of nouns, three of verbs, seconds."""
  found = []
  for name, its in scores.items():
    verbs = [its[key] for key in _VERBS if key in its]
    if not verbs:
      continue
    nouns = its.get(NOUNS, {})
    found.append(
      (
        name,
        *(_text(nouns.get(k)) for k in (box_nouns.PROBE, box_nouns.OWN)),
        *(_text(verbs[0].get(group)) for group in schema.GROUPS),
        _text(seconds.get(name), 0),
      )
    )
  if isinstance(world, World):
    best = oracle.verb_accuracy(world)
    verbs = (_text(best[group]) for group in schema.GROUPS)
    found.append(("can be told", "", "", *verbs, ""))
  return found


def _text(value: float | None, digits: int = 1) -> str:
  return "" if value is None else f"{value:.{digits}f}"
