"""Estimates the time of Ov-SWiG on a v5e-8 from compiled programs.

  python -m benchmarks.minute

Adds up reading every feature once, training and evaluation, and writes
docs/performance/minute.md. Times of programs are the lower bounds of
`benchmarks.tpu_compile` (docs/performance/tpu.json); nothing was run on a TPU.
Prints one JSON line.
"""

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from benchmarks import figures
from benchmarks.support import performance, true_sizes
from input_pipeline import schema

TOPOLOGY, BATCH, EPOCHS = "v5e:2x4", 256, 10
HOSTS, BYTES_PER_SECOND = 1, 2e9  # a v5e-8 is one host
TRAIN, DEV, TEST = 75_702, 25_200, 25_200  # images
_FOLDER = figures.DOCS / "performance"
# Preset `mipd` does not read these.
_UNREAD = (schema.CLIP_LOGITS, schema.EXAMPLE_MASK)


def image_bytes(keys: Iterable[str]) -> int:
  """Bytes of one example in an int8 cache, with a float32 scale per token."""
  shapes = true_sizes.batch_shapes(1, [k for k in keys if k not in _UNREAD])
  total = 0
  for x in shapes.values():
    count = math.prod(x.shape)
    if x.dtype == "bfloat16":
      total += count + 4 * math.prod(x.shape[:-1])
    else:
      total += count * np.dtype(x.dtype).itemsize
  return total


def parts(programs: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
  """Seconds of every part of a run, by its description."""

  def least(word: str) -> float:
    (row,) = (row for name, row in programs.items() if word in name)
    return row["roofline_ms"] / 1e3

  rate = HOSTS * BYTES_PER_SECOND
  steps = math.ceil(EPOCHS * TRAIN / BATCH)
  evaluations = math.ceil(DEV / BATCH) + math.ceil(TEST / BATCH)
  train_bytes = TRAIN * image_bytes(schema.TRAIN_KEYS)
  eval_bytes = (DEV + TEST) * image_bytes(schema.STUDENT_KEYS)
  return {
    f"read features of {TRAIN:,} training images, {train_bytes / 1e9:.0f} GB": (
      train_bytes / rate
    ),
    f"read features of {DEV + TEST:,} dev and test images, "
    f"{eval_bytes / 1e9:.0f} GB": eval_bytes / rate,
    f"{steps:,} training steps of {BATCH}": steps * least("train step, mipd"),
    f"gathering their batches, {steps // 10:,} times ten": (
      math.ceil(steps / 10) * least("gather")
    ),
    f"{evaluations} evaluation steps of {BATCH}": (
      evaluations * least("evaluation")
    ),
  }


def table(seconds: Mapping[str, float]) -> str:
  """The sum as Markdown."""
  rows = [(what, f"{value:.1f}") for what, value in seconds.items()]
  total = f"**{sum(seconds.values()):.1f}**"
  return performance.markdown(
    ("what", "seconds"), [*rows, ("**in all**", total)]
  )


def main() -> None:
  """Prints the sum and writes the table."""
  rows = json.loads((_FOLDER / "tpu.json").read_text())[TOPOLOGY]["programs"]
  seconds = parts({row["program"]: row for row in rows})
  total = round(sum(seconds.values()), 1)
  print(json.dumps({"topology": TOPOLOGY, "seconds": total} | seconds))
  performance.replace(_FOLDER / "minute.md", table(seconds))
  figures.fill_documents()


if __name__ == "__main__":
  main()
