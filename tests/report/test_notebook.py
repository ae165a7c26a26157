"""The Colab notebook: its code in `make test`, all of it in `make test-all`."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.fixtures import pipeline_fixture
from tests.fixtures.pipeline_fixture import ROOT

NOTEBOOK = ROOT / "notebooks" / "mipd_colab.ipynb"


def _notebook():
  return json.loads(NOTEBOOK.read_text(encoding="utf-8"))


def _cell(notebook, name):
  return next(cell for cell in notebook["cells"] if cell["id"] == name)


def _set(notebook, **values):
  """Parameters take the place of those in the notebook; all are known."""
  cell = _cell(notebook, "parameters")
  lines = [line.split(" = ")[0] for line in cell["source"]]
  assert set(values) <= set(lines)
  cell["source"] += ["\n", *(f"{k} = {v!r}\n" for k, v in values.items())]


def _code(notebook):
  cells = [c for c in notebook["cells"] if c["cell_type"] == "code"]
  return "\n".join("".join(cell["source"]) + "\n" for cell in cells)


def test_stored_without_outputs_and_legible_in_diffs():
  notebook = _notebook()
  text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
  assert NOTEBOOK.read_text(encoding="utf-8") == text
  for cell in notebook["cells"]:
    assert all(len(line) <= 81 for line in cell["source"]), cell["id"]
    if cell["cell_type"] == "code":
      assert cell["outputs"] == [] and cell["execution_count"] is None
  kinds = [cell["cell_type"] for cell in notebook["cells"]]
  assert kinds[0] == "markdown" and kinds.count("code") >= 8


def test_code_of_the_cells(pipeline, tmp_path):
  """As one script beside a run that is trained: looks, asks, shows."""
  work = tmp_path / "work"
  shutil.copytree(pipeline.work, work)
  (work / "report.html").unlink()
  notebook = _notebook()
  flags = pipeline_fixture.folders(pipeline.folder).items()
  _set(
    notebook,
    FOLDER=str(ROOT),
    CONFIG="configs/synthetic.py:debug",
    WORKDIR=str(work),
    FLAGS=["--mode=report", *(f"--config.{k}={v}" for k, v in flags)],
  )
  script = tmp_path / "notebook.py"
  script.write_text(_code(notebook), encoding="utf-8")
  done = subprocess.run(
    [sys.executable, str(script)],
    cwd=tmp_path,
    env=_environment() | {"PYTHONPATH": str(ROOT)},
    capture_output=True,
    text=True,
    timeout=900,
    check=False,
  )
  assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
  assert (work / "report.html").exists()
  assert "IPython.core.display.HTML" in done.stdout
  # Two test images, one with other words, one's own: drawn, and three verbs.
  assert done.stdout.count("<PIL.Image.Image") == 4
  asked = [line for line in done.stdout.splitlines() if line.count("%") == 3]
  assert len(asked) == 4


def _environment():
  """One device; pip says what it would do and does nothing."""
  return pipeline_fixture.environment() | {
    "PIP_DRY_RUN": "1",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
  }


def _copy_of_the_tree(folder):
  """A git repository of the files as they are now."""
  listed = subprocess.run(
    ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  if listed.returncode:
    pytest.skip("not a git checkout")
  for name in filter(None, listed.stdout.split("\0")):
    if (ROOT / name).is_file():
      (folder / name).parent.mkdir(parents=True, exist_ok=True)
      shutil.copy(ROOT / name, folder / name)
  who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
  for command in (("init", "-q"), ("add", "-A"), (*who, "commit", "-qm", "x")):
    subprocess.run(["git", *command], cwd=folder, check=True)
  return folder


@pytest.mark.slow
def test_from_top_to_bottom(tmp_path, monkeypatch):
  """In a kernel, from an empty folder: clone, train, look, ask, real data."""
  import nbclient
  import nbformat

  repository = _copy_of_the_tree(tmp_path / "origin")
  data = tmp_path / "code" / "runs" / "data" / "debug"
  raw = _notebook()
  encoders = {
    "student_encoder": "student_clip",
    "teacher_encoder": "teacher_blip2",
    "text_encoder": "teacher_clip",
  }
  _set(
    raw,
    REPOSITORY=str(repository),
    FOLDER=str(tmp_path / "code"),
    CONFIG="configs/synthetic.py:debug",
    SWIG=str(data / "world"),
    SWIG_CONFIG="configs/ov_swig.py:debug",
    SWIG_FLAGS=[
      "--config.model.hidden=32",
      "--config.model.heads=4",
      "--config.teacher.text_length=56",
      f"--config.teacher.cache={tmp_path / 'real-cache'}",
      *(
        f"--config.teacher.{field}={data / 'foundation' / name}"
        for field, name in encoders.items()
      ),
    ],
  )
  for name, value in _environment().items():
    monkeypatch.setenv(name, value)
  notebook = nbformat.reads(json.dumps(raw), as_version=4)
  nbformat.validate(notebook)
  (tmp_path / "start").mkdir()
  client = nbclient.NotebookClient(
    notebook,
    timeout=3600,  # of a cell
    kernel_name="python3",
    resources={"metadata": {"path": str(tmp_path / "start")}},
  )
  try:
    client.execute()
  finally:
    if keep := os.environ.get("NOTEBOOK_OUT"):
      nbformat.write(notebook, keep)
  outputs = [o for c in notebook.cells for o in c.get("outputs", [])]
  kinds = [kind for o in outputs for kind in o.get("data", {})]
  assert kinds.count("image/png") >= 5  # the sheet, and four drawings
  assert "text/markdown" in kinds and "text/html" in kinds
  assert not [o for o in outputs if o.output_type == "error"]
  results = tmp_path / "code" / "runs" / "ov_swig" / "results.json"
  assert json.loads(results.read_text())["models"]["student"]["all"]["images"]
