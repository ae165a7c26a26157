"""Metric writers: TensorBoard and log by clu, and our JSON lines."""

import json
import os
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from clu import metric_writers

from input_pipeline.io import atomic, paths
from mipd_jax.devices import distributed


class JsonLinesWriter(metric_writers.MetricWriter):
  """Scalars as one JSON object per line; clu has no such writer.

  A resumed run first drops the lines of the steps that it repeats, so the file
  reads as if the run had never stopped. A damaged line is left out, with a
  warning unless it is the last, which a kill may cut in half.
  """

  def __init__(self, path: str | os.PathLike, first_step: int = 0):
    self._path = paths.path(path)
    self._lines = []
    if first_step and self._path.exists():
      self._lines = _lines_to(self._path, first_step)
    self._rewrite()
    # Objects in a bucket cannot grow: there the file is rewritten.
    remote = paths.is_remote(self._path)
    self._file = None if remote else self._path.open("a")

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    values = {name: float(np.asarray(x)) for name, x in scalars.items()}
    # JSON has no NaN; a non-finite value is null.
    values = {n: x if np.isfinite(x) else None for n, x in values.items()}
    line = {"step": int(step), "time": round(time.time(), 3)} | values
    self._lines.append(json.dumps(line) + "\n")
    if self._file is None:
      self._rewrite()
    else:
      self._file.write(self._lines[-1])
      self._file.flush()

  def flush(self) -> None:
    """Does nothing: every line is written at once."""

  def close(self) -> None:
    if self._file is not None:
      self._file.close()

  def _rewrite(self) -> None:
    with atomic.replacing(self._path) as partial:
      partial.write_text("".join(self._lines))

  # Only scalars make sense in this file; the other kinds go to TensorBoard.
  def write_summaries(self, step, values, metadata=None) -> None: ...
  def write_images(self, step, images) -> None: ...
  def write_videos(self, step, videos) -> None: ...
  def write_audios(self, step, audios, *, sample_rate) -> None: ...
  def write_texts(self, step, texts) -> None: ...
  def write_hparams(self, hparams) -> None: ...
  def write_histograms(self, step, arrays, num_buckets=None) -> None: ...
  def write_pointcloud(self, *args, **kwargs) -> None: ...


def _lines_to(path: paths.AnyPath, last_step: int) -> list[str]:
  """The whole lines of a file up to a step."""
  whole = []
  lines = path.read_bytes().splitlines()
  for number, line in enumerate(lines, 1):
    try:
      text = line.decode("utf-8")
      if int(json.loads(text)["step"]) <= last_step:
        whole.append(text + "\n")
    except (ValueError, LookupError, TypeError):
      if number < len(lines):
        logging.warning(
          "%s: line %d is damaged and left out; the curves lack its step",
          path,
          number,
        )
  return whole


def make_writer(
  workdir: paths.AnyPath, first_step: int
) -> metric_writers.MetricWriter:
  """TensorBoard, log and `metrics.jsonl` in a work directory.

  On process 0; on the others nothing is written.
  """
  if not distributed.is_first():
    return metric_writers.MultiWriter([])
  return metric_writers.MultiWriter(
    [
      metric_writers.create_default_writer(workdir / "tensorboard"),
      JsonLinesWriter(workdir / "metrics.jsonl", first_step),
    ]
  )
