"""Sizes and costs of the real encoders, for docs/teachers.md.

    python -m benchmarks.teachers --write

No weights are needed: parameters are counted from shapes, and each program
of the precompute step is compiled at true size for a TPU topology, which
libtpu does without a TPU (`pip install -r requirements-tpu.txt`). Times are
the roofline's (benchmarks/support/tpu.py), a lower bound. Prints one JSON line
per program.

The verbs' token tree needs Flan-T5's tokenizer, which may be absent; a stand-in
cuts names into pieces of four letters and their ending (`pieces`), which is
roughly what SentencePiece does to English participles.
"""

import argparse
import functools
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from benchmarks.support import published_sizes, tpu
from mipd_jax.devices import chips, sharding
from mipd_jax.teachers import blip2, clip, encoding
from mipd_jax.teachers.blip2 import sharding_rules

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "teachers.json"
TABLE = ROOT / "docs" / "teachers_table.md"
IMAGES = {"train": 75_702, "all": 126_102}  # of SWiG
_TOPOLOGY = "v5e:2x4"
_VERBS, _ENDING = 504, "ing"
# Of SWiG: boxed roles of an image, and the nouns that fill a role in training,
# the mean over the frames' roles without "place", which has no box.
_BOXES, _NOUNS = 2.2, 1_877
_QUESTION_TOKENS = 14  # of the default question, by count of words and marks
_TEXT_LENGTH = 77


def pieces(verb: str) -> list[str]:
  """A stand-in for SentencePiece: four letters at a time, then "ing"."""
  stem = verb.removesuffix(_ENDING)
  cut = [stem[i : i + 4] for i in range(0, len(stem), 4)]
  return [*cut, _ENDING] if verb.endswith(_ENDING) else cut


def verb_tree(verbs: Sequence[str]) -> blip2.CandidateTree:
  """The prefix tree of the verbs' stand-in pieces, with the end token."""
  ids: dict[str, int] = {}
  rows = [
    [ids.setdefault(piece, len(ids) + 2) for piece in pieces(verb)] + [1]
    for verb in verbs
  ]
  return blip2.CandidateTree.build(rows)


def verb_names(path: str | None) -> list[str]:
  """Names from a file, one a line; else names of SWiG's usual length."""
  if path:
    return pathlib.Path(path).read_text().split()
  rng = np.random.default_rng(0)
  letters = "abcdefghijklmnopqrstuvwxyz"
  lengths = rng.integers(3, 9, _VERBS)
  return ["".join(rng.choice(list(letters), n)) + _ENDING for n in lengths]


def noun_names() -> list[str]:
  """As many names as a role has on average, of about as many pieces.

  SWiG's names have 2.6 different prefixes each, as these.
  """
  rng = np.random.default_rng(1)
  letters = list("abcdefghijklmnopqrstuvwxyz")
  lengths = rng.integers(3, 8, _NOUNS)
  return ["".join(rng.choice(letters, n)) for n in lengths]


def _cast(tree: Any, mesh: Mesh, places: Any) -> Any:
  """Shapes in bfloat16, with shardings on the mesh."""
  if not isinstance(places, dict):
    places = jax.tree.map(lambda _: places, tree)
  return jax.tree.map(
    lambda leaf, place: jax.ShapeDtypeStruct(
      leaf.shape, jnp.bfloat16, sharding=place
    ),
    tree,
    places,
  )


