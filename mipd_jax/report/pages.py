"""Web pages from the templates beside this file.

A report is one file: it needs no network, no script and no other file. A
gallery of predictions loads only the pictures beside it, by relative links, so
that its folder can be moved, zipped or put on any web server. All values of a
template are text: only a template, and an SVG that a template marks `safe`, is
markup.
"""

import dataclasses
import functools
import os
import re
import urllib.parse
from collections.abc import Sequence
from typing import Any

import jinja2

from input_pipeline.io import atomic
from mipd_jax.report import style

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def plain(value: object) -> str:
  """Any value as text for a page.

  Control characters, and bytes of a file name that are not UTF-8, become
  escapes.
  """
  text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
  return _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", text)


def render(template: str, **values: Any) -> str:
  """A page as text.

  Args:
    template: its name, such as "report.html.j2".
    **values: the template's variables.

  Raises:
    jinja2.UndefinedError: the template has another variable.
  """
  return _templates().get_template(template).render(values)


def fragment(template: str, macro: str, **values: Any) -> str:
  """A part for another page: the output of one macro of a template."""
  module = _templates().get_template(template).module
  return str(getattr(module, macro)(**values))


def write(path: str | os.PathLike[str], page: str) -> None:
  """Writes a page, whole or not at all."""
  with atomic.replacing(path) as partial:
    partial.write_text(page, encoding="utf-8")


@functools.cache
def _templates() -> jinja2.Environment:
  environment = jinja2.Environment(
    loader=jinja2.PackageLoader("mipd_jax.report"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    finalize=_shown,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
  )
  environment.globals.update(
    light=style.LIGHT,
    dark=style.DARK,
    pills=style.GROUP_COLOURS,
    role_colour=style.role_colour,
  )
  environment.filters.update(
    plain=plain,
    percent="{:.0%}".format,
    tenth="{:.1f}".format,
  )
  return environment


def _shown(value: Any) -> Any:
  """A value as text; markup of our own templates stays markup."""
  return value if hasattr(value, "__html__") else plain(value)


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
    size: width of the drawing and height of its picture, pixels; the page
      leaves out the legend below, whose content it has in words.
    sentence: of the prediction.
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
    """Width and height on the page, where the thinnest strip is visible."""
    width, height = self.size
    return width, max(height, width // 20)

  @property
  def said(self) -> str:
    """The sentence with a capital and a full stop."""
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
    entries: in the order of the page.
    title: of the page.
    about: a line below it.
    failed: (name, reason) of images that are not shown.
  """
  write(
    path,
    render(
      "predictions.html.j2",
      title=title,
      about=[about],
      entries=entries,
      failed=failed,
    ),
  )
