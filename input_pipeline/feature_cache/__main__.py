"""`python -m input_pipeline.feature_cache --verify DIR`."""

import argparse

from input_pipeline.feature_cache.verify import verify
from input_pipeline.io import commands


def main(arguments: list[str] | None = None) -> int:
  """Verifies a cache and prints its counts.

  Raises:
    InputError: the cache has a fault; the message names it and the remedy.
  """
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.feature_cache",
    description="Reads a whole cache and compares it with what was written.",
  )
  parser.add_argument(
    "--verify", metavar="DIR", required=True, help="folder of the cache"
  )
  options = parser.parse_args(arguments)
  counts = verify(options.verify)
  print(", ".join(f"{name} {count:,}" for name, count in counts.items()))
  return 0


if __name__ == "__main__":
  commands.start(main)