def programs(
  mesh: Mesh, per_chip: int, verbs: Sequence[str]
) -> dict[str, tuple[Callable, tuple]]:
  """Name -> a function of the precompute step, and its abstract arguments."""
  batch = per_chip * mesh.shape[sharding.DATA]
  rows, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

  def given(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((batch, *shape), dtype, sharding=rows)

  student, student_params = _clip("openai/clip-vit-large-patch14-336", mesh)
  text, text_params = _clip("openai/clip-vit-large-patch14", mesh)
  model = _blip2()
  places = sharding_rules.shardings(model.config, model.params, mesh)
  params = _cast(model.params, mesh, places)
  tree = verb_tree(verbs)
  question = np.zeros(_QUESTION_TOKENS, np.int32)
  bank = jax.ShapeDtypeStruct((_VERBS, 768), jnp.float32, sharding=whole)
  texts = {
    "ids": given((4, _TEXT_LENGTH), jnp.int32),
    "mask": given((4, _TEXT_LENGTH), jnp.bool_),
  }
  queries = (model.num_query_tokens, model.language_width)
  nouns = verb_tree(noun_names())
  boxes = round(_BOXES * per_chip) * mesh.shape[sharding.DATA]

  def about(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((boxes, *shape), jnp.bfloat16, sharding=rows)

  def answers(params, tokens, coverage):
    part = model.region_tokens(params, tokens, coverage)
    return model.candidate_scores(params, part, question, question == 0, nouns)

  image_tokens = (model.num_image_tokens, model.vision_width)
  return {
    "CLIP L/14-336: image tokens, zero-shot logits": (
      encoding.student_view(student, "bfloat16"),
      (student_params, bank, {"pixels": given((336, 336, 3), jnp.uint8)}),
    ),
    "BLIP-2: image tokens, queries": (
      model.image_features,
      (params, given((224, 224, 3), jnp.uint8)),
    ),
    "BLIP-2: logits of 504 verbs": (
      lambda params, image: model.candidate_scores(
        params, image, question, question == 0, tree
      ),
      (params, given(queries, jnp.bfloat16)),
    ),
    f"BLIP-2: answers about its boxes, {_NOUNS:,} nouns": (
      answers,
      (params, about(image_tokens), about(image_tokens[:1])),
    ),
    "CLIP L/14: four rationales": (
      encoding.rationale_view(text, "bfloat16"),
      (text_params, texts),
    ),
  }


def _clip(name: str, mesh: Mesh) -> tuple[clip.Clip, Any]:
  config = published_sizes.clip_config(name)
  module, template = clip.build(config, jnp.bfloat16)
  params = _cast(template, mesh, sharding.replicated(mesh))
  # `logit_scale` is read on the host.
  known = template | {"logit_scale": np.log(100.0)}
  return clip.Clip(name, "", module, config, known, None), params


@functools.cache
def _blip2() -> blip2.Blip2:
  config = published_sizes.blip2_config()
  module, template = blip2.build(config, jnp.bfloat16)
  return blip2.Blip2(published_sizes.BLIP2, "", module, config, template)


def measure(
  name: str, function: Callable, arguments: tuple, images: int, chip: chips.Chip
) -> dict[str, Any]:
  """Compiles for the topology; figures are for one chip and one batch."""
  cost = tpu.costs(function, arguments, chip)
  return {
    "program": name,
    "images_per_chip": images,
    "gflop_per_image": cost["flops"] / images / 1e9,
    "argument_gb": cost["argument_bytes"] / 1e9,
    "temporary_gb": cost["temporary_bytes"] / 1e9,
    "total_gb": cost["total_bytes"] / 1e9,
    "fits": cost["fits"],
    "bound": cost["bound"],
    "roofline_ms_per_image": cost["roofline_ms"] / images,
  }


def parameter_counts() -> dict[str, int]:
  """Parameters of every encoder and of BLIP-2's parts."""

  def count(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))

  counts = {
    name: count(clip.build(published_sizes.clip_config(name))[1])
    for name in published_sizes.CLIPS
  }
  params = _blip2().params
  counts[published_sizes.BLIP2] = count(params)
  for part in ("vision_model", "qformer", "language_model"):
    counts[f"{published_sizes.BLIP2}: {part}"] = count(params[part])
  return counts


def table(results: dict[str, Any]) -> str:
  """The figures as Markdown."""
  lines = ["| encoder | parameters | bfloat16 |", "|---|---|---|"]
  for name, count in results["parameters"].items():
    lines.append(f"| {name} | {count:,} | {2 * count / 1e9:.2f} GB |")
  chip_count, step = results["chips"], results["programs"][0]
  lines += [
    "",
    f"Compiled for {results['topology']}, {step['images_per_chip']} images a "
    "chip and step; memory is of one chip, parameters with it.",
    "",
    "| program | GFLOP per image | memory a chip | bound by | least time, "
    f"{IMAGES['train']:,} images on {chip_count} chips |",
    "|---|---|---|---|---|",
  ]
  for row in results["programs"]:
    images = IMAGES["train"] / chip_count
    minutes = row["roofline_ms_per_image"] * images / 60e3
    lines.append(
      f"| {row['program']} | {row['gflop_per_image']:,.0f} | "
      f"{row['total_gb']:.1f} GB | {row['bound']} | {minutes:.1f} min |"
    )
  return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
  """Prints one JSON line a program; returns the exit status."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.teachers")
  parser.add_argument("--topology", default=_TOPOLOGY)
  parser.add_argument("--images", type=int, default=32, help="a chip and step")
  parser.add_argument("--verbs", help="file with one verb a line")
  parser.add_argument("--write", action="store_true", help="docs/teachers*")
  given = parser.parse_args(arguments)
  devices = tpu.devices(given.topology)
  mesh = sharding.make_mesh(devices=devices)
  chip = chips.find(devices[0].device_kind)
  rows = []
  for name, (function, values) in programs(
    mesh, given.images, verb_names(given.verbs)
  ).items():
    rows.append(measure(name, function, values, given.images, chip))
    print(json.dumps(rows[-1]), flush=True)
  results = {
    "topology": given.topology,
    "chips": len(devices),
    "verb_tree_nodes": verb_tree(verb_names(given.verbs)).num_nodes,
    "parameters": parameter_counts(),
    "programs": rows,
  }
  if given.write:
    OUT.write_text(json.dumps(results, indent=1) + "\n")
    TABLE.write_text(table(results))
  return 0


if __name__ == "__main__":
  raise SystemExit(main())
