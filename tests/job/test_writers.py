"""metrics.jsonl and TensorBoard: numbers in, the same numbers out."""

import json

import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.report import files
from mipd_jax.training.writers import JsonLinesWriter, make_writer


def _rows(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def _write(path, steps, first_step=0):
  writer = JsonLinesWriter(path, first_step)
  for step in steps:
    writer.write_scalars(step, {"loss": step / 2})
  writer.close()


def test_scalars_are_lines(tmp_path):
  path = tmp_path / "deep" / "metrics.jsonl"
  writer = JsonLinesWriter(path)
  writer.write_scalars(3, {"a": np.float32(0.5), "b": np.array(2)})
  # Flushed with every line: a run that is killed loses none.
  (row,) = _rows(path)
  writer.write_scalars(4, {"a": float("nan"), "b": np.inf})
  writer.close()
  assert row.pop("time") > 0
  assert row == {"step": 3, "a": 0.5, "b": 2.0}
  assert _rows(path)[1]["a"] is None and _rows(path)[1]["b"] is None


def test_resumed_run_cuts_what_it_does_again(tmp_path):
  path = tmp_path / "metrics.jsonl"
  _write(path, [2, 4, 6, 8])
  _write(path, [5, 6], first_step=4)
  assert [row["step"] for row in _rows(path)] == [2, 4, 5, 6]


def test_half_a_line_is_dropped(tmp_path):
  path = tmp_path / "metrics.jsonl"
  _write(path, [1, 2, 3])
  path.write_text(path.read_text()[:-10])
  _write(path, [3, 4], first_step=2)
  assert [row["step"] for row in _rows(path)] == [1, 2, 3, 4]


def test_fresh_run_starts_an_empty_file(tmp_path):
  path = tmp_path / "metrics.jsonl"
  _write(path, [1, 2])
  _write(path, [1])
  assert [row["step"] for row in _rows(path)] == [1]
  assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


def test_report_and_tensorboard_read_what_was_written(tmp_path):
  import tensorflow as tf
  from tensorboard.backend.event_processing import event_accumulator

  writer = make_writer(tmp_path, 0)
  for step in (1, 2):
    writer.write_scalars(step, {"loss/total": 1.5 * step})
  writer.flush()
  writer.close()
  steps, values = files.read_metrics(tmp_path / "metrics.jsonl")["loss/total"]
  np.testing.assert_array_equal(steps, [1, 2])
  np.testing.assert_array_equal(values, [1.5, 3.0])
  events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
  found = events.Reload().Tensors("loss/total")
  assert [e.step for e in found] == [1, 2]
  assert [float(tf.make_ndarray(e.tensor_proto)) for e in found] == (
    pytest.approx([1.5, 3.0])
  )


@pytest.mark.parametrize(
  "damaged", [b"\xff\xfe{", b"[1]", b'{"step": "x"}', b'{"step": 2, \xa2']
)
def test_a_damaged_line_is_named_and_left_out(tmp_path, damaged, caplog):
  path = tmp_path / "metrics.jsonl"
  _write(path, [1, 2, 3])
  lines = path.read_bytes().splitlines()
  path.write_bytes(b"\n".join([lines[0], damaged, lines[2]]) + b"\n")
  with pytest.raises(InputError, match="line 2"):
    files.read_metrics(path)
  with caplog.at_level("WARNING"):
    _write(path, [], first_step=3)
  assert "metrics.jsonl: line 2 is damaged" in caplog.text
  assert files.read_metrics(path)["loss"][0].tolist() == [1, 3]
