"""Updates every figure in the documents from files of real runs.

  python -m benchmarks.figures [--demo=runs/synthetic]

Copies the demo's tables and pictures to docs/, writes the demo's main table
to docs/demo_table.md, and fills README.md and docs/*.md between their
markers:

  <!-- begin docs/demo_table.md --> ... <!-- end docs/demo_table.md -->
"""

import argparse
import json
import pathlib
import re
import shutil

from input_pipeline.io import atomic
from mipd_jax.report import tables

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
_COPIES = {
  "results.md": "demo_results.md",
  "sheet.png": "demo_sheet.png",
  "frequency.png": "demo_frequency.png",
  "losses.png": "demo_losses.png",
}
_PART = re.compile(
  r"(<!-- begin (?P<name>\S+\.md) -->).*?(<!-- end (?P=name) -->)", re.DOTALL
)


def filled(document: str) -> str:
  """A document with the current content of every file it includes."""

  def content(match: re.Match) -> str:
    text = (ROOT / match["name"]).read_text().strip()
    return f"{match[1]}\n\n{text}\n\n{match[3]}"

  return _PART.sub(content, document)


def demo_table(results: dict) -> str:
  """The demo's main table in Markdown."""
  block = tables.blocks(results)[0]
  rows = [block.header, ["---"] * len(block.header), *block.rows]
  return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--demo", default="runs/synthetic")
  demo = pathlib.Path(parser.parse_args().demo)
  for source, target in _COPIES.items():
    shutil.copyfile(demo / source, DOCS / target)
  results = json.loads((demo / "results.json").read_text())
  (DOCS / "demo_table.md").write_text(demo_table(results))
  fill_documents()


def fill_documents() -> None:
  """Fills all documents with the current content of what they include."""
  for document in (ROOT / "README.md", *sorted(DOCS.glob("*.md"))):
    text = document.read_text()
    if filled(text) != text:
      with atomic.replacing(document) as path:
        path.write_text(filled(text))


if __name__ == "__main__":
  main()
