"""`python -m input_pipeline.small_world --out=DIR`: writes a small world."""

import argparse
import json
import sys
import time

from input_pipeline.io import commands
from input_pipeline.io.errors import InputError
from input_pipeline.small_world.situations.config import WorldConfig
from input_pipeline.small_world.situations.folder import SPLITS, write_folder


def main(arguments: list[str] | None = None) -> int:
  """Command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.small_world",
    description="Draw a small world and write it as a SWiG-layout folder.",
  )
  default = WorldConfig()
  parser.add_argument("--out", required=True, help="folder to make")
  parser.add_argument("--seed", type=int, default=0, help="default 0")
  parser.add_argument(
    "--tiny", action="store_true", help="12 verbs, 30 nouns, for debugging"
  )
  for name in ("num_seen", "num_rare", "num_unseen", "num_nouns"):
    parser.add_argument(
      f"--{name}", type=int, help=f"default {getattr(default, name)}"
    )
  given = vars(parser.parse_args(arguments))
  out, tiny = given.pop("out"), given.pop("tiny")
  sizes = {name: value for name, value in given.items() if value is not None}
  started = time.monotonic()
  try:
    if given["seed"] < 0:
      raise InputError(f"--seed={given['seed']}", "give a seed from 0 on")
    base = WorldConfig.tiny() if tiny else default
    config = WorldConfig(**{**vars(base), **sizes})
    folder = write_folder(out, config)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return commands.BAD_INPUT
  counts = {
    split: len(json.loads((folder / f"SWiG_jsons/{split}.json").read_text()))
    for split in SPLITS
  }
  seconds = time.monotonic() - started
  print(f"{folder}: images {counts}, {config.num_verbs} verbs, {seconds:.1f} s")
  return 0


if __name__ == "__main__":
  commands.start(main)
