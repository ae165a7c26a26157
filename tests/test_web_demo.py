"""The web demo: its words, what it shows, and the page in a browser."""

import shutil
import sys

import pytest

from input_pipeline.errors import InputError
from mipd_jax import web_demo
from tests import browser, predict_fixture


def test_words_are_read_from_the_boxes():
  assert web_demo.verbs_of(" \n ") is None
  assert web_demo.nouns_of("") is None
  assert web_demo.verbs_of("jumping, running\n juggling: agent, item \nx:") == {
    "jumping": None,
    "running": None,
    "juggling": ["agent", "item"],
    "x": [],
  }
  assert web_demo.nouns_of("man, dog,\nstreet lamp,") == [
    *("man", "dog", "street lamp")
  ]
  with pytest.raises(InputError, match="'jumping' is there twice"):
    web_demo.verbs_of("jumping\njumping: agent")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
  path = tmp_path_factory.mktemp("images") / "a photo.png"
  predict_fixture.photograph(0).save(path)
  return path


def test_what_the_page_shows_is_the_prediction(photograph):
  predictor = predict_fixture.predictor()
  found = web_demo.look(predictor, str(photograph), "", "")
  result = predictor.predict(photograph)
  assert found.message == "" and result.sentence in found.sentence
  assert found.verbs == {v.verb: v.probability for v in result.verbs}
  assert [row[0] for row in found.rows] == [r.role for r in result.roles]
  for row, role in zip(found.rows, result.roles, strict=True):
    assert row[1] == (role.nouns[0].noun or "(nothing)")
    assert (row[4] == "none") == (role.box is None)
    assert len(row) == len(web_demo.HEADER)
  assert found.picture.width >= 560


@pytest.mark.parametrize(
  ("content", "verbs", "said"),
  [
    (None, "", "there is no image yet"),
    (b"<b>no picture</b>", "", "x &lt;1&gt;.jpg: it is no image"),
    ("good", "<i>: agent, agent", "&#x27;agent&#x27; is in the list twice"),
    ("good", "...", "&#x27;...&#x27; is no word"),
  ],
)
def test_bad_input_is_a_message(tmp_path, photograph, content, verbs, said):
  path = None
  if content:
    path = tmp_path / "x <1>.jpg"
    if content == "good":
      shutil.copyfile(photograph, path)
    else:
      path.write_bytes(content)
  found = web_demo.look(
    predict_fixture.predictor(), path and str(path), verbs, ""
  )
  assert said in found.message and "What helps" in found.message
  assert found.picture is None and not found.rows and found.verbs is None
  assert str(tmp_path) not in found.message


def test_without_gradio_one_message(monkeypatch, capsys):
  monkeypatch.setitem(sys.modules, "gradio", None)
  assert web_demo.main(["--workdir=nowhere"]) == 2
  said = capsys.readouterr().err
  assert "needs Gradio" in said and "requirements-demo.txt" in said


@pytest.fixture
def browser_page():
  pytest.importorskip("gradio", reason="requirements-demo.txt")
  with browser.launched() as started:
    page = started.new_page(viewport={"width": 1200, "height": 1100})
    page.set_default_timeout(60_000)
    yield page


@pytest.mark.slow
def test_the_page_in_a_browser(browser_page, photograph, tmp_path):
  page, asked, complaints = browser_page, [], []
  page.on("request", lambda r: asked.append(r.url))
  page.on("pageerror", lambda e: complaints.append(str(e)))
  blocks = web_demo.page(predict_fixture.predictor())
  url = web_demo.launch(blocks, 0, wait=False)
  try:
    page.goto(url)
    look = page.get_by_role("button", name="Look")
    look.click()
    page.get_by_text("there is no image yet").wait_for()

    upload = page.locator("input[type=file]").first
    upload.set_input_files(photograph)
    page.get_by_placeholder("jumping, running").fill(
      "jumping, chasing: agent, item"
    )
    page.get_by_placeholder("man, club").fill("dog, zebra, man")
    page.locator("img").first.wait_for()
    look.click()
    page.locator(".sentence").wait_for()
    assert page.get_by_role("alert").count() == 0
    body = page.locator("body").inner_text()
    assert "chasing" in body and "sleeping" not in body
    assert "zebra" in body

    bad = tmp_path / "note.jpg"
    bad.write_text("no picture")
    page.get_by_label("Remove Image").first.click()
    page.locator("input[type=file]").first.set_input_files(bad)
    look.click()
    page.get_by_text("note.jpg: it is no image").wait_for()
    assert "Traceback" not in page.content()
  finally:
    blocks.close()
  assert not complaints
  foreign = {u for u in asked if not u.startswith((url, "data:", "blob:"))}
  assert not foreign
