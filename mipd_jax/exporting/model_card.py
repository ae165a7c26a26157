"""The model card of an exported folder."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np

from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig.vocabulary import PAD
from mipd_jax.exporting import programs as programs_lib
from mipd_jax.inference import programs
from mipd_jax.inference.lexicon import Lexicon
from mipd_jax.inference.workdir import Opened
from mipd_jax.report import files, tables
from mipd_jax.report.tables import cell

if TYPE_CHECKING:
  from mipd_jax.exporting.exported_folder import Settings

_PARTS = {
  "baked.stablehlo": "the program with the words inside",
  "passed.stablehlo": "the program that is given words.safetensors",
  "weights.safetensors": "parameters of image encoder and student",
  "words.safetensors": "embeddings and frames of the words",
  "labels.json": "the words by name; inputs and outputs",
  "load.py": "the program as a function of arrays; jax and numpy alone",
  "predict.py": "the same in words and pixels; Pillow to read images",
  "flatbuffers.zip": "Google's flatbuffers {version} (Apache 2.0), which "
  "jax.export reads with; unused where it is installed",
}
_EVALUATE = "evaluate again: --mode=eval"
_LICENCE = """\
Unknown: nobody has stated one for these weights. They come from the encoder
and the data named above, whose own terms hold for what is made of them; look
them up before you pass this folder on. flatbuffers.zip is under Apache 2.0.
"""
_USE = """\
```
python predict.py photo.jpg
```

```python
from predict import Student, letterbox

student = Student()                     # or Student(folder, form="passed")
pixels, size = letterbox(Image.open("photo.jpg"), student.labels["side"])
print(student([pixels], [size]))        # as many images as you like
```

`load.py` has the program as a plain function, for those who make their own
pixels. It is compiled at its first call, and for each number of images and of
words anew. Newer versions of jax read this file for six months at least after
{version} came out, by jax's own promise; a TPU and a GPU run it like a CPU.
`predict.py` sees an image as the predictor does: upright by its EXIF tag,
transparent parts white, 16 bits and floats as 8, huge ones shrunk first.
"""


def card(
  opened: Opened,
  lexicon: Lexicon,
  settings: "Settings",
  params: Mapping[str, np.ndarray],
  sizes: Mapping[str, int],
) -> str:
  """The text of README.md.

  Args:
    opened: the student.
    lexicon: its words.
    settings: of the export.
    params: the exported parameters.
    sizes: bytes of each file.
  """
  config, count = opened.config, sum(x.size for x in params.values())
  words = "of training" if _own(opened, lexicon) else "given at export"
  compare = lexicon.nouns.rule
  lines = [
    f"# {cell(config.name)}, step {opened.step}",
    "",
    "A student for grounded situation recognition: the activity in an image, "
    "a noun and a box for each role of its frame. Exported with jax "
    f"{jax.__version__} for {', '.join(programs_lib.PLATFORMS)}.",
    "",
    "| | |",
    "|---|---|",
    f"| Architecture | MIPD student, preset {cell(config.preset)}, "
    f"{count / 1e6:.1f} M parameters with the image encoder |",
    f"| Image encoder | {cell(config.teacher.student_encoder)} "
    f"(sha256 {opened.encoder.revision[:12]}), "
    f"{opened.encoder.image_size} x {opened.encoder.image_size} pixels |",
    f"| Text encoder of the words | {cell(opened.text_encoder)} |",
    f"| Teacher | {_teacher(opened)} |",
    f"| Data | {cell(config.dataset.folder)}{_drawn(opened)}, vocabulary "
    f"{opened.words.fingerprint[:12]} |",
    f"| Words | {len(lexicon.verbs)} verbs, {len(lexicon.nouns.names)} nouns, "
    f"{words}; nouns compared {_RULES[compare]} |",
    f"| Weights | stored as {settings.weights}; arithmetic in "
    f"{np.dtype(opened.model.dtype).name}, encoder in {opened.encoder_dtype} |",
    "",
    "## Use",
    "",
    _USE.format(version=jax.__version__).strip(),
    "",
    "## Files",
    "",
    *_files(sizes),
    "",
    "## In and out",
    "",
    *_signature(settings.top_k),
    "",
    "## Scores",
    "",
    *_scores(opened),
    "",
    "## Licence",
    "",
    _LICENCE.strip(),
  ]
  return "\n".join(lines) + "\n"


_RULES = {
  programs.AS_EVALUATED: "as the evaluation does",
  programs.BY_TEXT: "by text alone, because some are new",
}


def _teacher(opened: Opened) -> str:
  """The student's teacher, and its texts."""
  config = opened.config
  if not (config.model.teacher_branch and config.objective.teacher_terms):
    return f"none: trained without (preset {cell(config.preset)})"
  written = files.author(opened.plan.rationales)
  return (
    f"{cell(config.teacher.teacher_encoder)}, not needed here; its rationales "
    f"written {written}"
  )


def _drawn(opened: Opened) -> str:
  drawn = opened.config.dataset.world is not None
  return ", a small world drawn by mipd_jax (no photographs)" if drawn else ""


def _own(opened: Opened, lexicon: Lexicon) -> bool:
  """Whether the words are those of training, padding aside."""
  nouns = tuple(name for name in opened.words.nouns if name != PAD)
  return lexicon.verbs == opened.words.verbs and lexicon.nouns.classes == nouns


def _files(sizes: Mapping[str, int]) -> list[str]:
  import flatbuffers

  rows = ["| file | bytes | what |", "|---|--:|---|"]
  for name, what in _PARTS.items():
    if name in sizes:
      what = what.format(version=flatbuffers.__version__)
      rows.append(f"| {name} | {sizes[name]:,} | {what} |")
  return rows


def _signature(top_k: int) -> list[str]:
  rows = ["The program takes weights, words if they are passed, then:", ""]
  rows += [f"- `{name}`: {what}" for name, what in programs_lib.INPUTS.items()]
  rows += ["", f"and gives, with k = {top_k}:", ""]
  rows += [f"- `{name}`: {what}" for name, what in programs_lib.OUTPUTS.items()]
  return rows


def _scores(opened: Opened) -> list[str]:
  """The tables of results.json, if they are of this checkpoint."""
  path = opened.folder / "results.json"
  if not path.exists():
    return ["None: this run was not evaluated (no results.json)."]
  try:
    results = files.read_results(opened.folder, files.REPORTED, _EVALUATE)
    blocks = [block for block in tables.blocks(results) if block.main]
  except (AttributeError, TypeError, KeyError) as error:
    raise InputError(
      f"{path} is of another shape: {error}", _EVALUATE
    ) from None
  lines = [
    f"On the {cell(results.get('split'))} split of "
    f"{cell(results.get('dataset'))}, in "
    "percent; measured with the vocabulary of training and float32 weights.",
  ]
  if results.get("step") != opened.step:
    lines.append(
      f"**They are of the checkpoint of step {cell(results.get('step'))}, not "
      "of this one.**"
    )
  for block in blocks:
    lines += ["", f"{cell(block.title)}:", ""]
    lines.append("| " + " | ".join(block.header) + " |")
    lines.append("|" + "---|" * len(block.header))
    lines += ["| " + " | ".join(map(cell, row)) + " |" for row in block.rows]
  return lines
