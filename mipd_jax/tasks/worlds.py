"""Draws the small worlds that a config asks for."""

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

from absl import logging

from input_pipeline.io import atomic, json_files
from input_pipeline.io.errors import InputError


def draw(
  folder: pathlib.Path,
  world: Any,
  write_folder: Callable[[pathlib.Path, Any], Any],
  field: str,
) -> None:
  """Draws the world where there is none; another world is an error.

  Args:
    folder: where to draw it.
    world: its settings, a dataclass.
    write_folder: (folder, world), draws it.
    field: the config field that sets it, for messages.
  """
  note = folder / "world.json"
  wanted = json.loads(json.dumps(dataclasses.asdict(world)))
  if not folder.exists():
    logging.info("Drawing the small world into %s.", folder)
    write_folder(folder, world)
    with atomic.replacing(note) as path:
      path.write_text(json.dumps(wanted) + "\n")
    return
  if not note.exists():
    return
  again = f"delete {folder}; it is drawn again"
  drawn = json_files.read(note, {str: object}, again)
  if drawn != wanted:
    differ = sorted(k for k in wanted | drawn if drawn.get(k) != wanted.get(k))
    raise InputError(
      f"{folder} holds another small world: {', '.join(differ)} of "
      f"{field} differ",
      "choose another --config.dataset.folder, or delete this one",
    )
