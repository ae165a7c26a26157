"""Writes an exported student as a folder, whole or not at all.

OUT/baked.stablehlo        the program with the words inside (jax.export)
OUT/passed.stablehlo       the program that takes words.safetensors
OUT/passed.sha256          its digest
OUT/weights.safetensors    parameters of image encoder and student
OUT/words.safetensors      arrays of the words, for `passed`
OUT/labels.json            the words by name; inputs and outputs explained;
                           digests of the other files and of itself
OUT/load.py, predict.py    what runs it; flatbuffers.zip, which jax reads with
OUT/README.md              the model card
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from safetensors.numpy import save_file

from input_pipeline import geometry
from input_pipeline.io import atomic, json_files, paths
from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.exporting import model_card, programs
from mipd_jax.exporting import weights as weights_lib
from mipd_jax.inference.lexicon import Lexicon
from mipd_jax.inference.texts import Texts
from mipd_jax.inference.word_lists import Lexicons
from mipd_jax.inference.words import Words
from mipd_jax.inference.workdir import Opened

BAKED, PASSED = "baked", "passed"
FORMS = (BAKED, PASSED)
DIGEST = "passed.sha256"
WEIGHTS, WORDS = "weights.safetensors", "words.safetensors"
LABELS, CARD, READER = "labels.json", "README.md", "flatbuffers.zip"
FORMAT = 2
_SCRIPTS = pathlib.Path(__file__).parent / "scripts"


@dataclasses.dataclass(frozen=True)
class Settings:
  """What is exported.

  Attributes:
    forms: of FORMS.
    weights: how parameters are stored, of `weights.DTYPES`.
    top_k: guesses of verbs, and of nouns for each role.
  """

  forms: tuple[str, ...] = FORMS
  weights: str = "float32"
  top_k: int = 5

  def __post_init__(self):
    if self.top_k < 1:
      raise InputError(f"top_k is {self.top_k}", "give a whole number from 1")
    if not self.forms or not set(self.forms) <= set(FORMS):
      raise InputError(f"forms are {self.forms}", f"choose of {FORMS}")
    if self.weights not in weights_lib.DTYPES:
      raise InputError(
        f"weights are {self.weights!r}", f"choose of {weights_lib.DTYPES}"
      )


def write(
  opened: Opened,
  out: str | os.PathLike[str],
  words: Words | None = None,
  settings: Settings | None = None,
) -> dict[str, int]:
  """Exports a student.

  Args:
    opened: from `workdir.open_workdir`.
    out: folder to make; an empty one may exist.
    words: the lists to choose from; the vocabulary of training if None.
    settings: what to export.

  Returns:
    Bytes of each file.

  Raises:
    InputError: the folder is taken, or a word cannot be used.
  """
  settings = settings or Settings()
  check_free(out)
  lexicon = resolve(opened, words or Words())
  arrays = programs.arrays(lexicon, settings.top_k)
  params = programs.parameters(opened)
  dtypes = {name: x.dtype for name, x in params.items()}
  weights = weights_lib.stored(params, settings.weights)
  labels = _labels(opened, lexicon, settings)
  with _whole_folder(pathlib.Path(out)) as folder:
    for form in settings.forms:
      exported = programs.exported(
        opened,
        weights,
        dtypes,
        arrays,
        settings.top_k,
        baked=form == BAKED,
      )
      (folder / f"{form}.stablehlo").write_bytes(exported.serialize())
    _save(weights, folder / WEIGHTS)
    if PASSED in settings.forms:
      _save(arrays, folder / WORDS)
    _pack_reader(folder / READER)
    digests = {
      path.name: hashlib.sha256(path.read_bytes()).hexdigest()
      for path in sorted(folder.iterdir())
    }
    name = f"{PASSED}.stablehlo"
    if name in digests:  # in its own file: it takes other words as well
      (folder / DIGEST).write_text(f"{digests.pop(name)}  {name}\n")
    labels["files"] = digests
    labels = json_files.sealed(labels)
    text = json.dumps(labels, indent=1, ensure_ascii=False)
    (folder / LABELS).write_text(text + "\n", encoding="utf-8")
    for script in ("load.py", "predict.py"):
      shutil.copyfile(_SCRIPTS / script, folder / script)
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    text = model_card.card(opened, lexicon, settings, params, sizes)
    (folder / CARD).write_text(text, encoding="utf-8")
  return sizes


def check_free(out: str | os.PathLike[str]) -> None:
  """Raises InputError if no folder can be made at `out`."""
  if paths.is_remote(out):
    raise InputError(
      f"--out={out} is in a bucket", "export to this machine and copy it there"
    )
  atomic.check_folder(out, "--out")
  path = pathlib.Path(out)
  if path.is_dir() and any(path.iterdir()):
    raise InputError(
      f"--out={out} is there already and not an empty folder",
      "name another folder, or delete it",
    )


def resolve(opened: Opened, words: Words) -> Lexicon:
  """Words with embeddings; new ones by the text encoder of training."""
  mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
  texts = Texts(
    opened.load_text_encoder, opened.text_revision, mesh, opened.folder
  )
  lexicons = Lexicons(
    opened.words,
    opened.banks,
    texts,
    queries_from_text=opened.config.model.role_queries == "text",
  )
  return lexicons.make(words)


def _labels(
  opened: Opened, lexicon: Lexicon, settings: Settings
) -> dict[str, Any]:
  return {
    "format": FORMAT,
    "name": opened.config.name,
    "step": opened.step,
    "jax": jax.__version__,
    "forms": list(settings.forms),
    "weights": settings.weights,
    "side": opened.encoder.image_size,
    "border_rgb": list(geometry.BORDER_RGB),
    "top_k": settings.top_k,
    "inputs": programs.INPUTS,
    "outputs": programs.OUTPUTS,
    **programs.labels(lexicon),
  }


def _save(arrays: Mapping[str, np.ndarray], path: pathlib.Path) -> None:
  save_file(dict(arrays), path, metadata={"format": "mipd_jax"})


def _pack_reader(path: pathlib.Path) -> None:
  """Packs the installed flatbuffers package, with its licence's name.

  `jax.export` cannot read a program without it, and jax does not require it.
  """
  import flatbuffers

  package = pathlib.Path(flatbuffers.__file__).parent
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
    for file in sorted(package.glob("*.py")):
      # A fixed date, so that equal files make equal archives.
      entry = zipfile.ZipInfo(f"flatbuffers/{file.name}")
      entry.compress_type = zipfile.ZIP_DEFLATED
      archive.writestr(entry, file.read_bytes())


@contextlib.contextmanager
def _whole_folder(out: pathlib.Path) -> Iterator[pathlib.Path]:
  """`atomic.new_folder`, renamed only when its files are on the disk."""
  with atomic.new_folder(out) as temporary:
    yield temporary
    for path in temporary.iterdir():
      atomic.publish(path, path)
