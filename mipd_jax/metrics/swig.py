"""Scores any model's predictions on SWiG; needs numpy alone.

  python -m mipd_jax.metrics.swig --predictions=P.json --annotations=test.json
    [--groups=ov_splits.json] [--variant=coformer|allenai]

Protocol (Pratt et al., Grounded Situation Recognition, ECCV 2020): the frame
that is scored is the one predicted for the true verb, and it counts where
that verb is first (top1), among the first five (top5), or always (gt).

  value       share of roles whose noun is among the three annotations
  value_all   all roles right
  grnd        share of roles with a right noun and a right grounding: a box
              that overlaps the annotated one, none predicted where there is
              none
  grnd_all    all of them

Two evaluations are published, and they differ:

  coformer    (default) that of CoFormer (Cho et al., CVPR 2022), and the one
              that training and its tables use: predicted boxes are cut to the
              image, IoU of at least 0.5 between real-valued corners, figures
              over images ("macro" has those averaged over verbs). Annotated
              boxes are cut to the image too, as the dataset cuts them; a note
              says so where that changes one.
  allenai     that of SWiG's authors (github.com/allenai/swig): IoU of more
              than 0.5 with 1 added to every width and height, negative
              corners of predicted boxes raised to 0 and nothing else cut,
              frames averaged over verbs, verbs over images

An image without "height" and "width" is cut at 0 alone. --groups prints rows
for seen, rare and unseen verbs, and the harmonic mean of seen and unseen verb
top-1. Figures are percent. Notes before them name odd boxes (in 0..1, outside
their images, more like x, y, width, height or pixels of a resized image) and
odd nouns (with other names than annotated ones). The last line is the same as
JSON.
"""

import argparse
import json
import sys
from collections.abc import Mapping

import numpy as np

from input_pipeline import boxes, schema
from input_pipeline.io import commands
from input_pipeline.io.errors import InputError
from mipd_jax.metrics import swig_files, swig_notes, swig_scores

COFORMER, ALLENAI = "coformer", "allenai"
VARIANTS = {
  COFORMER: "boxes cut to the image, IoU >= 0.5, over images",
  ALLENAI: "IoU > 0.5 with widths + 1, frames averaged over verbs",
}


def score(
  flat: swig_files.Flat,
  variant: str = COFORMER,
  groups: Mapping[str, int] | None = None,
) -> dict:
  """All scores in percent.

  Args:
    flat: from `swig_files.flatten`.
    variant: of VARIANTS.
    groups: group of each verb, an index into `schema.GROUPS`.

  Returns:
    The scores by name, "macro" (averaged over verbs), "images", "variant";
    with groups also "seen", "rare", "unseen", "all" and "harmonic_mean", and
    the groups within "macro", as results.json has them.

  Raises:
    InputError: an image's verb is in no group.
  """
  totals = _totals(flat, variant)

  def main(verbs):
    """The figures that the variant reports for some verbs."""
    figures = totals.micro(verbs)
    if variant == ALLENAI and figures["images"]:
      averaged = totals.macro(verbs)
      verb = [score.name for score in swig_scores.SCORES if not score.frame]
      figures = averaged | {name: figures[name] for name in verb}
    return figures

  every = np.ones(len(flat.verbs), bool)
  macro = totals.macro(every)
  del macro["images"]
  scores = {"variant": variant} | main(every) | {"macro": macro}
  if groups is None:
    return scores
  numbers = _group_numbers(flat, groups)
  for name in (*schema.GROUPS, "all"):
    verbs = every
    if name != "all":
      verbs = numbers == schema.GROUPS.index(name)
    scores[name], macro[name] = main(verbs), totals.macro(verbs)
  scores["harmonic_mean"] = swig_scores.harmonic_mean(
    scores["seen"].get("verb_top1"), scores["unseen"].get("verb_top1")
  )
  return scores


def _totals(flat: swig_files.Flat, variant: str) -> swig_scores.VerbTotals:
  roles = None
  with np.errstate(over="ignore", invalid="ignore"):  # corners of 1e300
    if variant == COFORMER:
      right_box = boxes.right(
        boxes.cut(flat.predicted_box, flat.sizes), true_boxes(flat)
      )
    else:
      right_box = _right_with_both_ends(flat.predicted_box, flat.true_box)
      # Their shares are of a verb's roles in all of its images.
      of_image = np.bincount(flat.image, minlength=len(flat.verb))
      mean = np.bincount(flat.verb, of_image) / np.bincount(flat.verb)
      roles = mean[flat.verb]
  judged = swig_scores.judge_images(
    flat.rank, flat.image, flat.right_noun, right_box, roles
  )
  return swig_scores.VerbTotals.of(
    swig_scores.of_images(judged), flat.verb, len(flat.verbs)
  )


def true_boxes(flat: swig_files.Flat) -> np.ndarray:
  """[S, 4] annotated boxes as a dataset made of the file has them.

  Cut to the image, absent (NaN) where nothing is left.
  """
  cut = boxes.cut(flat.true_box, flat.sizes)
  cut = np.where((boxes.area(cut) > 0)[:, None], cut, np.nan)
  within = ~np.isnan(flat.sizes[:, 0]) & ~np.isnan(cut[:, 0])
  cut[within] = boxes.as_kept(cut[within], flat.sizes[within])
  return cut


