"""The verb groups of a folder: read, taken from the authors' files, or made."""

from collections.abc import Mapping

import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout, record_files
from input_pipeline.ov_swig.layout import Layout
from input_pipeline.ov_swig.splits import groups as groups_lib
from input_pipeline.ov_swig.splits import split_file, summary, verb_draw
from input_pipeline.ov_swig.splits.groups import VerbGroups
from input_pipeline.ov_swig.vocabulary import Vocabulary


def find(files: Layout, words: Vocabulary) -> VerbGroups | None:
  """The groups of the split file; None where there is no file.

  Raises:
    InputError: the file is wrong, or has other groups than the authors'
      files beside it. Their training file fits no others.
  """
  groups = groups_lib.read(files.folder, words)
  if groups is None or files.source != layout.AUTHORS:
    return groups
  lists = authors_lists(record_files.listed_verbs(files, words), words)
  if split_file.digest(lists) != groups.sha256:
    listed = (path.name for paths in files.listed.values() for path in paths)
    raise InputError(
      f"{files.jsons / layout.SPLITS_FILE}: its verb lists are not those of "
      f"the authors' files beside it, {', '.join(listed)}",
      f"delete {layout.SPLITS_FILE} to have it made from these files, or take "
      "them away to use train.json with your own groups",
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

  Those of the authors' files follow from them; the rest says how to choose
  others, see `splits.default_draw`.
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
  """Verb names by group as the authors' files list them.

  A verb with images in an `..._unseen_...` file is unseen, whatever else is
  said of it: what may not be trained on is decided on the safe side. One with
  images in a `..._rare_...` file is rare, all others are seen.
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
    seed: of a draw.
  """
  lists = groups.lists(words)
  seed = seed if groups.method == verb_draw.RANDOM else None
  checksums = files.checksums()
  checksums.pop(layout.SPLITS_FILE, None)
  path = split_file.write(
    files.folder,
    lists,
    method=groups.method,
    seed=seed,
    images=split_file.image_sets(verbs_of, lists),
    files=checksums,
  )
  page = summary.page(words, groups, verbs_of, seed=seed)
  split_file.write_text(path.with_suffix(".md"), page)
