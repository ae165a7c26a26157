"""Scores any model's predictions on HICO-DET; needs numpy alone.

  python -m mipd_jax.metrics.hico_det --predictions=P.json \\
    --annotations=test_hico.json --split=UV

Protocol (Chao et al., Learning to Detect Human-Object Interactions, WACV
2018, and its Matlab code): detections of an interaction are pooled over all
images and sorted by score; one is right where both boxes overlap those of its
best annotated pair by half (IoU, the smaller of the two) and no better one
took that pair. Average precision is the 11-point one, in percent.

  full              mean over all interactions
  rare, non_rare    over those with fewer than 10 training pairs, and the rest
  unseen, seen, hm  over those of the split, and the harmonic mean of the two;
                    all are scored together, so they compete
  known_object      the same, where detections of an interaction count only in
                    images that are labelled with its object

Detections in images without any pair are wrong ones, as in the original;
--skip-empty leaves them out, as UPT and its followers do.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Iterable
from typing import Any, TextIO

from input_pipeline.hico_det import splits, vocabulary
from input_pipeline.hico_det.sources import annotations
from input_pipeline.hico_det.splits import ZeroShot
from input_pipeline.hico_det.vocabulary import Vocabulary
from input_pipeline.io import atomic, commands
from input_pipeline.io.errors import InputError
from mipd_jax.metrics import hico_det_files
from mipd_jax.metrics.hico_det_matching import Detections, Pool, Truth
from mipd_jax.metrics.hico_det_scores import NAMES, summary


def score(
  detected: Iterable[Detections],
  truth: Truth,
  words: Vocabulary,
  split: ZeroShot,
  *,
  skip_empty: bool = False,
) -> dict[str, Any]:
  """All scores in percent, with the precision of each interaction.

  Args:
    detected: detections image by image.
    truth: the annotations.
    words: the interactions.
    split: which of them are unseen.
    skip_empty: whether detections in images without pairs are left out.

  Returns:
    `hico_det_scores.SCORES` by name, 'known_object' with the same, None where
    a group is empty; 'images', 'predicted_images', 'without_pairs':
    interactions without an annotated pair, whose precision is 0;
    'by_interaction': two lists.
  """
  pool = Pool(truth)
  for item in detected:
    if not skip_empty or not len(item.image) or truth.has_pairs[item.image[0]]:
      pool.add(item)
  default, known_object = pool.average_precisions()
  return {
    **summary(default, words, split),
    "known_object": summary(known_object, words, split),
    "images": len(truth.names),
    "predicted_images": pool.images,
    "without_pairs": int((truth.counts == 0).sum()),
    "by_interaction": {
      "default": (100 * default).tolist(),
      "known_object": (100 * known_object).tolist(),
    },
  }


def _print_table(scores: dict[str, Any], out: TextIO) -> None:
  """Prints the figures as a table; the JSON line follows."""
  print(f"{scores['images']} images", file=out)
  print(f"{'':14}" + "".join(f"{name:>10}" for name in NAMES), file=out)
  for name, part in (
    ("default", scores),
    ("known object", scores["known_object"]),
  ):
    cells = ("" if part[g] is None else f"{part[g]:.2f}" for g in NAMES)
    print(f"{name:14}" + "".join(f"{cell:>10}" for cell in cells), file=out)


def main(arguments: list[str] | None = None) -> int:
  """Command line; returns the exit status."""
  given = _parser().parse_args(arguments)
  return commands.guarded(lambda: _run(given))


def _run(given: argparse.Namespace) -> int:
  if given.by_interaction:
    atomic.check_target(given.by_interaction, "--by-interaction")
  words = vocabulary.load(given.classes)
  split = splits.load(given.split, words, given.splits)
  truth = hico_det_files.read_truth(given.annotations, words, given.box_base)
  notes = []
  if given.box_base is None and not annotations.is_published(given.annotations):
    notes.append(
      f"the boxes of {given.annotations} are taken to count pixels from 1; "
      "say --box-base=0 if they count from 0, or --box-base=1"
    )
  scores = score(
    hico_det_files.read_predictions(given.predictions, truth, words, notes),
    truth,
    words,
    split,
    skip_empty=given.skip_empty,
  )
  by_interaction = scores.pop("by_interaction")
  if given.by_interaction:
    _write(given.by_interaction, by_interaction, words, split, truth)
  for note in notes:
    print(f"note: {note}", file=sys.stderr)
  _tell_what_is_odd(scores, truth, given.skip_empty)
  print(f"detector: {given.detector}; split {split.name}")
  _print_table(scores, sys.stdout)
  print(json.dumps(scores | {"split": split.name, "detector": given.detector}))
  return 0


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mipd_jax.metrics.hico_det",
    description=f"{__doc__}\n{hico_det_files.__doc__}",
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--predictions", required=True, help="JSON file")
  add("--annotations", required=True, help="JSON file, any public form")
  add(
    "--split",
    default=splits.FULL,
    help="RF-UC, NF-UC, UO, UV, ...; default: full",
  )
  add("--detector", default="not told", help="printed with the result")
  add("--skip-empty", action="store_true", help="leave empty images out")
  add(
    "--box-base",
    type=int,
    choices=(0, 1),
    help="number of the first pixel in the annotations; a list is taken to "
    "count from 1",
  )
  add("--classes", help="classes.json, if not HICO-DET's own")
  add("--splits", help="splits.json, if not the public ones")
  add("--by-interaction", metavar="FILE", help="write each one's precision")
  return parser


def _write(
  path: str,
  by_interaction: dict[str, list[float]],
  words: Vocabulary,
  split: ZeroShot,
  truth: Truth,
) -> None:
  rows = [
    {
      "interaction": name,
      "unseen": bool(split.unseen[row]),
      "rare": bool(words.rare[row]),
      "pairs": int(truth.counts[row]),
      **{key: precisions[row] for key, precisions in by_interaction.items()},
    }
    for row, name in enumerate(words.names)
  ]
  try:
    with atomic.replacing(pathlib.Path(path)) as temporary:
      temporary.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")
  except OSError as error:
    raise InputError(
      f"cannot write {path}: {error.strerror}", "give another --by-interaction"
    ) from None


def _tell_what_is_odd(
  scores: dict[str, Any], truth: Truth, skip_empty: bool
) -> None:
  lacking = scores["images"] - scores["predicted_images"]
  empty = int((~truth.has_pairs).sum())
  if lacking and not skip_empty:
    print(
      f"note: {lacking} of {scores['images']} annotated images have no entry "
      "in the predictions",
      file=sys.stderr,
    )
  if empty:
    what = "left out" if skip_empty else "detections there count as wrong"
    print(f"note: {empty} images have no pair; {what}", file=sys.stderr)
  if scores["without_pairs"]:
    print(
      f"note: {scores['without_pairs']} interactions have no annotated pair; "
      "their precision counts as 0, as in the original code",
      file=sys.stderr,
    )


if __name__ == "__main__":
  commands.start(main)
