"""What a check of a folder found, for people and for machines."""

import collections
import dataclasses
import json
import pathlib
import sys
from typing import Any, TextIO

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout
from input_pipeline.ov_swig.record_files import Row
from input_pipeline.ov_swig.records import RecordError

_SHOWN = 5  # of a kind


@dataclasses.dataclass(frozen=True)
class Finding:
  """One thing found, with where it was found as far as that is known."""

  kind: str
  text: str
  file: str | None = None
  image: str | None = None
  role: str | None = None

  @classmethod
  def of(cls, error: InputError, kind: str = "folder") -> "Finding":
    if isinstance(error, RecordError):
      return cls(error.kind, str(error), error.file, error.image, error.role)
    return cls(kind, str(error))


@dataclasses.dataclass
class Report:
  """What a folder holds and what is wrong with it.

  Attributes:
    folder: its path.
    facts: vocabulary, source, split file, index files, checksums, by name.
    images: split -> group -> images, training images of unseen verbs left out.
    per_verb: split -> verb -> images, the same.
    problems: what keeps the folder from being built, or spoils it.
    notes: what is allowed and worth knowing: kind -> number and examples.
  """

  folder: pathlib.Path
  facts: dict[str, Any] = dataclasses.field(default_factory=dict)
  images: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
  per_verb: dict[str, dict[str, int]] = dataclasses.field(default_factory=dict)
  problems: list[Finding] = dataclasses.field(default_factory=list)
  notes: dict[str, list[Finding]] = dataclasses.field(default_factory=dict)

  def note(
    self, kind: str, text: str, row: Row | None = None, role: str | None = None
  ) -> None:
    """Notes something about a record, or about none.

    Args:
      kind: what, as a heading.
      text: which.
      row: the record.
      role: the role, if it is about one.
    """
    where = {} if row is None else row.where()
    found = self.notes.setdefault(kind, [])
    found.append(Finding(kind, text, **where, role=role))

  def as_json(self) -> str:
    """Everything, for machines."""
    content = dataclasses.asdict(self) | {"folder": str(self.folder)}
    return json.dumps(content, indent=1) + "\n"

  def show(self, *, limit: int = _SHOWN, out: TextIO | None = None) -> None:
    """Prints the report, `limit` examples of each kind."""
    lines = [*self._head(), *self._counts()]
    for kind, found in self.notes.items():
      lines.append(f"note: {len(found)} {kind}: {_few(found, limit)}")
    kinds = collections.Counter(problem.kind for problem in self.problems)
    for kind, number in kinds.items():
      found = [p for p in self.problems if p.kind == kind]
      lines += [f"problem: {problem.text}" for problem in found[:limit]]
      if number > limit:
        lines.append(f"problem: ... and {number - limit} more ({kind})")
    print("\n".join(lines), file=out or sys.stdout)

  def _head(self) -> list[str]:
    facts = self.facts
    if not facts:
      return []
    source = {
      layout.AUTHORS: "the authors' Ov-SWiG files",
      layout.SWIG: "SWiG's files, or your own",
    }[facts["source"]]
    same = [name for name, yes in facts["swig"].items() if yes]
    other = [name for name, yes in facts["swig"].items() if not yes]
    is_swig = f"the SWiG release's: {', '.join(same) or 'nothing'}"
    if same and other:
      is_swig += f"; not its: {', '.join(other)}"
    lines = [
      f"{self.folder}: {facts['verbs']} verbs, {facts['roles']} roles, "
      f"{facts['nouns']} noun classes, fingerprint {facts['fingerprint'][:12]}",
      f"source {source}; {is_swig}",
    ]
    lines += [
      f"{name}: {_index_file(found)}"
      for name, found in facts["index_files"].items()
    ]
    if facts["groups"] is not None:
      lines.append(
        f"verbs  {facts['groups']}, sha256 {facts['groups_sha256'][:12]}"
      )
    return lines

  def _counts(self) -> list[str]:
    lines = []
    for split, by_group in self.images.items():
      counts = [n for n in self.per_verb[split].values() if n]
      line = f"{split:<6} {sum(by_group.values())} images, {by_group}"
      if counts:
        line += f"; {len(counts)} verbs with {min(counts)} to {max(counts)}"
      share = self.facts.get("out_of_vocabulary", {}).get(split, {})
      if share.get("nouns"):
        line += f"; {share['share']:.1%} of nouns out of the vocabulary"
      lines.append(line)
    for split, found in self.facts.get("image_checksums", {}).items():
      lines.append(
        f"{split:<6} {found['images']} images read, sha256 of all "
        f"{found['sha256'][:12]}"
      )
    return lines


def _index_file(found: dict[str, Any]) -> str:
  if not found["given"]:
    return "absent, derived"
  if found["same_numbers"]:
    return "read, as it would be derived"
  if found["same_names"]:
    return "read, the derived names in another order (those are sorted)"
  return (
    f"read, another list than derived: {found['only_given']} names only in "
    f"the file ({found['only_given_of_unseen_verbs']} are nouns of training "
    f"images of unseen verbs alone), {found['only_derived']} only derived"
  )


def _few(found: list[Finding], limit: int) -> str:
  """The commonest texts with their numbers and a place of each."""
  first: dict[str, Finding] = {}
  for item in found:
    first.setdefault(item.text, item)
  common = collections.Counter(item.text for item in found).most_common(limit)
  texts = []
  for text, number in common:
    item = first[text]
    where = [item.image, item.role and f"role {item.role!r}"]
    where = ", ".join(part for part in where if part)
    times = f" {number} times" if number > 1 else ""
    texts.append(f"{text}{times} ({where})" if where else f"{text}{times}")
  return "; ".join(texts) + ("; ..." if len(first) > limit else "")
