"""Names that are markup: on every page and in every table just those names."""

import dataclasses
import html.parser
import json
import re
import types

import pytest
from PIL import Image

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError
from mipd_jax import presets, web_demo
from mipd_jax.exporting import exported_folder, model_card
from mipd_jax.inference import pictures as image_lib
from mipd_jax.inference.words import Words
from mipd_jax.report import files, pages, report_page, tables
from mipd_jax.report.tables import cell
from mipd_jax.stages import report as report_stage
from tests.fakes import report_fakes
from tests.fixtures import models, predict_fixture

NAMES = [
  "<script>alert(1)</script>",
  '"><img src=x onerror=alert(1)>',
  "' onmouseover='alert(1)",
  "</title></style></svg><b>&amp;&lt;",
  "<!-- ]]> -->",
  "a | b | c",
  "`code` *bold* _it_ [link](javascript:alert(1)) ![i](x)",
  "line\n# two\r\n| x |\n---",
  "nul\x00 bell\x07 escape\x1b[31m",
  "not \udcff UTF-8",
  "\u202etfel ot thgir\u2028",
  "{{7*7}} ${x} %s {0} \\",
  "$(id) `id`; rm -rf",
]
_TAGS = {
  *("html", "head", "meta", "link", "title", "style", "body", "header", "h1"),
  *("h2", "h3", "p", "nav", "a", "main", "section", "article", "div", "span"),
  *("table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "b", "br"),
  *("small", "details", "summary", "figure", "figcaption", "img", "svg"),
  *("g", "rect", "circle", "path", "line", "text", "image"),
  *("defs", "use", "clippath"),
}


class _Page(html.parser.HTMLParser):
  """What a browser makes of a page: tags, attributes, text."""

  def __init__(self, content: str):
    super().__init__()
    self.tags, self.comments, self.words = {}, [], []
    self.feed(content)

  def handle_starttag(self, tag, attrs):
    self.tags.setdefault(tag, []).append(dict(attrs))

  def handle_comment(self, data):
    self.comments.append(data)

  def handle_data(self, data):
    self.words.append(data)


def _check(content: str, name: str) -> None:
  content.encode("utf-8")
  found = _Page(content)
  assert set(found.tags) <= _TAGS and not found.comments
  for every in found.tags.values():
    for attributes in every:
      assert not [key for key in attributes if key.startswith("on")]
      link = attributes.get("href") or attributes.get("src") or ""
      assert not link.startswith("javascript")
  assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f]", content)
  begin = re.split(r"[\x00-\x1f\udcff]", name)[0]
  assert begin in "".join(found.words)


def _prediction(name):
  found = predict_fixture.predictor().predict(predict_fixture.photograph(0))
  return dataclasses.replace(
    found,
    name=name,
    sentence=name,
    verb=name,
    notes=(name,),
    verbs=(dataclasses.replace(found.verbs[0], verb=name),),
    roles=tuple(
      dataclasses.replace(
        role,
        role=name,
        nouns=(dataclasses.replace(role.nouns[0], noun=name),),
      )
      for role in found.roles
    ),
  )


@pytest.mark.parametrize("name", NAMES)
def test_the_report(name, monkeypatch):
  monkeypatch.setattr(report_fakes, "HOSTILE", name)
  _check(report_page.render(report_fakes.report()), name)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_of_predictions(name, tmp_path):
  entry = pages.Entry(
    name=name,
    picture="pictures/00001-a.jpg",
    size=(40, 30),
    sentence=name,
    verbs=[(name, 0.5)],
    roles=[pages.RoleRow(name, [(name, 0.5)], box=True)],
    notes=[name],
  )
  path = tmp_path / "index.html"
  pages.write_gallery(path, [entry], name, name, failed=[(name, name)])
  _check(path.read_text("utf-8"), name)


@pytest.mark.parametrize("name", NAMES)
def test_the_web_page(name):
  picture = image_lib.open_image(predict_fixture.photograph(0), "a")
  shown = web_demo.shown(_prediction(name), picture)
  _check(shown.sentence, name)
  if not name.startswith(("nul", "not")):  # no path of this machine
    message = web_demo.look(predict_fixture.predictor(), name, "", "").message
    assert set(_Page(message).tags) <= {"div", "br", "small"}


def _documents(name, folder_):
  """The model card and the results of a run of which all is called so."""
  opened = predict_fixture.opened()
  config = dataclasses.replace(
    opened.config,
    name=name,
    dataset=dataclasses.replace(opened.config.dataset, folder=name),
    teacher=dataclasses.replace(
      opened.config.teacher, student_encoder=name, teacher_encoder=name
    ),
  )
  results = report_fakes.results(["waiting"]) | {
    **{"dataset": name, "split": "test", "step": name, "preset": name}
  }
  results["models"] = {name: results["models"]["student"]}
  if name.isascii():  # others are refused as JSON, where they are no UTF-8
    files.write_results(folder_, results)
  hostile = dataclasses.replace(opened, config=config, folder=folder_)
  lexicon = exported_folder.resolve(opened, Words())
  settings = exported_folder.Settings()
  return (
    model_card.card(hostile, lexicon, settings, {}, {"load.py": 1}),
    tables.markdown(results),
  )


