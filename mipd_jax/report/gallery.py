"""A page of pictures with what was predicted of each: HTML alone.

Nothing is loaded but the pictures beside it, by relative links, so that the
folder can be moved, zipped or put on any web server.
"""

import dataclasses
import os
import urllib.parse
from collections.abc import Sequence

from input_pipeline import atomic
from mipd_jax.report import annotated, style
from mipd_jax.report.html_page import text

# Names of CSS -> the colours that every picture shares.
_COLOURS = {
  "ink": style.INK,
  "paper": style.PAPER,
  "faint": style.FAINT,
  "card": style.CARD,
  "wrong": style.WRONG,
  "rule": style.RULE,
}
_ROOT = "".join(f"--{name}: {value}; " for name, value in _COLOURS.items())
_STYLE = (
  f":root {{ {_ROOT}}}"
  + """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem; max-width: 80rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.45 system-ui, sans-serif; }
h1 { font-size: 1.3rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
p { margin: .25rem 0; }
.faint { color: var(--faint); overflow-wrap: anywhere; }
.failed { background: var(--card); border-left: .3rem solid var(--wrong);
  padding: .5rem .75rem; margin: 1rem 0; overflow-wrap: anywhere; }
main { display: grid; gap: 1rem; align-items: start; margin-top: 1rem;
  grid-template-columns: repeat(auto-fill, minmax(min(22rem, 100%), 1fr)); }
figure { margin: 0; background: var(--card); border: 1px solid var(--rule);
  border-radius: .6rem; overflow: hidden; min-width: 0; }
figure img { display: block; width: 100%; height: auto; object-fit: cover;
  object-position: top; }
figcaption { padding: .6rem .8rem .8rem; overflow-wrap: anywhere; }
.said { font-weight: 600; }
table { border-collapse: collapse; width: 100%; margin-top: .4rem; }
td { padding: .15rem .5rem .15rem 0; vertical-align: top; }
.chip { display: inline-block; min-width: 1.4em; text-align: center;
  border: 1px solid #000; color: #000; font-weight: 700; font-size: .85em; }
"""
)


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
  parts = [
    "<!DOCTYPE html>",
    '<html lang="en"><head><meta charset="utf-8">',
    '<meta name="viewport" content="width=device-width, initial-scale=1">',
    '<link rel="icon" href="data:,">',
    f"<title>{text(title)}</title><style>{_STYLE}</style></head><body>",
    f"<h1>{text(title)}</h1>",
    f'<p class="faint">{text(about)}</p>',
    *(_failed(failed) if failed else ()),
    "<main>",
    *map(_figure, entries),
    "</main></body></html>",
  ]
  with atomic.replacing(path) as partial:
    partial.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _failed(failed: Sequence[tuple[str, str]]) -> list[str]:
  rows = [f"<p><b>{text(name)}</b>: {text(why)}</p>" for name, why in failed]
  many = "1 image" if len(failed) == 1 else f"{len(failed)} images"
  return [
    f'<section class="failed"><p>{many} could not be read:</p>',
    *rows,
    "</section>",
  ]


def _figure(entry: Entry) -> str:
  width, height = entry.size
  height = max(height, width // 20)  # the thinnest strip can be seen
  said = entry.sentence[:1].upper() + entry.sentence[1:] + "."
  rows = "".join(_row(i, role) for i, role in enumerate(entry.roles))
  notes = f" ({'; '.join(entry.notes)})" if entry.notes else ""
  name = entry.name.replace("\\", "/").rsplit("/", 1)[-1]
  link = urllib.parse.quote(entry.picture)
  return f"""<figure>
<a href="{link}"><img src="{link}" width="{width}" height="{height}"
 style="aspect-ratio:{width}/{height}" loading="lazy" alt="{text(said)}"></a>
<figcaption><p class="said">{text(said)}</p>
<p>{_shares(entry.verbs)}</p>
<table>{rows}</table>
<p class="faint" title="{text(entry.name)}">{text(name + notes)}</p>
</figcaption></figure>"""


def _row(position: int, role: RoleRow) -> str:
  chip = (
    f'<span class="chip" style="background:{annotated.colour(position)}">'
    f"{position + 1}</span>"
  )
  box = "" if role.box else ' <span class="faint">no box</span>'
  return (
    f"<tr><td>{chip}</td><td>{text(role.role)}{box}</td>"
    f"<td>{_shares(role.nouns)}</td></tr>"
  )


def _shares(guesses: Sequence[tuple[str, float]]) -> str:
  """The best one stands out."""
  words = [
    f"{text(word or 'nothing')}&nbsp;{share:.0%}" for word, share in guesses
  ]
  if not words:
    return ""
  rest = f' <span class="faint">{", ".join(words[1:])}</span>'
  return f"<b>{words[0]}</b>{rest if words[1:] else ''}"
