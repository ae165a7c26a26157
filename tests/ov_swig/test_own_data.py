"""The worked example of docs/own_data.md runs as it stands."""

import re

from tests.fixtures.pipeline_fixture import ROOT

_BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def test_worked_example(tmp_path, monkeypatch, capsys):
  text = (ROOT / "docs" / "own_data.md").read_text()
  blocks = _BLOCK.findall(text)
  assert len(blocks) == 4
  monkeypatch.chdir(tmp_path)
  names: dict = {}
  for block in blocks:
    exec(compile(block, "docs/own_data.md", "exec"), names)
  out = capsys.readouterr().out
  assert "images: all whole" in out
  # The last block prints the verb of every dev image, by plain TFDS.
  assert out.splitlines()[-9:].count("high jumping") == 3
  assert (tmp_path / "club/SWiG_jsons/ov_splits.md").exists()


def test_commands_of_the_page_exist():
  text = (ROOT / "docs" / "own_data.md").read_text()
  modules = set(re.findall(r"python -m ([\w.]+)", text))
  assert modules >= {
    "input_pipeline.split_maker",
    "input_pipeline.ov_swig",
  }
  for module in modules:
    path = ROOT / module.replace(".", "/")
    command = path.with_suffix(".py"), path / "__main__.py"
    assert any(x.is_file() for x in command), module
