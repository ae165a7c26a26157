"""The report as a page: in a browser, at a telephone's width."""

import json
import shutil
import types

import numpy as np
import pytest
from PIL import Image

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import image_split
from mipd_jax import stages
from mipd_jax.report import files, report_page
from mipd_jax.stages import report as report_stage
from tests import browser
from tests.fakes import report_fakes

SECTIONS = [
  *("scores", "frequency", "confusions", "calibration", "boxes", "teacher"),
  *("examples", "rationales"),
]
GROUPS = ("seen", "rare", "unseen")
PHONE = 390


def _pictures():
  """Wide, high, one pixel, noise: as photographs are not."""
  rng = np.random.default_rng(0)
  noise = rng.integers(0, 256, (480, 480, 3), np.uint8)
  sizes = ((2000, 10), (10, 2000), (1, 1))
  shapes = [Image.new("RGB", size, "olive") for size in sizes]
  return [*shapes, Image.fromarray(noise)]


def _ids(page):
  return page.evaluate("[...document.querySelectorAll('section')].map(s=>s.id)")


def _cells(page, selector):
  """Texts of the body's rows of the first table below `selector`."""
  return page.evaluate(
    "s => [...document.querySelector(s + ' table').tBodies[0].rows]"
    ".map(r => [...r.cells].map(c => c.textContent))",
    selector,
  )


def test_hostile_words_and_sizes(tmp_path):
  path = tmp_path / "report.html"
  report_page.write_report(
    path, report_fakes.report(pictures=_pictures(), verbs=60, images=600)
  )
  with browser.opened(path, PHONE) as found:
    page = found.page
    assert _ids(page) == SECTIONS
    assert page.evaluate("document.scripts.length") == 0
    assert report_fakes.HOSTILE in page.text_content("h1")
    # Every link of the table of contents leads somewhere.
    targets = page.evaluate(
      "[...document.querySelectorAll('nav a')]"
      ".map(a => document.querySelector(a.hash) !== null)"
    )
    assert targets == [True] * len(SECTIONS)
    for width in (PHONE, 1280):
      page.set_viewport_size({"width": width, "height": 844})
      assert found.width <= width
      assert _wider(page) == []
    grounds = {}
    for scheme in ("light", "dark"):
      page.emulate_media(color_scheme=scheme)
      grounds[scheme] = page.evaluate(
        "getComputedStyle(document.body).backgroundColor"
      )
    assert grounds == {"light": "rgb(243, 245, 247)", "dark": "rgb(20, 24, 28)"}
    assert found.complaints == []
    assert found.requests[0] == path.as_uri()
    assert all(url.startswith("data:") for url in found.requests[1:])


def _wider(page):
  """What is wider than the window but in no box that scrolls."""
  return page.evaluate(
    "[...document.querySelectorAll('main *')].filter(e => !e.closest("
    "'.scroll, svg') && e.getBoundingClientRect().right > innerWidth + 1)"
    ".map(e => e.outerHTML.slice(0, 200))"
  )


def test_report_of_a_run(pipeline):
  """Of `--mode=all`: sections, pictures, and the numbers of results.json."""
  results = json.loads((pipeline.work / "results.json").read_text())
  student = results["models"]["student"]
  path = pipeline.work / "report.html"
  assert path.stat().st_size < report_page.MAX_BYTES
  with browser.opened(path) as found:
    page = found.page
    assert found.width <= PHONE and found.complaints == []
    assert _wider(page) == []
    assert _ids(page) == SECTIONS
    rows = {(r[0], r[1]): r[2:] for r in _cells(page, "#scores")}
    for model, groups in results["models"].items():
      for group in (*GROUPS, "all"):
        images, top1, top5, value, *_ = rows[model, group]
        assert images == str(groups[group]["images"])
        assert top1 == f"{groups[group]['verb_top1']:.2f}"
        assert top5 == f"{groups[group]['verb_top5']:.2f}"
        stated = groups[group].get("value_top1")
        assert value == ("–" if stated is None else f"{stated:.2f}")
    # What the report counts itself agrees with what evaluation counted.
    counted = {r[0]: list(map(int, r[1:])) for r in _cells(page, "#teacher")}
    teacher = results["models"]["teacher zero-shot"]
    for group in (*GROUPS, "all"):
      both, only_student, only_teacher, neither = counted[group]
      total = student[group]["images"]
      assert both + only_student + only_teacher + neither == total
      assert 100 * (both + only_student) / total == pytest.approx(
        student[group]["verb_top1"]
      )
      assert 100 * (both + only_teacher) / total == pytest.approx(
        teacher[group]["verb_top1"]
      )
    # Pictures of training have four rationales each, of test none.
    training = page.locator("#rationales .card")
    assert training.count() >= 4
    assert training.locator("dl + dl dt").count() == 4 * training.count()
    assert page.locator("#examples .card dl + dl").count() == 0
    assert page.locator("#examples .card image").count() >= 12


def test_pixels_are_read_of_what_is_shown(
  pipeline,
  tmp_path,
  monkeypatch,
):
  read = []
  image = image_split.ImageSplit.image

  def counted(self, index):
    read.append((self.name, index))
    return image(self, index)

  monkeypatch.setattr(image_split.ImageSplit, "image", counted)
  work = tmp_path / "work"
  shutil.copytree(pipeline.work, work)
  (work / "report.html").unlink()
  settings = pipeline.config(work)
  stages.run(settings, "report")
  page = (work / "report.html").read_text(encoding="utf-8")
  assert len(read) == len(set(read)) == page.count("<article") > 20
  # Another checkpoint's scores are not shown beside this one's images.
  results = json.loads((work / "results.json").read_text())
  files.write_results(work, results | {"step": 999})
  with pytest.raises(InputError, match="step 999 -> ") as error:
    stages.run(settings, "report")
  assert "--mode=eval" in error.value.remedy
  (work / "results.json").unlink()
  with pytest.raises(InputError, match=r"there is no .*results\.json"):
    stages.run(settings, "report")
  assert (work / "report.html").read_text(encoding="utf-8") == page


def test_only_situations_have_a_report():
  config = types.SimpleNamespace(task="interactions", workdir="nowhere")
  with pytest.raises(InputError, match="interactions"):
    report_stage.report(config, None)


def test_what_is_missing_is_said():
  none = report_fakes.report(
    rows=report_fakes.rows(teacher=False),
    trade=None,
    examples={(k, g): [] for k in ("best", "typical", "worst") for g in GROUPS},
    student_ahead=[],
    teacher_ahead=[],
    training=[],
  )
  page = report_page.render(none)
  for words in ("no verbs of the teacher", "no rationales", "no such image"):
    assert words in page
  assert "Trained against untrained" not in page


def test_a_whole_test_split_fits():
  """25,200 images of 504 verbs, and pictures that hardly compress."""
  page = report_page.render(
    report_fakes.report(images=25_200, verbs=504, pictures=_pictures()[-1:])
  )
  assert page.count("<article") >= 22
  assert len(page.encode()) < report_page.MAX_BYTES
