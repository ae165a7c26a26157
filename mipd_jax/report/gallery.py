"""A page of pictures with what was predicted of each: HTML alone.

Nothing is loaded but the pictures beside it, by relative links, so that the
folder can be moved, zipped or put on any web server.
"""

import dataclasses
import os
import urllib.parse
from collections.abc import Sequence

from mipd_jax.report import pages


@dataclasses.dataclass(frozen=True)
class RoleRow:
  """A role with its nouns and their probabilities, the best first."""

  role: str
  nouns: Sequence[tuple[str, float]]
  box: bool


@dataclasses.dataclass(frozen=True)
class Entry:
  """One picture.

  Attributes:
    name: of the image.
    picture: path of the drawing, relative to the page.
    size: width of the drawing and height of its picture, pixels: the legend
      below is left out on the page, which has all of it in words.
    sentence: what is said of it.
    verbs: with their probabilities, the best first.
    roles: of the frame, in its order.
    notes: what was done to the image.
  """

  name: str
  picture: str
  size: tuple[int, int]
  sentence: str
  verbs: Sequence[tuple[str, float]]
  roles: Sequence[RoleRow]
  notes: Sequence[str] = ()

  @property
  def shape(self) -> tuple[int, int]:
    """Width and height on the page: the thinnest strip can be seen."""
    width, height = self.size
    return width, max(height, width // 20)

  @property
  def said(self) -> str:
    """The sentence as it is written: a capital, and a stop."""
    return self.sentence[:1].upper() + self.sentence[1:] + "."

  @property
  def link(self) -> str:
    """The picture as a URL."""
    return urllib.parse.quote(self.picture)

  @property
  def file(self) -> str:
    """The image's name without its folders."""
    return self.name.replace("\\", "/").rsplit("/", 1)[-1]


def write_gallery(
  path: str | os.PathLike[str],
  entries: Sequence[Entry],
  title: str,
  about: str,
  failed: Sequence[tuple[str, str]] = (),
) -> None:
  """Writes the page, whole or not at all.

  Args:
    path: of the page; `Entry.picture` is relative to its folder.
    entries: in the order in which they are shown.
    title: of the page.
    about: a line below it.
    failed: (name, reason) of images that are not shown.
  """
  pages.write(
    path,
    pages.render(
      "predictions.html.j2",
      title=title,
      about=[about],
      entries=entries,
      failed=failed,
    ),
  )
