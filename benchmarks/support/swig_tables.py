"""The tables of docs/ov_swig.md, from docs/ov_swig.json."""

import re
from collections.abc import Iterable
from typing import Any

_PART = re.compile(
  r"(<!-- begin docs/ov_swig\.json -->).*?(<!-- end docs/ov_swig\.json -->)",
  re.DOTALL,
)


def markdown(measured: dict[str, Any]) -> str:
  """The part of the data card with the figures."""
  total = sum(measured["images"].values())
  tiny = measured["streams"]["tiny"]
  parts = [
    f"{total:,} records with real names, frames and nouns and tiny pictures "
    f"({tiny['kb_per_image']:.1f} kB), on {measured['cores']} cores "
    f"(`{measured['command']}`).",
    _rows(
      ["what", "time", "peak memory"],
      (
        [name, _seconds(stage["seconds"]), _megabytes(stage.get("peak_mb"))]
        for name, stage in measured["stages"].items()
        if not name.startswith("stream")
      ),
    ),
    _rows(
      ["stream", "images/s", "MB/s"],
      [
        *(
          _decoded(name, stream) for name, stream in measured["streams"].items()
        ),
        *(
          _cached(name, stream)
          for name, stream in measured["streams"].items()
          if "cached" in stream
        ),
        [
          "annotations alone",
          f"{tiny['annotations']['images_per_s']:,.0f}",
          f"{tiny['annotations']['mb_per_s']:,.0f}",
        ],
      ],
    ),
    *(
      _need(name, stream)
      for name, stream in measured["streams"].items()
      if "need" in stream
    ),
    _rows(
      ["split", "seen", "rare", "unseen", "verbs", "roles with a box"],
      (
        [
          split,
          *(f"{n:,}" for n in numbers["by_group"].values()),
          str(numbers["verbs"]),
          f"{100 * numbers['grounded']:.0f} %",
        ]
        for split, numbers in measured["statistics"].items()
      ),
    ),
    _rows(
      [
        "index file",
        "the numbers that are derived",
        "names that are not derived",
        "of these, only in training images of unseen verbs",
      ],
      (
        [
          name,
          "yes" if row["same_numbers"] else "no",
          str(row["only_given"]),
          str(row["only_given_of_unseen_verbs"]),
        ]
        for name, row in measured["index_files"].items()
      ),
    ),
  ]
  return "\n\n".join(parts) + "\n"


def _decoded(name: str, stream: dict[str, Any]) -> list[str]:
  sizes = " and ".join(map(str, stream["sizes"]))
  decoded = stream["decoded"]
  return [
    f"decoded ({name}, {stream['kb_per_image']:.0f} kB) to {sizes} pixels",
    f"{decoded['images_per_s']:,.0f}",
    f"{decoded['pixels_mb_per_s']:,.0f} (pixels)",
  ]


def _cached(name: str, stream: dict[str, Any]) -> list[str]:
  cached = stream["cached"]
  kb = 1e3 * cached["mb_per_s"] / cached["images_per_s"]
  return [
    f"cached features ({name}, {kb:.0f} kB an image)",
    f"{cached['images_per_s']:,.0f}",
    f"{cached['mb_per_s']:,.0f}",
  ]


def _need(name: str, stream: dict[str, Any]) -> str:
  need = stream["need"]
  return (
    f"A training step on the {name} needs {need['images_per_s']:,.0f} images/s "
    f"on the same cores: cached features come {need['times']['cached']:.0f} "
    "times as fast."
  )


def filled(card: str, measured: dict[str, Any]) -> str:
  """The data card with the current figures between its markers."""
  return _PART.sub(
    lambda match: f"{match[1]}\n\n{markdown(measured)}\n{match[2]}", card
  )


def _rows(header: list[str], rows: Iterable[list[str]]) -> str:
  lines = [header, ["---"] * len(header), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _seconds(value: float) -> str:
  return f"{value:.0f} s" if value < 120 else f"{value / 60:.1f} min"


def _megabytes(value: float | None) -> str:
  return "–" if value is None else f"{value:,.0f} MB"
