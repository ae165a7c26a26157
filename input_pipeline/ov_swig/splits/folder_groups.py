"""The verb groups of a folder, and a page in Markdown that describes them.

They are read from the split file, taken from the authors' files, or drawn.
"""

from collections.abc import Mapping

import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout, record_files
from input_pipeline.ov_swig.layout import SPLITS, SPLITS_FILE, Layout
from input_pipeline.ov_swig.splits import groups as groups_lib
from input_pipeline.ov_swig.splits import verb_draw
from input_pipeline.ov_swig.splits.groups import VerbGroups
from input_pipeline.ov_swig.vocabulary import Vocabulary
from input_pipeline.schema import GROUPS, MAX_ROLES


def find(files: Layout, words: Vocabulary) -> VerbGroups | None:
  """The groups of the split file; None if there is no file.

  Raises:
    InputError: the file is wrong, or contradicts the authors' files beside
      it, whose training file fits only their own groups.
  """
  groups = groups_lib.read(files.folder, words)
  if groups is None or files.source != layout.AUTHORS:
    return groups
  lists = authors_lists(record_files.listed_verbs(files, words), words)
  if groups_lib.digest(lists) != groups.sha256:
    listed = (path.name for paths in files.listed.values() for path in paths)
    raise InputError(
      f"{files.jsons / layout.SPLITS_FILE}: its verb lists differ from those "
      f"of the authors' files beside it, {', '.join(listed)}",
      f"delete {layout.SPLITS_FILE} to have it made from these files, or "
      "remove them to use train.json with your own groups",
    )
  return groups


def make(
  files: Layout,
  words: Vocabulary,
  *,
  num_rare: int | None = None,
  num_unseen: int | None = None,
  seed: int = 0,
  method: str = verb_draw.RANDOM,
) -> VerbGroups:
  """The groups of a folder without a split file; writes nothing.

  The authors' files fix the groups. Otherwise the other arguments say how to
  draw them, see `groups.default_draw`.
  """
  if files.source == layout.AUTHORS:
    lists = authors_lists(record_files.listed_verbs(files, words), words)
    return groups_lib.of_lists(lists, words, method=layout.AUTHORS)
  lists = groups_lib.default_draw(
    words,
    train_counts(record_files.verbs(files, "train", words), words),
    num_rare=num_rare,
    num_unseen=num_unseen,
    seed=seed,
    method=method,
  )
  return groups_lib.of_lists(lists, words, method=method)


def authors_lists(
  listed: Mapping[str, set[str]], words: Vocabulary
) -> verb_draw.Lists:
  """Verb names by group, as the authors' files list them.

  To be safe, a verb with images in an `..._unseen_...` file is unseen, even
  if another file lists it. A verb with images in a `..._rare_...` file is
  rare; all others are seen.
  """
  unseen = listed["unseen"]
  return verb_draw.from_lists(words, listed["rare"] - unseen, unseen)


def train_counts(verbs_of: Mapping[str, str], words: Vocabulary) -> np.ndarray:
  """Images of each verb, from verb names by image name: int64 [V]."""
  numbers = [words.verb_index[verb] for verb in verbs_of.values()]
  return np.bincount(np.array(numbers, int), minlength=len(words.verbs))


def write(
  files: Layout,
  words: Vocabulary,
  groups: VerbGroups,
  verbs_of: Mapping[str, Mapping[str, str]],
  *,
  seed: int | None = None,
) -> None:
  """Writes the split file and the page about it.

  Args:
    files: the folder.
    words: its vocabulary.
    groups: what to write.
    verbs_of: split -> image name -> verb name.
    seed: seed of a draw.
  """
  lists = groups.lists(words)
  seed = seed if groups.method == verb_draw.RANDOM else None
  checksums = files.checksums()
  checksums.pop(layout.SPLITS_FILE, None)
  path = groups_lib.write(
    files.folder,
    lists,
    method=groups.method,
    seed=seed,
    images=groups_lib.image_sets(verbs_of, lists),
    files=checksums,
  )
  page = summary_page(words, groups, verbs_of, seed=seed)
  groups_lib.write_text(path.with_suffix(".md"), page)


_METHODS = {
  verb_draw.RANDOM: "unseen verbs drawn, rare ones the least frequent",
  verb_draw.FREQUENCY: "the least frequent verbs unseen, the next ones rare",
  verb_draw.LIST: "lists of verbs",
  "authors": "as listed by the authors' files",
}


def summary_page(
  words: Vocabulary,
  groups: VerbGroups,
  verbs_of: Mapping[str, Mapping[str, str]],
  *,
  seed: int | None = None,
) -> str:
  """The page that describes a split.

  Args:
    words: the vocabulary.
    groups: the groups.
    verbs_of: split -> image name -> verb name, including training images of
      unseen verbs.
    seed: seed of a draw.
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
  for name, images in groups_lib.image_sets(verbs_of, lists).items():
    cells = (meaning[name], str(images["images"]), images["sha256"])
    rows.append(f"| {' | '.join(cells)} |")
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
    counts = verb_draw.frame_sizes(words, lists[group])
    total = max(1, counts.total())
    cells = (f"{100 * counts[size] / total:.0f} %" for size in sizes)
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
