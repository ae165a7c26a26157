"""Which changes to the code make another cache, and which do not."""

import functools
import pathlib
import shutil

import pytest

from input_pipeline.feature_cache import source_code
from input_pipeline.ov_swig.builder import SwigDataset
from mipd_jax.rationales import interactions, jrg
from mipd_jax.rationales.source import TemplateRationales
from mipd_jax.stages import prepare
from mipd_jax.teachers import (
  blip2,
  cache_plan,
  clip,
  image_teachers,
  siglip,
)
from mipd_jax.teachers.checkpoints import tokenizer
from mipd_jax.teachers.siglip import towers
from tests.fakes import fakes

_TEACHERS = "mipd_jax/teachers"
_NO_WORDS = tokenizer.Tokenizer(None)


def _clip() -> clip.Clip:
  return clip.Clip("name", "revision", None, None, {}, _NO_WORDS)


def _siglip() -> siglip.Siglip:
  image, text = towers.VisionTower(None), towers.TextTower(None)
  return siglip.Siglip("name", "revision", image, text, None, {}, _NO_WORDS)


@functools.cache
def _entries(kind: str) -> tuple[str, ...]:
  """Of caches with a teacher of some kind."""
  teacher = image_teachers.ZeroShotTeacher(fakes.FakeClip())
  things = [SwigDataset, _clip(), teacher, TemplateRationales()]
  if kind == "blip2":
    teacher = image_teachers.Blip2Teacher.__new__(image_teachers.Blip2Teacher)
    nothing = dict.fromkeys(blip2.Blip2.__dataclass_fields__)
    teacher._model = blip2.Blip2(**nothing)
    things[2] = teacher
  if kind == "siglip":
    things[1] = _siglip()
  if kind == "jrg":
    things[3] = jrg.JrgRationales(None, "out")
  return (cache_plan._START, *source_code.entries_of(*things))


def _digests(kind: str, root: pathlib.Path | None = None) -> dict[str, str]:
  return source_code.reached(_entries(kind), root)


@functools.cache
def _before(kind: str) -> dict[str, str]:
  return _digests(kind)


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
  """The packages in another folder."""
  root = tmp_path_factory.mktemp("elsewhere")
  for name in source_code.PACKAGES:
    shutil.copytree(
      source_code.ROOT / name,
      root / name,
      ignore=shutil.ignore_patterns("__pycache__", "*.json"),
    )
  return root


def _changed(root, kind, file, old, new) -> set[str]:
  """Modules whose digests an edit changes."""
  path = root / file
  text = path.read_text()
  assert old in text, f"{file} has no {old!r}"
  path.write_text(text.replace(old, new, 1))
  try:
    after = _digests(kind, root)
  finally:
    path.write_text(text)
  return {
    name
    for name in {*_before(kind), *after}
    if _before(kind).get(name) != after.get(name)
  }


