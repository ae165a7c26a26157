"""A web page that needs nothing but itself: style, sections, tables, text.

No network, no script. Everything that is put in passes `text`, or is markup
of these modules. Wide tables scroll in their own box, so that the page itself
is as wide as a telephone.
"""

import dataclasses
import html
import re
from collections.abc import Iterable, Sequence

from mipd_jax.report import style

_LIGHT = {
  "ink": style.INK,
  "faint": style.FAINT,
  "rule": style.RULE,
  "paper": style.PAPER,
  "card": style.CARD,
  "right": style.RIGHT,
  "wrong": style.WRONG,
  **style.GROUP_COLOURS,
}
# The same meanings on a dark ground; contrast of 4.5 and more for text.
_DARK = {
  "ink": "#E6EAEE",
  "faint": "#9BA5AF",
  "rule": "#3A424B",
  "paper": "#14181C",
  "card": "#1D2329",
  "right": "#4FD0A5",
  "wrong": "#FF9166",
  "seen": "#56B4E9",
  "rare": "#E69F00",
  "unseen": "#E3A0C6",
  "all": "#C3CAD1",
}


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def _variables(colours: dict[str, str]) -> str:
  return " ".join(f"--{name}: {value};" for name, value in colours.items())


_STYLE = (
  f":root {{ color-scheme: light dark; {_variables(_LIGHT)} }}\n"
  "@media (prefers-color-scheme: dark) {\n"
  f"  :root {{ {_variables(_DARK)} }}\n"
  "}\n"
  + """* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-padding-top: .5rem; }
body { margin: 0 auto; padding: 1rem; max-width: 76rem; color: var(--ink);
  background: var(--paper); font: 1rem/1.5 system-ui, sans-serif;
  overflow-wrap: anywhere; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 .25rem; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; padding-top: .75rem;
  border-top: 1px solid var(--rule); }
h3 { font-size: 1.02rem; margin: 1.4rem 0 .4rem; }
p { margin: .4rem 0; max-width: 46rem; }
a { color: inherit; }
nav { display: flex; flex-wrap: wrap; gap: .3rem .9rem; margin: .75rem 0; }
.faint { color: var(--faint); }
.right { color: var(--right); } .wrong { color: var(--wrong); }
.scroll { overflow-x: auto; width: fit-content; max-width: 100%;
  border: 1px solid var(--rule); border-radius: .5rem; background: var(--card);
  margin: .4rem 0; }
table { border-collapse: collapse; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
.scroll > table { min-width: 100%; }
.scroll th, .scroll td { white-space: nowrap; }
th, td { padding: .3rem .6rem; text-align: left; vertical-align: top; }
th { color: var(--faint); font-weight: 600; }
.number { text-align: right; }
tbody tr + tr > * { border-top: 1px solid var(--rule); }
.panels { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(26rem, 100%), 1fr)); }
figure { margin: 0; min-width: 0; max-width: 40rem; background: var(--card);
  border: 1px solid var(--rule); border-radius: .6rem; padding: .6rem; }
figure svg { display: block; width: 100%; height: auto; }
figcaption { font-size: .9rem; padding: .2rem .3rem 0; }
.axis { stroke: var(--rule); } .grid { stroke: var(--rule);
  stroke-dasharray: 2 4; } .ideal { stroke: var(--faint);
  stroke-dasharray: 5 4; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; }
svg text.small { fill: var(--faint); font-size: 11px; }
.seen { --c: var(--seen); } .rare { --c: var(--rare); }
.unseen { --c: var(--unseen); } .all { --c: var(--all); }
.fill { fill: var(--c); } .line { stroke: var(--c); fill: none; }
.pill { border: 2px solid var(--c); border-radius: 1rem; padding: 0 .5rem;
  font-size: .85rem; white-space: nowrap; }
.cards { display: grid; gap: 1rem; align-items: start;
  grid-template-columns: repeat(auto-fill, minmax(min(21rem, 100%), 1fr)); }
.card { background: var(--card); border: 1px solid var(--rule); min-width: 0;
  border-radius: .6rem; overflow: hidden; }
.card > svg { display: block; width: 100%; height: auto; max-height: 26rem;
  background: #000; }
.card > div { padding: .6rem .8rem .8rem; }
.card p { margin: .2rem 0; }
.card table { width: 100%; margin: .4rem 0; }
.card th, .card td { padding: .2rem .5rem .2rem 0; }
.card td:nth-child(2) { min-width: 6.2em; }
.card td span { white-space: nowrap; }
.verb { display: flex; flex-wrap: wrap; gap: .1rem .5rem;
  align-items: baseline; justify-content: space-between; }
.chip { display: inline-block; min-width: 1.4em; text-align: center;
  border: 1px solid #000; color: #000; font-weight: 700; font-size: .85em; }
dl { margin: .5rem 0 0; font-size: .93rem; } dt { color: var(--faint); }
dd { margin: 0 0 .4rem; }
summary { cursor: pointer; }
"""
)


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of the page: an id for links, a title, and markup."""

  id: str
  title: str
  body: str


@dataclasses.dataclass(frozen=True)
class Markup:
  """A table's cell that is markup already."""

  value: str


def page(title: str, about: Sequence[str], sections: Sequence[Section]) -> str:
  """The whole page; titles and the lines of `about` are plain text."""
  links = "".join(f'<a href="#{s.id}">{text(s.title)}</a>' for s in sections)
  lines = "".join(f'<p class="faint">{text(line)}</p>' for line in about)
  body = "\n".join(
    f'<section id="{s.id}"><h2>{text(s.title)}</h2>\n{s.body}\n</section>'
    for s in sections
  )
  return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{text(title)}</title>
<style>{_STYLE}</style></head>
<body><header><h1>{text(title)}</h1>{lines}<nav>{links}</nav></header>
<main>
{body}
</main></body></html>
"""


def text(value: object) -> str:
  """Any text as HTML that means just that text, in attributes too.

  Control characters, and bytes of a file name that are not UTF-8, stand as
  escapes: a page cannot hold them.
  """
  told = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
  told = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", told)
  return html.escape(told, quote=True)


def paragraph(value: str, kind: str = "") -> str:
  """Plain text as a paragraph."""
  mark = f' class="{kind}"' if kind else ""
  return f"<p{mark}>{text(value)}</p>"


def table(
  header: Sequence[str],
  rows: Iterable[Sequence[str | Markup]],
  words: int = 1,
  name: str = "",
) -> str:
  """A table in a box of its own that scrolls where it is too wide.

  Args:
    header: names of the columns.
    rows: cells, as text or as markup.
    words: so many columns are words, on the left; the others are numbers.
    name: says what the box is, to readers that do not see it.
  """

  def cells(values, tag):
    return "".join(
      f"<{tag}{_place(i, words)}>{_cell(v)}</{tag}>"
      for i, v in enumerate(values)
    )

  body = "".join(f"<tr>{cells(row, 'td')}</tr>" for row in rows)
  return (
    f'<div class="scroll" tabindex="0" role="region" aria-label="{text(name)}">'
    f"<table><thead><tr>{cells(header, 'th')}</tr></thead>"
    f"<tbody>{body}</tbody></table></div>"
  )


def pill(group: str) -> Markup:
  """A group of verbs in its colour."""
  return Markup(f'<span class="pill {text(group)}">{text(group)}</span>')


def _place(column: int, words: int) -> str:
  return "" if column < words else ' class="number"'


def _cell(value: str | Markup) -> str:
  return value.value if isinstance(value, Markup) else text(value)
