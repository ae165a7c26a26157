"""Writes a trained student as a folder that other programs can run.

  python -m mipd_jax.export --workdir=runs/synthetic --out=DIR

DIR holds StableHLO programs for CPU, GPU and TPU, weights, labels, a model
card and a loader that needs only jax and numpy; docs/export.md says more.
"""

import argparse
import logging
import pathlib
import shlex
from collections.abc import Sequence

import jax

from input_pipeline.io import commands
from mipd_jax.devices import sharding
from mipd_jax.exporting import exported_folder, weights
from mipd_jax.inference import words_file, workdir

BOTH = "both"


def main(arguments: Sequence[str] | None = None) -> int:
  """Command line; returns the exit status: 0 done, 2 bad input."""
  given = _parser().parse_args(arguments)
  logging.basicConfig(level=logging.WARNING, format="%(message)s")
  return commands.guarded(lambda: _run(given))


def _run(given: argparse.Namespace) -> None:
  sizes = _export(given)
  print(f"{given.out}: {sum(sizes.values()) / 2**20:.1f} MiB")
  for name, size in sorted(sizes.items()):
    print(f"  {name:22} {size:>14,}")
  script = shlex.quote(str(pathlib.Path(given.out) / "predict.py"))
  print(f"Next: python {script} photo.jpg")


def _export(given: argparse.Namespace) -> dict[str, int]:
  exported_folder.check_free(given.out)
  forms = exported_folder.FORMS if given.form == BOTH else (given.form,)
  settings = exported_folder.Settings(forms, given.weights, given.top_k)
  words = None
  if given.vocabulary:
    words = words_file.read(given.vocabulary)
  mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
  opened = workdir.open_workdir(given.workdir, mesh)
  return exported_folder.write(opened, given.out, words, settings)


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mipd_jax.export",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  add = parser.add_argument
  add("--workdir", required=True, help="of a run that has trained")
  add("--out", required=True, help="folder to make")
  add(
    "--form",
    default=BOTH,
    choices=(*exported_folder.FORMS, BOTH),
    help="words inside the program, or passed to it; default %(default)s",
  )
  add(
    "--weights",
    default="float32",
    choices=weights.DTYPES,
    help="how parameters are stored; default %(default)s",
  )
  add(
    "--vocabulary",
    default="",
    help="words.yaml (docs/predict.md); the words of training by default",
  )
  add(
    "--top_k",
    type=int,
    default=5,
    help="guesses of verbs and of nouns; default %(default)s",
  )
  return parser


if __name__ == "__main__":
  commands.start(main)