@pytest.mark.parametrize(
  ("kind", "file", "old", "new"),
  [
    ("clip", f"{_TEACHERS}/clip.py", "/ 255.0", "/ 256.0"),
    ("clip", f"{_TEACHERS}/clip.py", "text_projection", "visual_projection"),
    (
      "clip",
      f"{_TEACHERS}/checkpoints/tokenizer.py",
      "truncation=True",
      "truncation=0",
    ),
    (
      "clip",
      f"{_TEACHERS}/checkpoints/hf_weights.py",
      "(3, 2, 0, 1)",
      "(2, 3, 0, 1)",
    ),
    ("clip", f"{_TEACHERS}/checkpoints/hf_config.py", "0.4578275", "0.4578276"),
    ("clip", f"{_TEACHERS}/encoding.py", "scale * image", "image"),
    ("clip", f"{_TEACHERS}/labels.py", "a photo of {verb}", "{verb}"),
    ("clip", f"{_TEACHERS}/labels.py", "_SYNONYMS = 2", "_SYNONYMS = 3"),
    (
      "clip",
      f"{_TEACHERS}/precompute.py",
      "for four in texts",
      "for four in []",
    ),
    (
      "clip",
      "mipd_jax/rationales/wording.py",
      "return glosses",
      "return None or glosses",
    ),
    ("clip", "input_pipeline/geometry.py", "return", "return None or"),
    (
      "clip",
      "input_pipeline/feature_cache/int8.py",
      "LEVELS = 127",
      "LEVELS = 9",
    ),
    ("blip2", f"{_TEACHERS}/image_teachers.py", "_GREY = 127", "_GREY = 0"),
    ("blip2", f"{_TEACHERS}/blip2/decoders/opt.py", "return", "return None or"),
    ("blip2", f"{_TEACHERS}/blip2/vision.py", "return", "return None or"),
    ("blip2", f"{_TEACHERS}/blip2/weights.py", "return", "return None or"),
    ("siglip", f"{_TEACHERS}/siglip/encoder.py", "/ 255.0", "/ 256.0"),
    ("siglip", f"{_TEACHERS}/siglip/towers.py", "x[:, -1]", "x[:, 0]"),
    ("siglip", f"{_TEACHERS}/blip2/layers.py", "return", "return None or"),
    ("jrg", "mipd_jax/rationales/rules.py", "return", "return None or"),
    ("jrg", "mipd_jax/rationales/prompts.py", "return", "return None or"),
  ],
)
def test_code_that_encodes_is_named(copy, kind, file, old, new):
  module = file.removesuffix(".py").replace("/", ".")
  assert _changed(copy, kind, file, old, new) == {module}


@pytest.mark.parametrize(
  ("kind", "file", "old", "new"),
  [
    # How it looks.
    ("clip", f"{_TEACHERS}/clip.py", "\n@dataclasses", "\n# x\n\n@dataclasses"),
    ("clip", f"{_TEACHERS}/clip.py", "A frozen CLIP,", "Frozen,"),
    ("clip", f"{_TEACHERS}/clip.py", '"""Loads any CLIP', '"""Loads a CLIP'),
    ("clip", f"{_TEACHERS}/clip.py", '    """N."""\n', ""),
    ("clip", f"{_TEACHERS}/clip.py", "jnp.asarray(pixels, jnp.float32)",
     "jnp.asarray(\n      pixels,\n      jnp.float32,\n    )"),
    ("clip", f"{_TEACHERS}/clip.py", "-> jax.Array:", '-> "jax.Array":'),
    ("clip", f"{_TEACHERS}/clip.py", "give the folder of a CLIP", "mend it"),
    ("clip", f"{_TEACHERS}/clip.py", '"model_type"', "'model_type'"),
    # Other code, in the same files and in others.
    ("clip", f"{_TEACHERS}/image_teachers.py", "_GREY = 127", "_GREY = 0"),
    ("clip", f"{_TEACHERS}/blip2/decoders/opt.py", "return", "return None or"),
    ("clip", f"{_TEACHERS}/siglip/towers.py", "return", "return None or"),
    ("clip", f"{_TEACHERS}/foundation.py", "return", "return None or"),
    ("clip", f"{_TEACHERS}/language/language_model.py", "return",
     "return None or"),
    ("clip", "mipd_jax/rationales/rules.py", "return", "return None or"),
    ("clip", "mipd_jax/losses/terms.py", "return", "return None or"),
    ("clip", "mipd_jax/models/layers.py", "return", "return None or"),
    ("clip", "input_pipeline/io/progress.py", "return", "return None or"),
    ("clip", "input_pipeline/io/lock.py", "return", "return None or"),
    ("clip", "input_pipeline/feature_cache/writer.py", "return",
     "return None or"),
    ("blip2", f"{_TEACHERS}/language/language_model.py", "return",
     "return None or"),
  ],
)  # fmt: skip
def test_anything_else_leaves_a_cache_good(copy, kind, file, old, new):
  assert _changed(copy, kind, file, old, new) == set()


def test_what_is_reached():
  clip_code, blip2_code = _before("clip"), _before("blip2")
  assert "transformers.models.clip.modeling_flax_clip" in clip_code
  assert not [name for name in clip_code if "blip2" in name]
  added = {*blip2_code} - {*clip_code}
  assert not [
    n for n in blip2_code if "losses" in n or "language.language_m" in n
  ]
  assert {n.rpartition(".")[2] for n in added} >= {"opt", "t5", "vision"}
  for name in ("clip.load", "blip2.weights.load"):
    assert f"{_TEACHERS}/{name}".replace("/", ".") in _entries("blip2")
  assert "mipd_jax.rationales.jrg" in _before("jrg")


