"""What prompts cost that pass through the teacher's frozen layers.

    python -m benchmarks.open_layers --write

Operations of an image in a training step, forward and backward, as the compiler
counts them at BLIP-2's sizes: of the scene target alone, read by a learned
query as it is, by queries beside the Q-Former's own, or after the last blocks
of the image tower. No weights and no accelerator are needed. The table is part
of docs/teachers.md.
"""

import argparse
import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp

from benchmarks import teachers
from benchmarks.support import true_sizes
from mipd_jax import presets
from mipd_jax.models import outputs
from mipd_jax.models.teaching.open_layers import WEIGHTS, OpenLayers
from mipd_jax.models.teaching.teacher_branch import TeacherBranch
from mipd_jax.teachers.blip2.open_layers import opened, their_part

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "open_layers.json"
TABLE = ROOT / "docs" / "open_layers_table.md"
_BATCH = 8
# Title, --config.teacher.open_layers, whether keys and values are absorbed.
ROWS = (
  ("a learned query reads the tokens", "", True),
  ("a query beside the Q-Former's, keys and values absorbed", "qformer", True),
  ("a query beside the Q-Former's, keys and values computed", "qformer", False),
  ("prompts before the tower's last block", "tower-1", True),
  ("prompts before the tower's last two blocks", "tower-2", True),
)


def gflop(name: str, absorbed: bool) -> dict[str, float]:
  """Operations of an image, and the open layers' weights in GB of bfloat16."""
  config, _ = presets.preset_defaults("mipd")
  config = dataclasses.replace(
    config,
    teacher_pooling="learned_query",
    rationale_space="frozen",
    open_layers=bool(name),
    gaze=False,
    instance_prompt=False,
  )
  layers: OpenLayers | None = None
  banks, size = true_sizes.bank_shapes(), 0
  if name:
    model = teachers._blip2()
    layers = opened(model, name)
    part = jax.tree.map(
      lambda x: jax.ShapeDtypeStruct(x.shape, jnp.bfloat16),
      their_part(model.params, layers),
    )
    size = sum(2 * x.size for x in jax.tree.leaves(part)) / 1e9
    banks |= {WEIGHTS: part}
  branch = TeacherBranch(config, jnp.bfloat16, absorbed, layers)
  batch = true_sizes.batch_shapes(_BATCH)
  params = jax.eval_shape(
    lambda batch, banks: branch.init(jax.random.key(0), batch, banks)["params"],
    batch,
    banks,
  )

  def loss(params, batch, banks):
    found = branch.apply({"params": params}, batch, banks)
    return jnp.square(found[outputs.SCENE_TARGET]).mean()

  lowered = jax.jit(jax.grad(loss)).lower(params, batch, banks)
  flops = lowered.compile().cost_analysis()["flops"]
  return {"gflop": flops / _BATCH / 1e9, "weights_gb": size}


def table(rows: list[dict]) -> str:
  """The figures as Markdown."""
  lines = [
    "| the scene target | GFLOP per image and step | frozen weights |",
    "|---|---|---|",
  ]
  lines += [
    f"| {row['title']} | {row['gflop']:.2f} | {row['weights_gb']:.2f} GB |"
    for row in rows
  ]
  return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
  """Prints the table; returns the exit status."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.open_layers")
  parser.add_argument("--write", action="store_true", help="docs/open_layers*")
  given = parser.parse_args(arguments)
  rows = []
  for title, name, absorbed in ROWS:
    rows.append({"title": title, **gflop(name, absorbed)})
    print(json.dumps(rows[-1]), flush=True)
  print(table(rows))
  if given.write:
    OUT.write_text(json.dumps(rows, indent=1) + "\n")
    TABLE.write_text(table(rows))
  return 0


if __name__ == "__main__":
  raise SystemExit(main())
