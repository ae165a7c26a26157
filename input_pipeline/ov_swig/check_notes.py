"""Counts, notes and facts of a check: what is no error and worth knowing."""

import collections
from collections.abc import Mapping
from typing import Any

from input_pipeline import boxes
from input_pipeline.ov_swig import indices, known, layout, record_conventions
from input_pipeline.ov_swig.check_report import Report
from input_pipeline.ov_swig.layout import Layout
from input_pipeline.ov_swig.record_files import Rows
from input_pipeline.ov_swig.records import RATIONALE_KEYS
from input_pipeline.ov_swig.splits import groups, leaks
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import GROUPS


def add(
  report: Report,
  files: Layout,
  rows: Mapping[str, Rows],
  words: Vocabulary,
  groups: groups.VerbGroups | None,
) -> None:
  """Adds all of them to a report.

  Args:
    report: where to.
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
  for split, found in rows.items():
    verbs = collections.Counter(row.entry["verb"] for row in found.values())
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
  for split, found in rows.items():
    for row in found.values():
      for frame in indices.objects(row.entry.get("frames")):
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
  for found in rows.values():
    for row in found.values():
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
      report.note("rationales of which some are empty", ", ".join(lacking), row)
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
    "swig": known.compare(words, rows),
    "checksums": files.checksums(),
  }
  if groups is not None and groups.method:
    report.facts["groups_method"] = groups.method


def _index_files(
  files: Layout, words: Vocabulary, train: Rows, unseen: set[str]
) -> dict[str, dict[str, Any]]:
  """Which index files are there, and how they differ from derived ones."""
  frames = {v: words.frame_roles(i) for i, v in enumerate(words.verbs)}
  trained, left_out = set(), set()
  for row in train.values():
    nouns = left_out if row.entry["verb"] in unseen else trained
    for frame in indices.objects(row.entry.get("frames")):
      nouns |= {n for n in frame.values() if n and isinstance(n, str)}
  given = {
    layout.VERB_FILE: (words.verbs, indices.derived_verbs(frames)),
    layout.ROLE_FILE: (words.roles, indices.derived_roles(frames)),
    layout.NOUN_FILE: (words.nouns[1:-2], tuple(sorted(trained))),
  }
  found = {}
  for name, (here, derived) in given.items():
    only_given = set(here) - set(derived)
    found[name] = {
      "given": (files.jsons / name).exists(),
      "same_names": set(here) == set(derived),
      "same_numbers": here == derived,
      "only_given": len(only_given),
      "only_given_of_unseen_verbs": len(only_given & left_out),
      "only_derived": len(set(derived) - set(here)),
    }
  return found
