"""docs/reliability.md and .json: the number of cases by outcome."""

import collections
import json
import pathlib
from collections.abc import Sequence

from benchmarks.hardening.judge import OUTCOMES
from benchmarks.support import performance
from input_pipeline.io import atomic

_BEGIN, _END = "<!-- begin cases -->", "<!-- end cases -->"


def write(folder: pathlib.Path, rows: Sequence[dict], command: str) -> None:
  """Writes the JSON, and the part of the page between its markers."""
  path = folder / "reliability.json"
  counts = collections.Counter(row["outcome"] for row in rows)
  content = {
    "command": command,
    "counts": {name: counts[name] for name in OUTCOMES},
    "kinds": _by_kind(rows),
    "worst_stop_seconds": _worst_stop(rows),
    "not_right": [
      {k: row[k] for k in ("case", "kind", "state", "command", "damage")}
      | {"outcome": row["outcome"], "why": row["why"]}
      for row in rows
      if row["outcome"] not in OUTCOMES[:2]
    ],
  }
  with atomic.replacing(path) as partial:
    partial.write_text(json.dumps(content, indent=1) + "\n")
  page = folder / "reliability.md"
  text = page.read_text() if page.exists() else f"{_BEGIN}\n{_END}\n"
  before, rest = text.split(_BEGIN)
  after = rest.split(_END)[1]
  text = f"{before}{_BEGIN}\n\n{markdown(rows, command)}\n{_END}{after}"
  with atomic.replacing(page) as partial:
    partial.write_text(text)


def markdown(rows: Sequence[dict], command: str) -> str:
  """The table, the slowest stop, and the cases with a bad outcome."""
  total = collections.Counter(row["outcome"] for row in rows)
  body = [
    (kind, *(str(counts.get(name, "–")) for name in OUTCOMES))
    for kind, counts in _by_kind(rows).items()
  ]
  body.append(("**in all**", *(f"**{total[name]}**" for name in OUTCOMES)))
  parts = [
    f"{len(rows)} cases of `{command}`:",
    performance.markdown(("what is hit", *OUTCOMES), body),
    "From SIGTERM or SIGINT to the end took "
    f"{_worst_stop(rows):.1f} seconds at most.",
  ]
  wrong = [row for row in rows if row["outcome"] not in OUTCOMES[:2]]
  if wrong:
    parts.append("Cases that did not end right:")
    parts.append(
      performance.markdown(
        ("case", "what is hit", "damage", "command", "from", "outcome"),
        [
          tuple(
            str(row[k]).replace("|", "/")
            for k in (
              *("case", "kind", "damage", "command", "state", "outcome"),
            )
          )
          for row in wrong
        ],
      )
    )
  return "\n\n".join(part.strip() for part in parts) + "\n"


def _by_kind(rows: Sequence[dict]) -> dict[str, dict[str, int]]:
  counts_of: dict[str, collections.Counter] = {}
  for row in rows:
    counts = counts_of.setdefault(row["kind"], collections.Counter())
    counts[row["outcome"]] += 1
  return {
    kind: dict(counts_of[kind]) for kind in sorted(counts_of, key=str.lower)
  }


def _worst_stop(rows: Sequence[dict]) -> float:
  """The most seconds from a signal that can be caught to the end."""
  return max(
    (
      row["stop_seconds"]
      for row in rows
      if row.get("killed") and row["kind"] != "SIGKILL"
    ),
    default=0.0,
  )