def _right_with_both_ends(
  predicted: np.ndarray, true: np.ndarray
) -> np.ndarray:
  """[S] by the rule of SWiG's authors: both corners are pixels of the box."""
  predicted = np.maximum(predicted, 0)
  low = np.maximum(predicted[:, :2], true[:, :2])
  high = np.minimum(predicted[:, 2:], true[:, 2:])

  def area(low, high):
    return np.prod(high - low + 1, axis=-1)

  shared = np.prod(np.maximum(high - low + 1, 0), axis=-1)
  union = (
    area(predicted[:, :2], predicted[:, 2:])
    + area(true[:, :2], true[:, 2:])
    - shared
  )
  both = shared > boxes.IOU_THRESHOLD * union
  exists, drawn = ~np.isnan(true[:, 0]), ~np.isnan(predicted[:, 0])
  return np.where(exists, drawn & both, ~drawn)


def _group_numbers(
  flat: swig_files.Flat, groups: Mapping[str, int]
) -> np.ndarray:
  """[V] group of each annotated verb."""
  lacking = [i for i, verb in enumerate(flat.verbs) if verb not in groups]
  if lacking:
    image = flat.names[int(np.isin(flat.verb, lacking).argmax())]
    verbs = ", ".join(repr(flat.verbs[i]) for i in lacking[:5])
    raise InputError(
      f"--groups: {len(lacking)} annotated verbs are in no group: {verbs}"
      f"{', ...' if lacking[5:] else ''} (image {image})",
      "give the ov_splits.json of these images",
    )
  return np.array([groups[verb] for verb in flat.verbs])


def _print_tables(figures: dict, out) -> None:
  """Prints the figures as tables; the JSON line follows."""
  variant = figures["variant"]
  print(f"{figures['images']} images", file=out)
  print(f"variant {variant}: {VARIANTS[variant]}; percent", file=out)
  conditions = dict.fromkeys(score.condition for score in swig_scores.SCORES)
  print(f"{'':10}" + "".join(f"{x:>10}" for x in conditions), file=out)
  for name in dict.fromkeys(score.stem for score in swig_scores.SCORES):
    row = (figures.get(f"{name}_{when}") for when in conditions)
    cells = ("" if x is None else f"{x:.2f}" for x in row)
    print(f"{name:10}" + "".join(f"{cell:>10}" for cell in cells), file=out)
  if "all" not in figures:
    return
  for when, title in swig_scores.TITLES.items():
    scores = [score for score in swig_scores.SCORES if score.table == when]
    heads = [score.stem if score.frame else score.name for score in scores]
    print(f"\n{title}\n{'verbs':10}{'images':>10}", end="", file=out)
    print("".join(f"{head:>11}" for head in heads), file=out)
    for group in (*schema.GROUPS, "all"):
      cells = (_cell(figures[group].get(score.name)) for score in scores)
      print(f"{group:10}{figures[group]['images']:>10}", end="", file=out)
      print("".join(f"{cell:>11}" for cell in cells), file=out)
  mean = _cell(figures["harmonic_mean"])
  print(f"\nharmonic mean of seen and unseen verb top-1: {mean}", file=out)


def _cell(value: float | None) -> str:
  return "\N{EN DASH}" if value is None else f"{value:.2f}"


def main(arguments: list[str] | None = None) -> int:
  """Command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m mipd_jax.metrics.swig",
    description=f"{__doc__}\n{swig_files.__doc__}",
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--predictions", required=True, help="JSON file")
  parser.add_argument("--annotations", required=True, help="SWiG's JSON file")
  parser.add_argument(
    "--variant",
    choices=tuple(VARIANTS),
    default=COFORMER,
    help="whose evaluation, see above (default: %(default)s)",
  )
  parser.add_argument(
    "--groups",
    help="ov_splits.json: rows for seen, rare and unseen verbs",
  )
  parser.add_argument(
    "--classes",
    help="train_classes.csv: the nouns that the model has classes for, where "
    "it predicts 'oov' for others; those of the folder of --annotations if "
    "left out",
  )
  given = parser.parse_args(arguments)
  return commands.guarded(lambda: _run(given))


def _run(given: argparse.Namespace) -> None:
  scores = _score_files(given)
  _print_tables(scores, sys.stdout)
  print(json.dumps(scores))


def _score_files(given: argparse.Namespace) -> dict:
  """Reads, reports what is odd, and scores."""
  annotations = swig_files.read_annotations(given.annotations)
  predictions = swig_files.read_predictions(given.predictions)
  groups = swig_files.read_groups(given.groups) if given.groups else None
  classes = swig_files.read_classes(given.classes) if given.classes else None
  flat = swig_files.flatten(predictions, annotations, classes)
  notes = swig_notes.notes(flat)
  notes += swig_notes.of_nouns(predictions, annotations)
  if swig_files.says_unknown(predictions, annotations) and classes is None:
    classes = swig_files.classes_beside(given.annotations)
    flat = swig_files.flatten(predictions, annotations, classes)
    notes.append(swig_notes.of_unknown_nouns(classes, given.annotations))
  extra = len(predictions) - len(annotations)
  if extra:
    notes.append(f"{extra} predicted images are not annotated")
  for note in notes:
    print(f"note: {note}", file=sys.stderr)
  return score(flat, given.variant, groups)


if __name__ == "__main__":
  commands.start(main)
