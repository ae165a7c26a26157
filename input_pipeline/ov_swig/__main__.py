"""`python -m input_pipeline.ov_swig`: checks a folder, or builds it."""

import argparse
import contextlib
import pathlib
import sys

from input_pipeline.io import commands
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import check
from input_pipeline.ov_swig.builder import SwigDataset, prepare

_ONLY = {
  "check": ("records_only", "report"),
  "build": ("data_dir", "skip_broken"),
}


def main(arguments: list[str] | None = None) -> int:
  """Runs one task; returns the exit code, 1 for a folder with a problem."""
  parser = _parser()
  given = parser.parse_args(arguments)
  _refuse_idle(parser, given)
  try:
    if given.check:
      return check.run(
        given.check,
        read_images=not given.records_only,
        report_path=given.report,
      )
    beside = pathlib.Path(given.build).resolve().parent / "tfds"
    data_dir = given.data_dir or beside
    dataset = prepare(given.build, data_dir, skip_broken=given.skip_broken)
    _print_summary(dataset)
    return 0
  except InputError as error:
    with contextlib.suppress(BrokenPipeError):
      print(f"problem: {error}", file=sys.stderr)
    return 1


def _refuse_idle(
  parser: argparse.ArgumentParser, given: argparse.Namespace
) -> None:
  """Refuses arguments of the other task, which would have no effect."""
  task, other = ("check", "build") if given.check else ("build", "check")
  for name in _ONLY[other]:
    if getattr(given, name):
      flag = "--" + name.replace("_", "-")
      parser.error(f"{flag} belongs to --{other}, it does nothing for --{task}")


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.ov_swig", description=__doc__
  )
  task = parser.add_mutually_exclusive_group(required=True)
  task.add_argument("--check", metavar="DIR", help="report all faults")
  task.add_argument("--build", metavar="DIR", help="build the dataset")
  parser.add_argument(
    "--records-only", action="store_true", help="check: read no images"
  )
  parser.add_argument(
    "--report", metavar="FILE", help="check: write the whole report as JSON"
  )
  parser.add_argument(
    "--data-dir", metavar="DIR", help="build: target; default DIR/../tfds"
  )
  parser.add_argument(
    "--skip-broken",
    action="store_true",
    help="build: leave out images that are missing or cannot be decoded, clip "
    "boxes that leave their image, drop empty ones; all are named and counted",
  )
  return parser


def _print_summary(dataset: SwigDataset) -> None:
  """Prints what a dataset holds and what was left out of it."""
  info = dataset.builder.info
  about = info.metadata
  print(f"{dataset.builder.data_path}: {info.dataset_size}")
  for split, numbers in about["statistics"].items():
    print(
      f"{split:<6} {numbers['images']} images, {numbers['by_group']}, "
      f"{numbers['out_of_vocabulary'] or 0:.1%} of nouns out of the vocabulary"
    )
  print(
    f"verbs  {dataset.groups.counts}, sha256 {dataset.groups.sha256[:12]}; "
    f"{about['left_out']} training images of unseen verbs left out"
  )
  for row in about["broken"]:
    print(f"left out: {row['problem']}")
  for row in about["wrong_boxes"]:
    print(f"cut or dropped: {row['problem']}")
  if dataset.broken:
    print(f"{len(dataset.broken)} broken images left out, see above")
  if about["wrong_boxes"]:
    lost = sum(row["lost"] for row in about["wrong_boxes"])
    print(
      f"{len(about['wrong_boxes'])} boxes cut or dropped ({lost} dropped), "
      "see above"
    )


if __name__ == "__main__":
  commands.start(main)
