"""Embeds texts of words: each once, kept in memory and on disk.

WORK/words.npz holds all embeddings ever asked for in that workdir: `keys`,
sha256 of the text encoder's revision and of the prompts, and `rows` [n, E]. It
can be deleted; a read-only workdir has none.
"""

import hashlib
import json
from collections.abc import Callable, Sequence

import numpy as np
from absl import logging
from jax.sharding import Mesh

from input_pipeline.io import atomic, paths
from input_pipeline.io.progress import Progress
from mipd_jax.teachers import labels
from mipd_jax.teachers.interfaces import TextEncoder

FILE = "words.npz"
_AT_ONCE = 1024  # words embedded between two lines of progress
_SMALLEST = 16  # texts in a batch, at least: sizes are powers of two


class Texts:
  """Unit embeddings of prompts, as in `teachers.labels.text_bank`."""

  def __init__(
    self,
    load: Callable[[], TextEncoder],
    revision: str,
    mesh: Mesh,
    folder: paths.AnyPath,
  ):
    """`load` returns the text encoder; it is called for new words only."""
    self._load: Callable[[], TextEncoder] = load
    self._encoder: TextEncoder | None = None
    self._revision, self._mesh = revision, mesh
    self._path = folder / FILE
    self._rows: dict[str, np.ndarray] | None = None

  def bank(self, prompts: Sequence[Sequence[str]]) -> np.ndarray:
    """One row per word: float32 [n, E], each of unit length.

    Raises:
      InputError: the text encoder cannot be read.
    """
    if self._rows is None:
      self._rows = self._read()
    keys = [self._key(group) for group in prompts]
    missing = {
      key: group
      for key, group in zip(keys, prompts, strict=True)
      if key not in self._rows
    }
    if missing:
      self._embed(missing)
      self._write()
    return np.stack([self._rows[key] for key in keys])

  def _embed(self, missing: dict[str, Sequence[str]]) -> None:
    if self._encoder is None:
      self._encoder = self._load()
    names = list(missing)
    if len(names) <= _AT_ONCE:
      self._add(names, missing)
      return
    with Progress("embed words", len(names), "words") as progress:
      for start in range(0, len(names), _AT_ONCE):
        chosen = names[start : start + _AT_ONCE]
        self._add(chosen, missing)
        progress.advance(len(chosen))

  def _add(self, keys: list[str], prompts: dict[str, Sequence[str]]) -> None:
    groups = [list(prompts[key]) for key in keys]
    rows = labels.text_bank(self._encoder, _filled(groups), self._mesh)
    self._rows |= zip(keys, rows[: len(keys)], strict=True)

  def _key(self, prompts: Sequence[str]) -> str:
    text = json.dumps([self._revision, *prompts])
    return hashlib.sha256(text.encode()).hexdigest()

  def _read(self) -> dict[str, np.ndarray]:
    try:
      with self._path.open("rb") as file, np.load(file) as arrays:
        keys, rows = arrays["keys"], arrays["rows"]
      if keys.ndim != 1 or keys.dtype.kind != "U" or not _are_unit(rows):
        raise ValueError("it does not hold texts with their embeddings")
      return dict(zip(keys.tolist(), rows, strict=True))
    except FileNotFoundError:
      return {}
    except Exception as error:  # numpy and zipfile raise nearly anything
      logging.warning("%s cannot be read and is made anew: %s", FILE, error)
      return {}

  def _write(self) -> None:
    keys, rows = np.array(list(self._rows)), np.stack([*self._rows.values()])
    try:
      with atomic.replacing(self._path) as path:
        np.savez(path, keys=keys, rows=rows)
    except OSError as error:
      logging.warning("%s is not kept: %s", self._path, error)


def _are_unit(rows: np.ndarray) -> bool:
  """Whether `rows` is float32 [n, E] with rows of unit length."""
  if rows.ndim != 2 or rows.dtype != np.float32:
    return False
  return bool((abs(np.linalg.norm(rows, axis=1) - 1) < 1e-3).all())


def _filled(groups: list[list[str]]) -> list[list[str]]:
  """Pads the list to a power of two: few programs for many lists."""
  count = sum(map(len, groups))
  wanted = max(_SMALLEST, 1 << (count - 1).bit_length())
  return groups + [groups[0][:1]] * (wanted - count)