def test_functions_in_functions_and_methods():
  """Who writes rationales of interactions is a function in a method."""

  def here(split):
    return interactions.InteractionFrames(None, split, None)

  here.__module__ = "mipd_jax.tasks.interactions"
  here.__qualname__ = "Interactions.rationales.<locals>.frames"
  source = jrg.JrgRationales(None, "out", frames=here)
  found = source_code.reached(source_code.entries_of(source))
  assert "mipd_jax.rationales.interactions" in found
  assert "mipd_jax.evaluation.interactions" not in found
  with pytest.raises(KeyError):
    source_code.reached(["mipd_jax.teachers.clip.loads"])
  with pytest.raises(KeyError):
    source_code.reached(["mipd_jax.teachers.clip.Clip.tokenise"])
  assert source_code.reached(["numpy.array"]) == {}


def test_statements_that_run_on_import_count(tmp_path):
  """Also of modules of which nothing is named."""
  package = tmp_path / "input_pipeline"
  package.mkdir()
  (package / "__init__.py").write_text("")
  (package / "a.py").write_text(
    "import input_pipeline.b\nX: int = 1\ndef f():\n  return X\n"
  )
  other = package / "b.py"
  digests = []
  for text in ("y = 1", "y = 2", "import jax\njax.config.update('a', 1)"):
    other.write_text(text)
    digests.append(source_code.reached(["input_pipeline.a.f"], tmp_path))
  assert digests[0] == digests[1]
  assert digests[2].keys() - digests[0].keys() == {"input_pipeline.b"}


@pytest.mark.parametrize(
  ("one", "other", "same"),
  [
    ("x = f'{a}b'", 'x = f"{a}b"', True),
    ("x = f'{a}' 'b'", "x = f'{a}b'", True),
    ("x = 'a' 'b'", "x = 'ab'", True),
    ("x = 1_000", "x = 1000", True),
    ("x = 1", "x = 1.0", False),
    ("x = 1", "x = True", False),
    ("x = 'a'", "x = b'a'", False),
    ("x = f'{a!r}b'", "x = f'{a}b'", False),
    ("x = f'{a:.2f}'", "x = f'{a:.3f}'", False),
    ("x = a < b", "x = a <= b", False),
    ("x = (a + b) * c", "x = a + b * c", False),
    ("def x(a: int) -> int:\n  return a", "def x(a):\n  return a", True),
    ("def x(a, b=1): return a", "def x(a, b=2): return a", False),
    ("def x(*, a): return a", "def x(a): return a", False),
    ("class x:\n  a: int = 1", "class x:\n  a: float = 1", False),
    ("class x:\n  'doc'\n  a = 1", "class x:\n  a = 1", True),
    ("def x():\n  'doc'", "def x(): pass", False),
    ("def x():\n  raise A('1')", "def x():\n  raise A('2')", True),
    ("def x():\n  assert a, 'b'", "def x():\n  assert a", True),
    ("def x():\n  assert a", "def x():\n  assert b", False),
    ("@a\ndef x(): pass", "@b\ndef x(): pass", False),
    ("x = [i for i in a]", "x = (i for i in a)", False),
  ],
)
def test_what_code_says(tmp_path, one, other, same):
  (tmp_path / "mipd_jax").mkdir()
  found = []
  for text in (one, other):
    (tmp_path / "mipd_jax/m.py").write_text(text)
    found.append(source_code.reached(["mipd_jax.m.x"], tmp_path))
  assert (found[0] == found[1]) == same


def test_the_note_of_a_finished_cache_covers_the_plan():
  """Nothing that the plan would refuse goes through without a look at it."""
  note = prepare._code()
  for kind in ("clip", "siglip", "blip2", "jrg"):
    data = source_code.reached(source_code.entries_of(SwigDataset))
    assert {*_before(kind)} <= {*note, *data}
