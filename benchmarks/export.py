"""Exports the demo's student with each kind of weights and measures the result.

    python -m benchmarks.export --write

For float32, bfloat16 and int8 weights: bytes of the folder's parts; what the
loader needs in its own process with only jax and numpy (seconds to compile,
milliseconds per batch, memory); and how far the results are from the
predictor's on images of the test split. Also the program at the paper's sizes,
from shapes, without weights. `--write` updates docs/export_table.md,
docs/export.json, and docs/export.md, which includes the table.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import figures
from benchmarks.support import published_sizes, true_sizes
from input_pipeline.io import atomic
from input_pipeline.schema import MAX_ROLES
from mipd_jax import presets
from mipd_jax.devices import sharding
from mipd_jax.exporting import exported_folder, programs, weights
from mipd_jax.inference import Predictor, workdir
from mipd_jax.inference import pictures as image_lib
from mipd_jax.models.mipd import Mipd
from mipd_jax.teachers import clip as clip_lib

ROOT = pathlib.Path(__file__).resolve().parent.parent
TABLE, JSON = ROOT / "docs" / "export_table.md", ROOT / "docs" / "export.json"
PAGE = ROOT / "docs" / "export.md"
BATCHES = (1, 16)
_TOP_K = 5
_RUNS = 30
# The script of a user's process; argv: folder, batch sizes, repetitions.
_MEASURE = """
import json, pathlib, resource, statistics, sys, time
folder, batches = pathlib.Path(sys.argv[1]), map(int, sys.argv[2].split(","))
sys.path.insert(0, str(folder))
import jax, numpy as np
from jax import export
from load import tensors
def peak():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
jax.block_until_ready(jax.numpy.zeros(1) + 1)
found = {"start_mib": peak()}
blob = bytearray((folder / "baked.stablehlo").read_bytes())
program = jax.jit(export.deserialize(blob).call)
arrays = jax.device_put(tensors(folder / "weights.safetensors"))
side = json.loads((folder / "labels.json").read_text())["side"]
rng = np.random.default_rng(0)
for size in batches:
  inputs = (rng.integers(0, 256, (size, side, side, 3), np.uint8),
            np.full((size, 2), side, np.int32), np.full(size, -1, np.int32))
  start = time.perf_counter()
  compiled = program.lower(arrays, *inputs).compile()
  seconds = time.perf_counter() - start
  memory, times = compiled.memory_analysis(), []
  for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    jax.block_until_ready(compiled(arrays, *inputs))
    times.append(time.perf_counter() - start)
  found[f"batch_{size}"] = {
    "compile_s": seconds, "median_ms": 1000 * statistics.median(times),
    "least_ms": 1000 * min(times),
    "arguments_mib": memory.argument_size_in_bytes / 2**20,
    "temporary_mib": memory.temp_size_in_bytes / 2**20}
