"""Makes a split of a folder into seen, rare and unseen verbs.

  python -m input_pipeline.split_maker DIR [--method=random|frequency|list]
    [--unseen=N|FILE] [--rare=N|FILE] [--seed=S] [--replace]

Reads only the JSON files (no image) and writes SWiG_jsons/ov_splits.json and
ov_splits.md, a page that describes the split. The reader leaves out training
images of unseen verbs; dev images of unseen verbs do not select a model.
"""

import argparse
import contextlib
import pathlib
import sys

from input_pipeline.io import commands
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout, record_files, vocabulary
from input_pipeline.ov_swig.splits import folder_groups, verb_draw
from input_pipeline.ov_swig.splits import groups as groups_lib


def make(
  folder: str | pathlib.Path,
  *,
  method: str = verb_draw.RANDOM,
  unseen: str | int | None = None,
  rare: str | int | None = None,
  seed: int = 0,
  replace: bool = False,
) -> groups_lib.VerbGroups:
  """Writes the split file and its page; returns the groups.

  Args:
    folder: DIR with SWiG_jsons; images are not needed.
    method: one of `verb_draw.METHODS`.
    unseen, rare: how many, or for `list` a file with one verb a line; None:
      a sixth of the verbs, or for `list` no verb.
    seed: of `random`.
    replace: whether an existing split file may be replaced.

  Raises:
    InputError: a wrong folder or list, or a split file already exists.
  """
  files = layout.find(folder, images=False)
  path = files.jsons / layout.SPLITS_FILE
  if path.exists() and not replace:
    raise InputError(
      f"{path} exists already",
      "results belong to one split: give --replace if no run has used it",
    )
  if files.source == layout.AUTHORS:
    method = layout.AUTHORS  # These files fix the groups.
    if unseen is not None or rare is not None:
      raise InputError(
        f"{files.jsons} holds the authors' files, whose groups are given",
        "leave --unseen and --rare out, or take train_L..., ..._unseen_... and "
        "..._rare_... away to use train.json with groups of your own",
      )
  words = vocabulary.load(folder, unseen=())
  verbs_of = {
    split: record_files.verbs(files, split, words) for split in layout.SPLITS
  }
  if method == verb_draw.LIST:
    lists = verb_draw.from_lists(
      words, _listed(rare, "--rare"), _listed(unseen, "--unseen")
    )
    groups = groups_lib.of_lists(lists, words, method=method)
  elif method == layout.AUTHORS:
    groups = folder_groups.make(files, words)
  else:
    lists = groups_lib.default_draw(
      words,
      folder_groups.train_counts(verbs_of["train"], words),
      num_rare=_number(rare, "rare"),
      num_unseen=_number(unseen, "unseen"),
      seed=seed,
      method=method,
    )
    groups = groups_lib.of_lists(lists, words, method=method)
  folder_groups.write(files, words, groups, verbs_of, seed=seed)
  return groups


def _number(value: str | int | None, name: str) -> int | None:
  try:
    return None if value is None else int(value)
  except ValueError:
    raise InputError(
      f"--{name}={value} is not a number of verbs",
      f"give a number, or --method={verb_draw.LIST} with a file",
    ) from None


def _listed(value: str | int | None, flag: str) -> tuple[str, ...]:
  if value is None:
    return ()
  verbs = layout.read_lines(pathlib.Path(str(value)))
  if not verbs:
    raise InputError(
      f"{value} lists no verb",
      f"list one verb a line, or leave {flag} out for none",
    )
  return verbs


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.split_maker",
    description=__doc__.splitlines()[0],
  )
  parser.add_argument(
    "folder", metavar="DIR", help="folder with SWiG_jsons; no image is read"
  )
  parser.add_argument(
    "--method",
    choices=verb_draw.METHODS,
    default=verb_draw.RANDOM,
    help="unseen verbs: drawn at random, those with the fewest training "
    "images, or listed in a file (default: %(default)s)",
  )
  for name in ("unseen", "rare"):
    parser.add_argument(
      f"--{name}",
      metavar="N|FILE",
      help=f"how many {name} verbs (default: a sixth of all), or for 'list' a "
      "file with one verb a line (default: none)",
    )
  parser.add_argument(
    "--seed", type=int, default=0, help="for 'random' (default: %(default)s)"
  )
  parser.add_argument(
    "--replace",
    action="store_true",
    help="overwrite an existing split file (default: refuse)",
  )
  given = vars(parser.parse_args(arguments))
  folder = given.pop("folder")
  try:
    groups = make(folder, **given)
  except InputError as error:
    with contextlib.suppress(BrokenPipeError):
      print(f"problem: {error}", file=sys.stderr)
    return 1
  path = layout.jsons_folder(folder) / layout.SPLITS_FILE
  print(f"{path}: {groups.counts}, sha256 {groups.sha256[:12]}")
  print(f"{path.with_suffix('.md')}: a description of the split")
  return 0


if __name__ == "__main__":
  commands.start(main)
