"""The report of a folder's check: faults, notes, counts and facts.

It also says which parts of a folder equal the SWiG release, by the sha256 over
names, one a line, of the release's index files, frames and lists of images
(https://github.com/allenai/swig).
"""

import collections
import dataclasses
import json
import pathlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any, TextIO

from input_pipeline import boxes
from input_pipeline.io.findings import Finding
from input_pipeline.ov_swig import layout, record_conventions, vocabulary
from input_pipeline.ov_swig.layout import SPLITS, Layout
from input_pipeline.ov_swig.record_files import Row, Rows
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from input_pipeline.ov_swig.splits import groups, leaks
from input_pipeline.ov_swig.splits.groups import names_digest
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import GROUPS

_SHOWN = 5  # examples of each kind


@dataclasses.dataclass
class Report:
  """The content of a folder, and its faults.

  Attributes:
    folder: its path.
    facts: vocabulary, source, split file, index files, checksums, by name.
    images: split -> group -> number of images, without training images of
      unseen verbs.
    per_verb: split -> verb -> number of images, of the same images.
    problems: faults that prevent a build or spoil its results.
    notes: what is allowed but worth knowing, by kind.
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
    """Adds a note.

    Args:
      kind: what it is about, as a heading.
      text: the particular case.
      row: the record, if it is about one.
      role: the role, if it is about one.
    """
    where = {} if row is None else row.where()
    notes = self.notes.setdefault(kind, [])
    notes.append(Finding(kind, text, **where, role=role))

  def as_json(self) -> str:
    """The whole report as JSON."""
    content = dataclasses.asdict(self) | {"folder": str(self.folder)}
    return json.dumps(content, indent=1) + "\n"

  def show(self, *, limit: int = _SHOWN, out: TextIO | None = None) -> None:
    """Prints the report, `limit` examples of each kind."""
    lines = [*self._head(), *self._counts()]
    for kind, notes in self.notes.items():
      lines.append(f"note: {len(notes)} {kind}: {_few(notes, limit)}")
    kinds = collections.Counter(problem.kind for problem in self.problems)
    for kind, number in kinds.items():
      problems = [p for p in self.problems if p.kind == kind]
      lines += [f"problem: {problem.text}" for problem in problems[:limit]]
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
      f"{name}: {_index_file(comparison)}"
      for name, comparison in facts["index_files"].items()
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
    for split, digest in self.facts.get("image_checksums", {}).items():
      lines.append(
        f"{split:<6} {digest['images']} images read, sha256 of all "
        f"{digest['sha256'][:12]}"
      )
    return lines


def _index_file(comparison: dict[str, Any]) -> str:
  if not comparison["given"]:
    return "absent, derived"
  if comparison["same_numbers"]:
    return "read, as it would be derived"
  if comparison["same_names"]:
    return "read, the derived names in another order (those are sorted)"
  return (
    f"read, another list than derived: {comparison['only_given']} names only "
    f"in the file ({comparison['only_given_of_unseen_verbs']} are nouns of "
    "training images of unseen verbs alone), "
    f"{comparison['only_derived']} only derived"
  )


def _few(notes: list[Finding], limit: int) -> str:
  """The commonest texts, with their counts and one place of each."""
  first: dict[str, Finding] = {}
  for item in notes:
    first.setdefault(item.text, item)
  common = collections.Counter(item.text for item in notes).most_common(limit)
  texts = []
  for text, number in common:
    item = first[text]
    where = [item.image, item.role and f"role {item.role!r}"]
    where = ", ".join(part for part in where if part)
    times = f" {number} times" if number > 1 else ""
    texts.append(f"{text}{times} ({where})" if where else f"{text}{times}")
  return "; ".join(texts) + ("; ..." if len(first) > limit else "")


_SPLITS = {  # sorted image names
  "train": "41dcdee46d192e2e08f2f9738f4c27f2a5d79dafcbf28f6ce9b89dba686c676a",
  "dev": "a666a10f4afad244c7f4711f585c0e3147c5bbb4b8f2edcf78e1c99579f289b2",
  "test": "0e75a893f703011f494e8d81e8570340cbb835a72dca61fba4aa7a47c8c3bac8",
}
_VOCABULARY = {  # sorted names; the order of index files is compared elsewhere
  "verbs": "d1d428fc6ddaa633c3fb7ea7ede7f5ed66814d5af5e1913530163835a36ac434",
  "roles": "ecb740ce0e0b1a9dfb847e9bb6da2772ac107486c52a289833b210295ea6da14",
  "nouns": "ca3f5347c1e42b371fa776c7541c51c55c7506609b778dcf5cc13ecbffbb7fff",
  # "jumping agent destination ...": a verb and its sorted roles
  "frames": "347a2d18b4f491d92a03c8b04aaed7a59d90c6be7e9770efb17408873dc482b6",
}


def compare(
  words: Vocabulary, images: Mapping[str, Iterable[str]]
) -> dict[str, bool]:
  """Which parts of a folder equal the SWiG release.

  Args:
    words: the folder's vocabulary.
    images: names of all images by split, including those of unseen verbs.

  Returns:
    Whether 'verbs', 'roles', 'nouns', 'frames' (as sets of roles), 'train',
    'dev' and 'test' equal the release's.
  """
  frames = [
    " ".join([verb, *sorted(words.frame_roles(number))])
    for number, verb in enumerate(words.verbs)
  ]
  names_of = {
    "verbs": words.verbs,
    "roles": words.roles,
    "nouns": words.nouns,
    "frames": frames,
    **{split: images.get(split, ()) for split in SPLITS},
  }
  expected = _VOCABULARY | _SPLITS
  return {
    part: names_digest(names) == expected[part]
    for part, names in names_of.items()
  }


def add(
  report: Report,
  files: Layout,
  rows: Mapping[str, Rows],
  words: Vocabulary,
  groups: groups.VerbGroups | None,
) -> None:
  """Adds counts, notes and facts to a report.

  Args:
    report: the report.
    files, words: the folder and its vocabulary.
    rows: records by split.
    groups: the verb groups; None if they are still to be drawn.
  """
  _count(report, rows, words, groups)
  _notes_on_nouns(report, rows, words)
  _notes_on_boxes(report, rows)
  if groups is not None:
    _notes_on_leaks(report, rows["train"], words, groups)
  _facts(report, files, words, groups, rows)


def _count(
  report: Report,
  rows: Mapping[str, Rows],
  words: Vocabulary,
  groups: groups.VerbGroups | None,
) -> None:
  for split, rows_of_split in rows.items():
    verbs = collections.Counter(
      row.entry["verb"] for row in rows_of_split.values()
    )
    if groups is not None and split == "train":
      for verb in leaks.unseen_names(words, groups):
        verbs.pop(verb, None)
    report.per_verb[split] = {verb: verbs[verb] for verb in words.verbs}
    by_group = dict.fromkeys(GROUPS if groups is not None else ("images",), 0)
    for verb, count in verbs.items():
      number = words.verb_index[verb]
      group = "images" if groups is None else GROUPS[groups.groups[number]]
      by_group[group] += count
    report.images[split] = by_group


def _notes_on_nouns(
  report: Report, rows: Mapping[str, Rows], words: Vocabulary
) -> None:
  for split, rows_of_split in rows.items():
    for row in rows_of_split.values():
      for frame in vocabulary.objects(row.entry.get("frames")):
        for role, noun in frame.items():
          if isinstance(noun, str) and record_conventions.is_unlisted(
            noun, words
          ):
            report.note(
              f"nouns out of the vocabulary, {split}", noun, row, role
            )
        verb = words.verb_index[row.entry["verb"]]
        for role in words.frame_roles(verb):
          if role not in frame:
            report.note(
              "roles an annotator left out", "taken as blank", row, role
            )


def _notes_on_boxes(report: Report, rows: Mapping[str, Rows]) -> None:
  for rows_of_split in rows.values():
    for row in rows_of_split.values():
      given = row.entry.get("bb")
      for role, box in given.items() if isinstance(given, dict) else ():
        if box and boxes.is_absent(box) and tuple(box) != boxes.ABSENT:
          report.note(
            "boxes whose first number is -1, taken as none", str(box), row, role
          )


def _notes_on_leaks(
  report: Report, train: Rows, words: Vocabulary, groups: groups.VerbGroups
) -> None:
  unseen = leaks.unseen_names(words, groups)
  finder = leaks.NameFinder(unseen)
  verbs = set(unseen)
  for row in train.values():
    if row.entry["verb"] in verbs:
      report.note(
        "training images of unseen verbs, left out", row.entry["verb"], row
      )
      continue
    texts = [row.entry.get(key) for key in RATIONALE_KEYS]
    if any(texts) and not all(texts):
      lacking = (k for k, t in zip(RATIONALE_KEYS, texts, strict=True) if not t)
      report.note("rationales, some of them empty", ", ".join(lacking), row)
    named = {n for t in texts if isinstance(t, str) for n in finder.find(t)}
    if named:
      report.note(
        "rationales that name unseen verbs, withheld",
        ", ".join(sorted(named)),
        row,
      )
  trained = {row.entry["verb"] for row in train.values()}
  for verb in words.verbs:
    if verb not in verbs and verb not in trained:
      report.note("seen or rare verbs without a training image", verb)


def _facts(
  report: Report,
  files: Layout,
  words: Vocabulary,
  groups: groups.VerbGroups | None,
  rows: Mapping[str, Rows],
) -> None:
  unseen = set() if groups is None else set(leaks.unseen_names(words, groups))
  report.facts |= {
    "source": files.source,
    "verbs": len(words.verbs),
    "roles": len(words.roles),
    "nouns": len(words.nouns),
    "fingerprint": files.fingerprint(),
    "groups": None if groups is None else groups.counts,
    "groups_sha256": None if groups is None else groups.sha256,
    "index_files": _index_files(files, words, rows["train"], unseen),
    "swig": compare(words, rows),
    "checksums": files.checksums(),
  }
  if groups is not None and groups.method:
    report.facts["groups_method"] = groups.method


def _index_files(
  files: Layout, words: Vocabulary, train: Rows, unseen: set[str]
) -> dict[str, dict[str, Any]]:
  """Which index files exist, and how they differ from derived ones."""
  frames = {v: words.frame_roles(i) for i, v in enumerate(words.verbs)}
  trained, left_out = set(), set()
  for row in train.values():
    nouns = left_out if row.entry["verb"] in unseen else trained
    for frame in vocabulary.objects(row.entry.get("frames")):
      nouns |= {n for n in frame.values() if n and isinstance(n, str)}
  given = {
    layout.VERB_FILE: (words.verbs, vocabulary.derived_verbs(frames)),
    layout.ROLE_FILE: (words.roles, vocabulary.derived_roles(frames)),
    layout.NOUN_FILE: (words.nouns[1:-2], tuple(sorted(trained))),
  }
  comparisons = {}
  for name, (here, derived) in given.items():
    only_given = set(here) - set(derived)
    comparisons[name] = {
      "given": (files.jsons / name).exists(),
      "same_names": set(here) == set(derived),
      "same_numbers": here == derived,
      "only_given": len(only_given),
      "only_given_of_unseen_verbs": len(only_given & left_out),
      "only_derived": len(set(derived) - set(here)),
    }
  return comparisons
