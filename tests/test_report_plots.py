"""The run log is read right and the plots show what it holds."""

import json

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from input_pipeline.errors import InputError
from mipd_jax.report import plots, runlog, style


@pytest.fixture
def figures(monkeypatch):
  """Collects the figures that are saved, and saves them."""
  seen = []
  save = matplotlib.figure.Figure.savefig

  def collect(figure, *args, **kwargs):
    seen.append(figure)
    return save(figure, *args, **kwargs)

  monkeypatch.setattr(matplotlib.figure.Figure, "savefig", collect)
  return seen


def write_log(path, records, tail=""):
  path.write_text("\n".join(map(json.dumps, records)) + "\n" + tail)
  return path


def test_read_metrics_takes_the_last_of_a_step(tmp_path):
  path = write_log(
    tmp_path / "m.jsonl",
    [
      {"step": 2, "loss/total": 5.0, "note": "text", "flag": True},
      {"step": 1, "loss/total": 9.0},
      {"step": 2, "loss/total": 4.0, "dev/verb_top1": 10},
    ],
    tail='{"step": 3, "loss/to',
  )
  series = runlog.read_metrics(path)
  assert set(series) == {"loss/total", "dev/verb_top1"}
  steps, values = series["loss/total"]
  assert steps.tolist() == [1, 2] and values.tolist() == [9.0, 4.0]


def test_read_metrics_names_the_broken_line(tmp_path):
  path = write_log(tmp_path / "m.jsonl", [{"loss": 1}, {"step": 2, "a": 1}])
  with pytest.raises(InputError, match=r"m\.jsonl, line 1"):
    runlog.read_metrics(path)
  with pytest.raises(InputError, match="no such file"):
    runlog.read_metrics(tmp_path / "absent.jsonl")


def test_loss_curves_draw_the_log(tmp_path, figures):
  records = [
    {"step": s, "loss/total": 10.0 - s, "loss/verb": 1.0, "lr": 1e-4}
    for s in range(5)
  ]
  records.append({"step": 4, "dev/seen/verb_top1": 40.0})
  out = tmp_path / "loss.png"
  plots.loss_curves(write_log(tmp_path / "m.jsonl", records), out)
  losses, dev = figures[0].axes
  drawn = {line.get_label(): line for line in losses.lines}
  assert set(drawn) == {"total", "verb"}
  assert drawn["total"].get_ydata().tolist() == [10.0, 9.0, 8.0, 7.0, 6.0]
  assert [line.get_label() for line in dev.lines] == ["seen/verb_top1"]
  assert min(Image.open(out).size) > 300


def test_loss_curves_need_losses(tmp_path):
  path = write_log(tmp_path / "m.jsonl", [{"step": 1, "lr": 0.1}])
  with pytest.raises(InputError, match="neither loss"):
    plots.loss_curves(path, tmp_path / "loss.png")
  assert not (tmp_path / "loss.png").exists()


def test_accuracy_vs_frequency_puts_untrained_verbs_in_the_strip(
  tmp_path, figures
):
  def verb(group, images, score):
    return {"group": group, "train_images": images, "verb_top1": score}

  results = {
    "dataset": "small",
    "per_verb": {
      "a": verb("seen", 100, 80.0),
      "b": verb("seen", 200, 40.0),
      "c": verb("rare", 12, 30.0),
      "d": verb("unseen", 0, 10.0),
      "e": verb("unseen", 0, None),
      "f": verb("seen", 50, float("nan")),
    },
  }
  out = tmp_path / "frequency.png"
  plots.accuracy_vs_frequency(results, out)
  strip, axis = figures[0].axes
  marks = np.concatenate([c.get_offsets() for c in axis.collections])
  assert sorted(map(tuple, marks.tolist())) == [(12, 30), (100, 80), (200, 40)]
  assert np.concatenate([c.get_offsets() for c in strip.collections])[
    :, 1
  ].tolist() == [10.0]
  means = {line.get_color(): line.get_ydata()[0] for line in axis.lines}
  assert means[style.GROUP_COLOURS["seen"]] == 60.0
  assert axis.get_xscale() == "log"
  legend = [text.get_text() for text in figures[0].legends[0].get_texts()]
  assert legend == [
    "seen: 2 verbs, mean 60.0",
    "rare: 1 verbs, mean 30.0",
    "unseen: 1 verbs, mean 10.0",
  ]
  assert out.stat().st_size > 5000


@pytest.mark.parametrize("group", ["seen", "unseen"])
def test_accuracy_vs_frequency_with_one_verb(tmp_path, group):
  count = 0 if group == "unseen" else 7
  entry = {"group": group, "train_images": count, "verb_top1": 50.0}
  out = tmp_path / "frequency.png"
  plots.accuracy_vs_frequency({"per_verb": {"a": entry}}, out)
  assert out.exists()


def test_accuracy_vs_frequency_without_verbs(tmp_path):
  with pytest.raises(InputError, match="no verb"):
    plots.accuracy_vs_frequency({"per_verb": {}}, tmp_path / "f.png")
