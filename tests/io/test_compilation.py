"""Compiled programs that are kept between runs are those of their names."""

import json
import os
import pathlib
import subprocess
import sys

from mipd_jax.devices import compilation

_ROOT = pathlib.Path(__file__).resolve().parents[2]
_RUN = """
import sys
from mipd_jax.devices import compilation
compilation.set_up(sys.argv[1], quick=False)
import jax
print(jax.jit(lambda x: x + 1)(1), jax.jit(lambda x: x + 2)(1))
"""


def _run(folder) -> str:
  environment = {
    **os.environ,
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "XLA_FLAGS": "",
  }
  del environment["JAX_COMPILATION_CACHE_DIR"]
  done = subprocess.run(
    [sys.executable, "-c", _RUN, str(folder)],
    cwd=_ROOT,
    env=environment,
    capture_output=True,
    text=True,
    check=True,
  )
  return done.stdout.strip()


def test_exchanged_programs_are_compiled_again(tmp_path):
  """Both add one number to a number: jax itself cannot tell."""
  assert _run(tmp_path) == "2 3"
  (folder,) = (p for p in tmp_path.iterdir() if p.is_dir())
  noted = json.loads((folder / "programs.json").read_text())
  programs = sorted(folder.glob("jit__lambda*-cache"))
  assert len(programs) == 2 and {p.name for p in programs} <= set(noted)
  contents = [path.read_bytes() for path in programs]
  for path, content in zip(programs, reversed(contents), strict=True):
    path.write_bytes(content)
  assert _run(tmp_path) == "2 3"
  assert [path.read_bytes() for path in programs] != contents[::-1]


def test_a_note_that_cannot_be_read_names_nothing(tmp_path):
  program = tmp_path / "jit_a-cache"
  program.write_bytes(b"program")
  for note in (b"\xff", b"[" * 10**5, b"[1]", b'{"jit_a-cache": 1}'):
    (tmp_path / "programs.json").write_bytes(note)
    compilation.remove_strangers(tmp_path)
  assert not program.exists()  # the last is another digest
  compilation.note_programs(tmp_path / "nowhere")