found["peak_mib"] = peak()
print(json.dumps(found))
"""


def measured(path: pathlib.Path) -> dict[str, Any]:
  """Measurements of an exported folder in the loader's own process."""
  done = subprocess.run(
    [
      *(sys.executable, "-c", _MEASURE, str(path)),
      *(",".join(map(str, BATCHES)), str(_RUNS)),
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise RuntimeError(done.stderr)
  return json.loads(done.stdout.splitlines()[-1])


def compared(
  path: pathlib.Path,
  images: Sequence[pathlib.Path],
  expected: Sequence[Mapping[str, Any]],
) -> dict[str, float]:
  """Differences of the folder's results from `Prediction.to_dict`.

  Both fill the frame of the predictor's best verb.
  """
  sys.path.insert(0, str(path))
  try:
    import predict  # the folder's own

    student = predict.Student(path, exported_folder.BAKED)
    pixels, sizes = zip(
      *(_letterboxed(predict, name, student) for name in images), strict=True
    )
    predicted = student(pixels, sizes, [one["verb"] for one in expected])
  finally:
    sys.path.remove(str(path))
    for name in ("predict", "load"):
      sys.modules.pop(name, None)
  gaps, verbs, nouns, boxes = [], [], [], []
  for mine, other in zip(predicted, expected, strict=True):
    gaps += _gaps(mine["verbs"], other["verbs"], "verb")
    verbs.append(mine["verbs"][0]["verb"] == other["verbs"][0]["verb"])
    longer = max(mine["width"], mine["height"])
    for a, b in zip(mine["roles"], other["roles"], strict=True):
      gaps += _gaps(a["nouns"], b["nouns"], "noun")
      nouns.append(a["nouns"][0]["noun"] == b["nouns"][0]["noun"])
      if a["box"] and b["box"]:
        boxes.append(np.abs(np.subtract(a["box"], b["box"])).max() / longer)
  return {
    "images": len(images),
    "roles": len(nouns),
    "probability": max(gaps),
    "box": float(max(boxes)),
    "same_verb": float(np.mean(verbs)),
    "same_noun": float(np.mean(nouns)),
  }


def _letterboxed(predict, name: pathlib.Path, student):
  picture = image_lib.open_image(name, name.name)
  return predict.letterbox(picture.pixels, student.labels["side"])


def _gaps(mine, other, key: str) -> list[float]:
  """Differences in probability of the names that both lists have."""
  shares = {guess[key]: guess["probability"] for guess in other}
  return [
    abs(guess["probability"] - shares[guess[key]])
    for guess in mine
    if guess[key] in shares
  ]


@dataclasses.dataclass(frozen=True)
class _Sized:
  """Of `workdir.Opened` what a program is traced from."""

  model: Mipd
  encoder: clip_lib.Clip
  token_dtype: str = "bfloat16"


def true_size() -> dict[str, Any]:
  """Size of the program at the paper's sizes, and bytes of its weights."""
  config = published_sizes.clip_config(published_sizes.STUDENT_CLIP)
  module, shapes = clip_lib.build(config)
  clip = clip_lib.Clip("", "", module, config, shapes, None)
  model = Mipd(presets.preset_defaults("mipd")[0], true_sizes.SIZES)
  batch = true_sizes.batch_shapes(1)
  banks = true_sizes.bank_shapes()
  params = jax.eval_shape(
    lambda: model.init(
      jax.random.key(0),
      *(jax.tree.map(_zeros, tree) for tree in (batch, banks)),
      method=model.predict,
    )
  )["params"]
  leaves = weights.names(
    {programs.ENCODER: clip.image_params, programs.STUDENT: params}
  )
  dtypes = {name: np.dtype(leaf.dtype) for name, leaf in leaves.items()}
  start = time.perf_counter()
  blob = programs.exported(
    _Sized(model, clip), leaves, dtypes, _words(banks), _TOP_K, baked=False
  )
  return {
    "parameters": sum(math.prod(x.shape) for x in leaves.values()),
    "trace_s": time.perf_counter() - start,
    "program_bytes": len(blob.serialize()),
    "weights_bytes": {
      kind: sum(_bytes(x.shape, kind) for x in leaves.values())
      for kind in weights.DTYPES
    },
  }


def _zeros(shape):
  return jnp.zeros(shape.shape, shape.dtype)


def _bytes(shape: Sequence[int], kind: str) -> int:
  count = math.prod(shape)
  if kind == "int8" and len(shape) > 1:
    return count + 4 * shape[-1]
  return count * (2 if kind == "bfloat16" else 4)


def _words(banks) -> dict[str, jax.ShapeDtypeStruct]:
  verbs, nouns = banks["verb_text"].shape[0], banks["noun_text"].shape[0]
  shape = jax.ShapeDtypeStruct
  return {
    "verb_text": banks["verb_text"],
    "verb_mask": shape((verbs,), np.bool_),
    "verb_row": shape((verbs,), np.int32),
    "roles": shape((verbs, MAX_ROLES), np.int32),
    "role_text": banks["role_text"],
    "noun_text": banks["noun_text"],
    "noun_column": shape((nouns,), np.int32),
    "noun_mask": shape((nouns,), np.bool_),
    "noun_bank": banks["noun_text"],
    "by_text": shape((), np.bool_),
  }


def table(results: Mapping[str, Any]) -> str:
  """The figures in Markdown."""
  kinds = results["weights"]
  rows = [
    ("weights on disk, KiB", lambda x: f"{x['bytes'] / 1024:,.0f}"),
    ("whole folder, KiB", lambda x: f"{x['folder_bytes'] / 1024:,.0f}"),
  ]
  for size in BATCHES:
    name = f"batch_{size}"
    rows += [
      (
        f"{size} image{'s' * (size > 1)}, ms (median)",
        lambda x, name=name: f"{x[name]['median_ms']:.1f}",
      ),
      (
        f"{size} image{'s' * (size > 1)}, temporary memory, MiB",
        lambda x, name=name: f"{x[name]['temporary_mib']:.1f}",
      ),
    ]
  rows += [
    ("compile, s", lambda x: f"{x['batch_1']['compile_s']:.1f}"),
    (
      "process, MiB at its most (before the student)",
      lambda x: f"{x['peak_mib']:.0f} ({x['start_mib']:.0f})",
    ),
    (
      "probabilities, largest difference",
      lambda x: f"{x['compared']['probability']:.1e}",
    ),
    (
      "boxes, largest difference, canvas sides",
      lambda x: f"{x['compared']['box']:.1e}",
    ),
    ("same best verb", lambda x: f"{x['compared']['same_verb']:.1%}"),
    ("same best noun", lambda x: f"{x['compared']['same_noun']:.1%}"),
  ]
  lines = ["| weights | " + " | ".join(kinds) + " |"]
  lines.append("|---" + "|--:" * len(kinds) + "|")
  for name, cell in rows:
    lines.append(f"| {name} | " + " | ".join(map(cell, kinds.values())) + " |")
  lines += ["", _about(results)]
  if results["true_size"]:
    lines += ["", _true(results["true_size"])]
  return "\n".join(lines) + "\n"


def _about(results: Mapping[str, Any]) -> str:
  same = next(iter(results["weights"].values()))["compared"]
  return (
    f"{same['images']} test images, {same['roles']} roles, compared with the "
    "predictor (float32); the frame filled is its best verb's. Times on "
    f"{results['device']}, 2 cores shared with other work: they say little "
    "beyond their order."
  )


def _true(true: Mapping[str, Any]) -> str:
  sizes = ", ".join(
    f"{size / 2**20:,.0f} MiB as {kind}"
    for kind, size in true["weights_bytes"].items()
  )
  return (
    "At the paper's sizes (CLIP ViT-L/14 at 336 pixels, 504 verbs, 9,929 "
    f"nouns), by shapes alone: {true['parameters'] / 1e6:,.0f} M parameters, "
    f"{sizes}; the program that is passed its words has "
    f"{true['program_bytes'] / 1024:,.0f} KiB."
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument("--demo", default="runs/synthetic")
  parser.add_argument("--images", type=int, default=128)
  parser.add_argument("--write", action="store_true")
  given = parser.parse_args()
  mesh = sharding.make_mesh(devices=jax.local_devices()[:1])
  opened = workdir.open_workdir(given.demo, mesh)
  images = _test_images(opened, given.images)
  predictor = Predictor(opened, mesh, 16)
  expected = [one.to_dict() for one in predictor.predict(images, top_k=_TOP_K)]
  results: dict[str, Any] = {"device": jax.devices()[0].platform, "weights": {}}
  for kind in weights.DTYPES:
    with tempfile.TemporaryDirectory() as temporary:
      out = pathlib.Path(temporary) / kind
      settings = exported_folder.Settings(
        (exported_folder.BAKED,), kind, _TOP_K
      )
      sizes = exported_folder.write(opened, out, None, settings)
      results["weights"][kind] = {
        "bytes": sizes[exported_folder.WEIGHTS],
        "folder_bytes": sum(sizes.values()),
        **measured(out),
        "compared": compared(out, images, expected),
      }
    print(json.dumps({kind: results["weights"][kind]}), flush=True)
  for part in (lambda: None, true_size):  # the quick ones are kept at once
    results["true_size"] = part()
    print(table(results), flush=True)
    if given.write:
      _write(results)


def _write(results: Mapping[str, Any]) -> None:
  contents = {TABLE: table(results), JSON: json.dumps(results, indent=1) + "\n"}
  for path, text in contents.items():
    with atomic.replacing(path) as temporary:
      temporary.write_text(text)
  text = figures.filled(PAGE.read_text())
  with atomic.replacing(PAGE) as temporary:
    temporary.write_text(text)


def _test_images(opened: workdir.Opened, count: int) -> list[pathlib.Path]:
  """Images of the test split, evenly spaced by name."""
  place = pathlib.Path(opened.config.dataset.folder)
  names = sorted(json.loads((place / "SWiG_jsons/test.json").read_text()))
  step = max(1, len(names) // count)
  return [place / "images_512" / name for name in names[::step][:count]]


if __name__ == "__main__":
  main()
