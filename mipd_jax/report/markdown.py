"""Any text as Markdown that means just that text."""

import re

# What starts markup wherever it stands; "_" only at the edge of a word.
_MARKS = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")


def cell(value: object) -> str:
  """A text for a heading, a table's cell or the middle of a line.

  Line ends and control characters become spaces, so that it ends no cell and
  starts no line; HTML and markup of its own stand as they were written.
  """
  told = "".join(c if c.isprintable() else " " for c in str(value))
  told = _MARKS.sub(lambda found: f"\\{found[0]}", " ".join(told.split()))
  return told.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
