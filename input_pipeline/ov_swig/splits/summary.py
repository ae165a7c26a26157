"""One page in Markdown about a split: what is in it, is it balanced."""

from collections.abc import Mapping

import numpy as np

from input_pipeline.ov_swig.layout import SPLITS, SPLITS_FILE
from input_pipeline.ov_swig.splits import split_file, verb_draw
from input_pipeline.ov_swig.splits.groups import VerbGroups
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import GROUPS, MAX_ROLES

_METHODS = {
  verb_draw.RANDOM: "unseen verbs drawn, rare ones the least frequent",
  verb_draw.FREQUENCY: "the least frequent verbs unseen, the next ones rare",
  verb_draw.LIST: "lists of verbs",
  "authors": "as listed by the authors' files",
}


def page(
  words: Vocabulary,
  groups: VerbGroups,
  verbs_of: Mapping[str, Mapping[str, str]],
  *,
  seed: int | None = None,
) -> str:
  """The page.

  Args:
    words: the vocabulary.
    groups: the split.
    verbs_of: split -> image name -> verb name, training images of unseen
      verbs included.
    seed: of a draw.
  """
  lists = groups.lists(words)
  how = _METHODS.get(groups.method, groups.method or "not said")
  drawn = "" if seed is None else f", seed {seed}"
  parts = [
    f"# The split of {SPLITS_FILE}",
    f"Chosen by: {how}{drawn}. sha256 of the lists `{groups.sha256}`.",
    _groups_table(lists, verbs_of),
    _sets_table(lists, verbs_of),
    _frames_table(words, lists),
    _roles(words, lists),
    "## Unseen verbs\n\n" + ", ".join(lists["unseen"]),
    "## Rare verbs\n\n" + ", ".join(lists["rare"]),
  ]
  return "\n\n".join(parts) + "\n"


def _groups_table(
  lists: Mapping[str, list[str]], verbs_of: Mapping[str, Mapping[str, str]]
) -> str:
  rows = [
    "| group | verbs | train images (each verb) | dev | test |",
    "|---|---|---|---|---|",
  ]
  for group in GROUPS:
    counts = {
      split: _per_verb(lists[group], verbs_of[split]) for split in SPLITS
    }
    train = counts["train"]
    span = f"{train.min()} to {train.max()}" if len(train) else "–"
    total = f"{train.sum()} ({span})"
    if group == "unseen":
      total = f"0 ({train.sum()} in the files, left out)"
    rows.append(
      f"| {group} | {len(lists[group])} | {total} | {counts['dev'].sum()} | "
      f"{counts['test'].sum()} |"
    )
  return "\n".join(rows)


def _sets_table(
  lists: Mapping[str, list[str]], verbs_of: Mapping[str, Mapping[str, str]]
) -> str:
  rows = [
    "| images that | number | sha256 of their sorted names |",
    "|---|---|---|",
  ]
  meaning = {
    "train": "training sees",
    "dev_selection": "may choose a model (dev, seen and rare)",
    "dev": "are reported for dev",
    "test": "are reported for test",
  }
  for name, found in split_file.image_sets(verbs_of, lists).items():
    rows.append(f"| {meaning[name]} | {found['images']} | {found['sha256']} |")
  return "\n".join(rows)


def _frames_table(words: Vocabulary, lists: Mapping[str, list[str]]) -> str:
  sizes = range(1, MAX_ROLES + 1)
  rows = [
    "| share of verbs by roles of the frame | "
    + " | ".join(map(str, sizes))
    + " |",
    "|---" * (len(sizes) + 1) + "|",
  ]
  for group in GROUPS:
    found = verb_draw.frame_sizes(words, lists[group])
    total = max(1, found.total())
    cells = (f"{100 * found[size] / total:.0f} %" for size in sizes)
    rows.append(f"| {group} | " + " | ".join(cells) + " |")
  return "\n".join(rows)


def _roles(words: Vocabulary, lists: Mapping[str, list[str]]) -> str:
  untrained = verb_draw.untrained_roles(words, lists)
  if not untrained:
    return "Every role of an unseen verb is a role of a trained one."
  named = ", ".join(f"{role} ({verb})" for role, verb in untrained.items())
  return (
    f"Roles that no trained verb has: {len(untrained)}, {named}. A model meets "
    "them for the first time at evaluation."
  )


def _per_verb(verbs: list[str], verb_of: Mapping[str, str]) -> np.ndarray:
  counts = dict.fromkeys(verbs, 0)
  for verb in verb_of.values():
    if verb in counts:
      counts[verb] += 1
  return np.array(list(counts.values()), int)