def _columns(text):
  """Of every line that belongs to a table."""
  lines = [line for line in text.splitlines() if line.startswith("|")]
  return [len(re.findall(r"(?<!\\)\|", line)) for line in lines]


@pytest.mark.parametrize("name", [n for n in NAMES if n.isascii()])
def test_markdown(name, tmp_path):
  plain = _documents("plain", tmp_path)
  for text, expected in zip(_documents(name, tmp_path), plain, strict=True):
    assert cell(name) in text and "<" not in text
    assert _columns(text) == _columns(expected)
    assert len(text.splitlines()) == len(expected.splitlines())


def test_cells_say_what_was_written():
  assert cell("runs/small_world, step 3 (a-b)") == (
    "runs/small_world, step 3 (a-b)"
  )
  assert cell("a|b\n`c` *d* _e_ <f>&") == (
    r"a\|b \`c\` \*d\* \_e\_ &lt;f&gt;&amp;"
  )


@pytest.mark.parametrize(
  ("version", "own", "total", "said"),
  [
    ("templates-2 seed=0", 0, 6, "by template"),
    ("interactions-1 seed=0", 0, 6, "by template"),
    ("jrg-1 prompts-1 x", 0, 6, "by a language model"),
    ("templates-2 seed=0", 6, 6, "by those who published"),
    ("jrg-1", 2, 6, "for 2 of these 6 images by those who published"),
    ("templates-2", 0, 0, "by template"),
  ],
)
def test_rationales_have_their_author(version, own, total, said):
  found = files.author(version, own, total)
  assert found.startswith(said) and "teacher" not in found
  assert ("language model from" in found) == (
    version.startswith("jrg") and own < max(total, 1)
  )


@pytest.mark.parametrize("teacher", [True, False])
def test_the_report_says_what_training_did(teacher):
  use = files.use(teacher=teacher, read=True, preset="no_distillation")
  page = report_page.render(
    report_fakes.report(
      written=files.author("templates-2", 0, 6),
      use=use,
      has_teacher=teacher,
      pictures=[Image.new("RGB", (8, 8))],
    )
  )
  words = "".join(_Page(page).words)
  assert "test split" in re.search(r"<title>(.*)</title>", page)[1]
  assert "Written by template" in words
  assert "teacher wrote" not in words and "distilled" not in words
  assert ("guide what the teacher passes on" in words) == teacher
  assert ("trained without it" in words) != teacher
  assert ("trained without a teacher" in words) != teacher


@pytest.mark.parametrize(
  ("preset", "said", "teacher"),
  [
    ("mipd", "guide what the teacher passes on", True),
    ("reference", "guide what the teacher passes on", True),
    ("no_distillation", "without a teacher (preset no_distillation)", False),
  ],
)
def test_what_a_preset_does_with_rationales(preset, said, teacher):
  model, loss = presets.preset_defaults(preset)
  config = types.SimpleNamespace(
    preset=preset, model=model, objective=models.objective(loss)
  )
  found = report_stage._use(config)
  assert said in found["use"] and found["has_teacher"] == teacher


def test_texts_that_a_run_leaves_out():
  model, loss = presets.preset_defaults("mipd")
  model = dataclasses.replace(model, scene_prompt=False, instance_prompt=False)
  off = dict.fromkeys(("scene_contrast", "scene_align", "gaze_contrast"), 0.0)
  objective = models.objective(dataclasses.replace(loss, **off))
  config = types.SimpleNamespace(
    preset="mipd", model=model, objective=objective
  )
  assert "training read none" in report_stage._use(config)["use"]


def test_results_are_read_as_they_are_written(tmp_path):
  results = report_fakes.results(["waiting"])
  path, _ = files.write_results(tmp_path, results)

  def read():
    return report_stage._results(tmp_path, "test")

  assert read() == json.loads(json.dumps(results))

  def sealed(**changes):
    return json.dumps(json_files.sealed(results | changes))

  for wrong, said in (
    ("[]", "expected an object"),
    (sealed(models=3), "models is 3"),
    (sealed(per_verb={"x": {}}), r"per_verb\.x\.group"),
    (sealed()[:-1], "cut off"),
    (sealed().replace("test", "tset"), "changed or damaged"),
    (json.dumps(results), "changed or damaged"),
  ):
    path.write_text(wrong)
    with pytest.raises(InputError, match=said) as error:
      read()
    assert str(tmp_path) in str(error.value)
    assert "--mode=eval" in error.value.remedy
