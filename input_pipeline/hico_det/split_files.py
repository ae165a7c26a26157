"""Writes a file that describes the training data of a zero-shot split.

  python -m input_pipeline.hico_det.split_files DIR --split=UV \\
    --dropping=pair --out=uv_pair.json

The file says which interactions are unseen, how their labels are dropped, and
how many images, pairs and labels are left, with a hash of the image names and
one of all labels, so that two people can check that they train on the same.
"""

import argparse
import hashlib
import json
import pathlib
from typing import Any

import numpy as np

from input_pipeline.hico_det import folder, splits, vocabulary
from input_pipeline.hico_det.folder import FORMS
from input_pipeline.hico_det.records import Record
from input_pipeline.hico_det.splits import DROPPING, ZeroShot
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io import atomic, commands
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.splits import groups

VERSION = 1


def training(
  records: list[Record], split: ZeroShot, dropping: str
) -> list[Record]:
  """Training records without unseen labels; empty ones are left out.

  Raises:
    InputError: an unknown way of dropping, or nothing is left.
  """
  seen = [splits.without_unseen(r, split, dropping) for r in records]
  kept = [record for record in seen if record is not None]
  if not kept:
    raise InputError(
      f"no training image has a label that split {split.name!r} leaves seen",
      "choose another split, or give more annotations",
    )
  return kept


def describe(
  records: list[Record], split: ZeroShot, dropping: str, words: Vocabulary
) -> dict[str, Any]:
  """The content of the file, as plain JSON.

  Args:
    records: all training records.
    split: which interactions are unseen.
    dropping: one of `DROPPING`.
    words: the interactions.
  """
  kept = training(records, split, dropping)
  counts = np.zeros(len(words), np.int64)
  for record in kept:
    counts += np.bincount(record.labels[:, 1], minlength=len(words))
  unseen = np.flatnonzero(split.unseen).tolist()
  untrained = np.flatnonzero(split.seen & (counts == 0)).tolist()
  return {
    "version": VERSION,
    "split": split.name,
    "source": split.source,
    "dropping": dropping,
    "classes_sha256": words.sha256,
    "sha256": split.sha256,
    "unseen": unseen,
    "unseen_names": [words.names[i] for i in unseen],
    "seen_without_training_label": [words.names[i] for i in untrained],
    "before": folder.statistics(records),
    "training": {
      **folder.statistics(kept),
      "sha256_of_names": groups.names_digest(r.name for r in kept),
      "sha256_of_labels": labels_digest(kept),
    },
  }


def labels_digest(records: list[Record]) -> str:
  """sha256 of all boxes, pairs and labels, independent of their order."""
  digest = hashlib.sha256()
  for record in sorted(records, key=lambda record: record.name):
    digest.update(f"{record.name} {len(record.labels)}\n".encode())
    rows = np.concatenate(
      [
        record.boxes[record.pairs[record.labels[:, 0]]].reshape(-1, 8),
        record.labels[:, 1:],
      ],
      axis=1,
    )
    ordered = rows[np.lexsort(rows.T)]
    digest.update(np.ascontiguousarray(ordered, "<f8").tobytes())
  return digest.hexdigest()


def main(arguments: list[str] | None = None) -> int:
  """The command line, see the top of this file."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.hico_det.split_files",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("folder", metavar="DIR")
  add("--split", required=True, help="RF-UC, NF-UC, UO, UV, ...")
  add("--dropping", choices=DROPPING, default=splits.BY_PAIR)
  add("--form", choices=FORMS, help="which annotations")
  add("--skip-broken", action="store_true", help="leave out unusable images")
  add("--out", metavar="FILE", required=True)
  given = parser.parse_args(arguments)
  return commands.guarded(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
  atomic.check_target(given.out, "--out")
  words = vocabulary.load(given.folder)
  split = splits.load(given.split, words, given.folder)
  layout = folder.find(given.folder, given.form)
  errors = []
  if given.skip_broken:
    records, errors = folder.read_usable_records(
      layout, "train", words, read_images=False
    )
  else:
    records = folder.read_records(layout, "train", words)
  content = describe(records, split, given.dropping, words)
  content["files"] = layout.checksums()
  content["broken"] = [error.problem for error in errors]
  groups.write_text(
    pathlib.Path(given.out), json.dumps(content, indent=1) + "\n"
  )
  left = content["training"]
  for error in errors:
    print(f"left out: {error.problem}")
  print(
    f"{given.out}: {len(content['unseen'])} unseen; {left['images']} images, "
    f"{left['pairs']} pairs, {left['labels']} labels left for training, sha256 "
    f"{left['sha256_of_labels'][:12]}"
  )
  return 0


if __name__ == "__main__":
  commands.start(main)
