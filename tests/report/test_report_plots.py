"""The run log is read right and the plots show what it holds."""

import json
import re
from xml.etree import ElementTree

import matplotlib.figure
import numpy as np
import pytest
from PIL import Image

from input_pipeline.io.errors import InputError
from mipd_jax.report import files, measures, plots, style


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
  series = files.read_metrics(path)
  assert set(series) == {"loss/total", "dev/verb_top1"}
  steps, values = series["loss/total"]
  assert steps.tolist() == [1, 2] and values.tolist() == [9.0, 4.0]


def test_read_metrics_names_the_broken_line(tmp_path):
  path = write_log(tmp_path / "m.jsonl", [{"loss": 1}, {"step": 2, "a": 1}])
  with pytest.raises(InputError, match=r"m\.jsonl, line 1"):
    files.read_metrics(path)
  with pytest.raises(InputError, match="no such file"):
    files.read_metrics(tmp_path / "absent.jsonl")


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


def _svgs():
  stated = np.arange(40) / 40
  bins = measures.reliability(stated, stated > 0.3)
  points = {"seen": [("a<b", 9, 50.0), ("c", 0, 1.0)], "rare": [("d", 2, 7.0)]}
  return [
    plots.frequency_svg(points),
    plots.frequency_svg({}),
    plots.reliability_svg(bins, "seen", "stated", "right"),
    plots.reliability_svg([], "rare", "stated", "right"),
    plots.trade_svg([(0, 80), (30, 60)], (30, 60), ("untrained", "trained")),
  ]


def test_charts_of_a_page_are_the_same_every_time():
  assert _svgs() == _svgs()


@pytest.mark.parametrize("number", range(5))
def test_charts_of_a_page_take_its_colours_and_say_what_they_show(number):
  chart = _svgs()[number]
  root = ElementTree.fromstring(chart)
  assert root.get("role") == "img" and root.get("aria-label")
  # Nothing but what is drawn, in colours that follow light and dark.
  assert {e.tag for e in root.iter()} <= {
    *("svg", "g", "defs", "clipPath", "path", "rect", "use", "text", "tspan"),
    "title",
  }
  assert not re.search('#[0-9a-f]{6}[;"]', chart)
  assert "font-family" not in chart
  for reference in re.findall(r'(?:url\(|href=")#(\w+)', chart):
    assert chart.count(f'id="{reference}"') == 1


def test_marks_of_a_page_say_what_they_are():
  said = [
    [e.text for e in ElementTree.fromstring(chart).iter("title")]
    for chart in _svgs()
  ]
  assert sorted(said[0]) == [
    "a<b: 50 % right, 9 training images",
    "c: 1 % right, 0 training images",
    "d: 7 % right, 2 training images",
  ]
  assert said[2][0] == "stated 5 %, true 0 %, 5 of them"
  assert said[4] == ["as it is"] and said[1] == said[3] == []
