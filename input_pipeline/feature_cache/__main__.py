"""`python -m input_pipeline.feature_cache --verify DIR`."""

import argparse
import sys

from input_pipeline.errors import InputError
from input_pipeline.feature_cache.verify import verify


def main(arguments: list[str] | None = None) -> int:
  """Verifies a cache; prints the counts, or what is wrong and the remedy."""
  parser = argparse.ArgumentParser(
    prog="python -m input_pipeline.feature_cache"
  )
  parser.add_argument("--verify", metavar="DIR", required=True)
  options = parser.parse_args(arguments)
  try:
    counts = verify(options.verify)
  except InputError as error:
    print(error, file=sys.stderr)
    return 1
  print(", ".join(f"{name} {count:,}" for name, count in counts.items()))
  return 0


if __name__ == "__main__":
  sys.exit(main())
