"""Rate of batches, compared with the need of a training step: one JSON line.

  python -m benchmarks.input --folder=DIR [--data-dir=DIR] [--cache=DIR]
    [--split=train] [--batch-size=64] [--sizes=336,224] [--seconds=20]
    [--step-seconds=S | --run=WORKDIR]

Measures decoded images at the encoders' sizes in shuffled order
(`stream.image_batches`), annotations alone and, given a cache, its features
(`stream.train_batches`), each for some seconds. The first two batches do not
count (the second starts tf.data). The seconds of a training step are given, or
read from the metrics.jsonl of a run.
"""

import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from input_pipeline import feature_cache, order, stream
from input_pipeline.dataset import Split
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import builder, layout

_WARM = 2  # batches
_LEAST = 64  # fewest batches; with few images, epochs repeat


def measure(
  batches: Iterator[Any], images_of: Callable[[Any], int], seconds: float
) -> dict[str, float]:
  """Images per second of a stream, without the first two batches.

  Args:
    batches: the stream; reading stops after `seconds`.
    images_of: the number of images of a batch.
    seconds: how long to read.

  Returns:
    'images_per_s', 'images' counted and 'warm_up_s', the time before.
  """
  start = time.perf_counter()
  for _ in itertools.islice(batches, _WARM):
    pass
  warm = time.perf_counter()
  images, now = 0, warm
  for batch in batches:
    images += images_of(batch)
    now = time.perf_counter()
    if now - warm > seconds:
      break
  if not images:
    raise InputError(
      f"there are {_WARM} batches only",
      "give more images or a smaller --batch-size",
    )
  return {
    "images_per_s": images / (now - warm),
    "images": images,
    "warm_up_s": warm - start,
  }


def image_figures(
  split: Split,
  sizes: tuple[int, ...],
  batch_size: int,
  seconds: float,
  mean_bytes: float,
) -> dict[str, float]:
  """Measures decoded, letterboxed images, as for a cache.

  Args:
    split: where to read.
    sizes: canvas sides, pixels.
    batch_size: images per batch.
    seconds: how long to read.
    mean_bytes: mean size of an encoded image.
  """
  indices = np.concatenate(
    [
      order.step_indices(0, step, len(split), batch_size)
      for step in range(max(_LEAST, len(split) // batch_size))
    ]
  )
  measured = measure(
    stream.image_batches(
      split, sizes=sizes, batch_size=batch_size, indices=indices
    ),
    lambda batch: int(batch.example_mask.sum()),
    seconds,
  )
  rate = measured["images_per_s"]
  pixels = sum(3 * size**2 for size in sizes)
  return measured | {
    "read_mb_per_s": rate * mean_bytes / 1e6,
    "pixels_mb_per_s": rate * pixels / 1e6,
  }


def batch_figures(
  source: stream.Source, batch_size: int, seconds: float
) -> dict[str, float]:
  """Measures training batches of a source: annotations, or cached features."""
  steps = 10**9  # Never reached.
  batches = stream.train_batches(
    source, seed=0, batch_size=batch_size, start_step=0, num_steps=steps
  )
  size = 0

  def count(batch: stream.Batch) -> int:
    nonlocal size
    size = sum(array.nbytes for array in batch.values())
    return batch_size

  measured = measure(batches, count, seconds)
  per_image = size / batch_size
  return measured | {"mb_per_s": measured["images_per_s"] * per_image / 1e6}


def step_seconds(run: pathlib.Path) -> float:
  """Seconds of a training step: the median over a run's logged intervals.

  Raises:
    InputError: the run has logged fewer than two steps.
  """
  path = run / "metrics.jsonl"
  lines = path.read_text().splitlines() if path.exists() else []
  rows = [row for row in map(json.loads, lines) if "loss/total" in row]
  pairs = itertools.pairwise(rows)
  rates = [
    (b["time"] - a["time"]) / (b["step"] - a["step"])
    for a, b in pairs
    if b["step"] > a["step"]
  ]
  if not rates:
    raise InputError(
      f"{path} has no two logged steps", "give --step-seconds, or another run"
    )
  return statistics.median(rates)


def figures(given: argparse.Namespace) -> dict[str, Any]:
  """All measurements; see the top of this file."""
  folder = pathlib.Path(given.folder)
  data_dir = given.data_dir or folder.resolve().parent / "tfds"
  dataset = builder.prepare(folder, data_dir)
  split = dataset.split(given.split)
  sizes = layout.find(folder).image_sizes()
  mean_bytes = float(np.mean([sizes[name] for name in split.names]))
  canvas = tuple(int(size) for size in given.sizes.split(","))
  result = {
    "split": given.split,
    "images": len(split),
    "kb_per_image": mean_bytes / 1e3,
    "batch_size": given.batch_size,
    "sizes": canvas,
    "cores": os.cpu_count(),
    "decoded": image_figures(
      split, canvas, given.batch_size, given.seconds, mean_bytes
    ),
    "annotations": batch_figures(split, given.batch_size, given.seconds),
  }
  if given.cache:
    cached = feature_cache.open_cache(given.cache).split(given.split)
    result["cached"] = batch_figures(cached, given.batch_size, given.seconds)
  if given.step_seconds or given.run:
    step = given.step_seconds or step_seconds(pathlib.Path(given.run))
    result["need"] = need(result, given.batch_size / step)
  return result


def need(result: dict[str, Any], images_per_s: float) -> dict[str, Any]:
  """The images/s that a step needs, and each stream's rate relative to it."""
  given = {
    name: result[name]["images_per_s"] / images_per_s
    for name in ("decoded", "cached")
    if name in result
  }
  return {"images_per_s": images_per_s, "times": given}


def main(arguments: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--folder", required=True)
  parser.add_argument("--data-dir")
  parser.add_argument("--cache")
  parser.add_argument("--split", default="train")
  parser.add_argument("--batch-size", type=int, default=64)
  parser.add_argument("--sizes", default="336,224")
  parser.add_argument("--seconds", type=float, default=20.0)
  parser.add_argument("--step-seconds", type=float)
  parser.add_argument("--run")
  try:
    print(json.dumps(figures(parser.parse_args(arguments))))
  except InputError as error:
    print(f"problem: {error}", file=sys.stderr)
    return 1
  return 0


if __name__ == "__main__":
  sys.exit(main())
