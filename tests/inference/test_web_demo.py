"""The web demo: its words, what it shows, and the page in a browser."""

import asyncio
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.error
import urllib.request

import pytest

from input_pipeline.io.errors import InputError
from mipd_jax import web_demo
from tests import browser
from tests.fixtures import pipeline_fixture, predict_fixture


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
  assert web_demo.verbs_of("跳绳：主体，地点\n吃饭、跳") == {
    "跳绳": ["主体", "地点"],
    "吃饭": None,
    "跳": None,
  }
  assert web_demo.nouns_of("ولد، بنت; man\r\ndog") == [
    *("ولد", "بنت", "man", "dog")
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
    ("good", "<i>: agent, agent", "&#39;agent&#39; is in the list twice"),
    ("good", "...", "&#39;...&#39; is no word"),
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


def test_the_command_as_typed(tmp_path):
  command = [sys.executable, "-m", "mipd_jax.web_demo"]
  done = pipeline_fixture.run([*command, "--help"])
  assert done.returncode == 0 and "--allow_host" in done.stdout
  # A gradio that cannot be imported, whatever is installed here.
  (tmp_path / "gradio.py").write_text("raise ImportError('absent')")
  done = subprocess.run(
    [*command, "--workdir=nowhere"],
    env={**os.environ, "PYTHONPATH": f"{tmp_path}:."},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 2 and done.stdout == ""
  assert done.stderr.count("error:") == 1 and "Traceback" not in done.stderr
  assert "requirements-demo.txt" in done.stderr


@pytest.mark.parametrize(
  ("flag", "said"),
  [
    ("--port=-1", "--port=-1"),
    ("--port=65536", "--port=65536"),
    ("--allow_host=*", "is no name of a host"),
    ("--allow_host=a b", "is no name of a host"),
    ("--allow_host=https://x", "is no name of a host"),
    ("--allow_host=", "is no name of a host"),
  ],
)
def test_wrong_flags_are_told_first(flag, said, capsys, monkeypatch):
  monkeypatch.setattr(web_demo, "_gradio", None)
  assert web_demo.main(["--workdir=nowhere", flag]) == 2
  assert said in capsys.readouterr().err


def _answer(guard, headers, kind="http", path="/", method="GET"):
  """The status that a request gets, 0 for what is let through."""
  sent = []

  async def send(message):
    sent.append(message)

  scope = {
    "type": kind,
    "path": path,
    "method": method,
    "server": ("127.0.0.1", 7860),
    "headers": [(k.encode(), v.encode()) for k, v in headers],
  }
  asyncio.run(guard(scope, None, send))
  return sent[0].get("status", sent[0].get("code")) if sent else 0


@pytest.mark.parametrize(
  ("headers", "through"),
  [
    ([("host", "127.0.0.1:7860")], True),
    ([("Host", "LocalHost:7860")], True),
    ([("host", "localhost:7860"), ("origin", "http://localhost:7860")], True),
    ([("host", "demo.example.org")], True),
    ([("host", "demo.example.org:8443")], True),
    ([("host", "tunnel:9000")], True),
    ([("host", "tunnel:9001")], False),
    ([], False),
    ([("host", "")], False),
    ([("host", "127.0.0.1")], False),
    ([("host", "127.0.0.1:80")], False),
    ([("host", "evil.example:7860")], False),
    ([("host", "127.0.0.1.evil.example:7860")], False),
    ([("host", "localhost.:7860")], False),
    ([("host", "localhost:7860"), ("origin", "https://evil.example")], False),
    ([("host", "localhost:7860"), ("origin", "null")], False),
    ([("host", "localhost:7860@evil.example")], False),
  ],
)
def test_only_this_machine_s_names_are_answered(headers, through):
  async def app(scope, receive, send):
    pass

  guard = web_demo.Guard(app, ["Demo.example.org", "tunnel:9000"])
  assert _answer(guard, headers) == (0 if through else 403)
  assert _answer(guard, headers, "websocket") == (0 if through else 1008)


def test_uploads_are_kept_within_bounds(tmp_path, monkeypatch):
  for i in range(6):
    (tmp_path / f"{i}").mkdir()
    path = tmp_path / f"{i}" / "image.png"
    path.write_bytes(b"x" * 100)
    os.utime(path, (i, i))
  web_demo.trim(str(tmp_path), 350)
  left = sorted(path.parent.name for path in tmp_path.glob("*/*"))
  assert left == ["3", "4", "5"]
  web_demo.trim("", 0)

  async def app(scope, receive, send):
    pass

  monkeypatch.setattr(web_demo.trim, "__defaults__", (150,))
  guard = web_demo.Guard(app, (), str(tmp_path))
  host = [("host", "localhost:7860")]
  assert _answer(guard, host, path="/gradio_api/upload") == 0
  assert len(list(tmp_path.glob("*/*"))) == 3
  assert _answer(guard, host, path="/gradio_api/upload", method="POST") == 0
  assert [path.parent.name for path in tmp_path.glob("*/*")] == ["5"]


def test_the_folder_of_uploads_goes_at_the_end(monkeypatch):
  monkeypatch.setenv("GRADIO_TEMP_DIR", "mine")
  with pytest.raises(KeyError), web_demo.scratch() as folder:
    assert os.environ["GRADIO_TEMP_DIR"] == folder != "mine"
    pathlib.Path(folder, "a").write_text("x")
    raise KeyError
  assert not os.path.exists(folder)
  assert os.environ["GRADIO_TEMP_DIR"] == "mine"


def test_uploads_that_are_too_large_are_told(tmp_path, monkeypatch, photograph):
  predictor = predict_fixture.predictor()
  monkeypatch.setattr(web_demo, "MOST_PIXELS", 100)
  found = web_demo.look(predictor, str(photograph), "", "")
  assert "pixels are too many for this page" in found.message
  monkeypatch.setattr(web_demo, "MOST_BYTES", 100)
  found = web_demo.look(predictor, str(photograph), "", "")
  assert "MiB are too many for this page" in found.message


@pytest.fixture
def server():
  pytest.importorskip("gradio", reason="requirements-demo.txt")
  with web_demo.scratch() as folder:
    blocks = web_demo.page(predict_fixture.predictor())
    yield web_demo.launch(blocks, 0, wait=False, folder=folder), folder
    blocks.close()


def test_the_server_answers_its_own_names_alone(server):
  url, folder = server
  port = url.rstrip("/").rsplit(":", 1)[1]

  def status(host, path="/", data=None):
    request = urllib.request.Request(
      f"http://127.0.0.1:{port}{path}", data, {"Host": host}
    )
    if data is not None:
      request.add_header("Content-Type", "multipart/form-data; boundary=B")
    try:
      with urllib.request.urlopen(request) as answer:
        return answer.status
    except urllib.error.HTTPError as error:
      return error.code

  assert status(f"localhost:{port}") == status(f"127.0.0.1:{port}") == 200
  assert status("evil.example") == status(f"evil.example:{port}") == 403

  def upload(size):
    head = (
      b'--B\r\nContent-Disposition: form-data; name="files"; '
      b'filename="a.png"\r\nContent-Type: image/png\r\n\r\n'
    )
    data = head + b"x" * size + b"\r\n--B--\r\n"
    return status(f"localhost:{port}", "/gradio_api/upload", data)

  assert upload(1000) == 200
  (kept,) = pathlib.Path(folder).rglob("a.png")
  assert kept.stat().st_size == 1000
  assert upload(web_demo.MOST_BYTES + 1000) in (400, 413, 500)
  sizes = [p.stat().st_size for p in pathlib.Path(folder).rglob("*.png")]
  assert max(sizes) <= web_demo.MOST_BYTES


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
