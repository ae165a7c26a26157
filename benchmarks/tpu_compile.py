"""Compiles the real programs at true sizes for TPUs, without having one.

  python -m benchmarks.tpu_compile [--topology=v5e:2x4[,v6e:2x4...]]
    [--batch=256] [--programs=WORD[,WORD...]] [--write]

libtpu needs no TPU for this (`pip install -r requirements-tpu.txt`). Prints one
JSON line per program, with the figures of one chip: bytes of arguments, of
temporaries and in total, FLOPs, bytes moved, collectives by kind, and the least
time (`support.tpu.costs`). Nothing is allocated: arguments are shapes. The
program of several steps is a loop; its FLOPs and bytes are those of one step.

To add a program, add a line to `programs`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from benchmarks.support import performance, tpu, true_sizes
from benchmarks.support import programs as real
from input_pipeline import schema
from input_pipeline.feature_cache import int8
from input_pipeline.io.errors import InputError
from mipd_jax.devices import chips, sharding
from mipd_jax.feeding import feeds, resident
from mipd_jax.training import step

_DTYPE = jnp.dtype("bfloat16")
_ENCODER_IMAGES = 32  # a chip and step
_IMAGES = 75_702  # SWiG's for training
_STEPS = 10  # the default of `train.steps_per_dispatch`


class Program(NamedTuple):
  """A jitted function, abstract arguments, and the images of all chips."""

  function: Callable
  arguments: tuple
  images: int


def programs(mesh: Mesh, batch: int) -> dict[str, Callable[[], Program]]:
  """Name -> function that makes the program.

  Args:
    mesh: mesh of the topology.
    batch: images of a training or evaluation step, over all chips.
  """
  table: dict[str, Callable[[], Program]] = {
    f"train step, {preset}": lambda preset=preset: _train(mesh, batch, preset)
    for preset in ("mipd", "reference")
  }
  table |= {
    "evaluation step": lambda: _evaluation(mesh, batch),
    f"{_STEPS} steps in one, mipd, int8 features": lambda: _steps(mesh, batch),
    f"gather of their batches, {_IMAGES:,} images resident": (
      lambda: _gather(mesh, batch)
    ),
  }
  return table | _encoders(mesh)


def _placed(shapes: Any, where: NamedSharding) -> Any:
  return jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes
  )


def _state(mesh: Mesh, model: Any) -> Any:
  shapes = jax.eval_shape(lambda: real.initial_state(model))
  return _placed(shapes, sharding.replicated(mesh))


def _train(mesh: Mesh, batch: int, preset: str) -> Program:
  model, objective = real.build(preset, _DTYPE)
  arguments = (
    _state(mesh, model),
    _placed(true_sizes.batch_shapes(batch), sharding.batch_sharding(mesh)),
    _placed(true_sizes.bank_shapes(), sharding.replicated(mesh)),
  )
  return Program(real.train(model, objective), arguments, batch)


def _evaluation(mesh: Mesh, batch: int) -> Program:
  model, _ = real.build("mipd", _DTYPE)
  rows = true_sizes.batch_shapes(batch, schema.STUDENT_KEYS)
  arguments = (
    _state(mesh, model).params,
    _placed(rows, sharding.batch_sharding(mesh)),
    _placed(true_sizes.bank_shapes(), sharding.replicated(mesh)),
  )
  return Program(real.student(model), arguments, batch)


def _layout(mesh: Mesh, batch: int) -> resident.Layout:
  """SWiG's training images in device memory, all tokens in int8."""
  example = {}
  for name, x in true_sizes.batch_shapes(batch).items():
    if name in (schema.EXAMPLE_MASK, schema.CLIP_LOGITS):
      continue
    dtype = x.dtype
    if dtype == jnp.bfloat16:
      scale = jax.ShapeDtypeStruct(x.shape[1:-1], jnp.float32)
      example[int8.scale_name(name)] = scale
      dtype = jnp.int8
    example[name] = jax.ShapeDtypeStruct(x.shape[1:], dtype)
  return resident.Layout(mesh, _IMAGES, batch, example)


def _gather(mesh: Mesh, batch: int) -> Program:
  layout = _layout(mesh, batch)
  rows = jax.ShapeDtypeStruct(
    (_STEPS, batch),
    jnp.int32,
    sharding=sharding.named_sharding(mesh, None, "batch"),
  )
  arguments = (layout.shapes(), rows)
  return Program(resident.compile_gather(layout), arguments, _STEPS * batch)


def _steps(mesh: Mesh, batch: int) -> Program:
  model, objective = real.build("mipd", _DTYPE)
  whole = sharding.replicated(mesh)
  shapes = jax.eval_shape(lambda: real.initial_state(model))
  places = sharding.state_shardings(mesh, shapes)
  function = step.compile_steps(model, objective, real.optimizer(), 0, places)
  arguments = (
    _state(mesh, model),
    feeds.train_shapes(_layout(mesh, batch), _STEPS),
    jax.ShapeDtypeStruct((), jnp.int32, sharding=whole),
    _placed(true_sizes.bank_shapes(), whole),
  )
  return Program(function, arguments, batch)


def _encoders(mesh: Mesh) -> dict[str, Callable[[], Program]]:
  """The programs of `benchmarks.teachers`, which import transformers."""

  def make(name):
    from benchmarks import teachers

    verbs = teachers.verb_names(None)
    function, arguments = teachers.programs(mesh, _ENCODER_IMAGES, verbs)[name]
    return Program(function, arguments, _ENCODER_IMAGES * mesh.size)

  names = (
    "CLIP L/14-336: image tokens, zero-shot logits",
    "BLIP-2: image tokens, queries",
    "BLIP-2: logits of 504 verbs",
    "CLIP L/14: four rationales",
  )
  return {f"precompute, {name}": lambda name=name: make(name) for name in names}


def measure(mesh: Mesh, name: str, make: Callable[[], Program]) -> dict:
  """The figures of a program; see the top of this file."""
  chip = chips.find(mesh.devices.flat[0].device_kind)
  program = make()
  return {
    "program": name,
    "images_per_chip": program.images // mesh.size,
    **tpu.costs(program.function, program.arguments, chip),
  }


def compile_all(
  topology: str,
  batch: int,
  words: tuple[str, ...] = (),
  keep: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
  """The figures of every program whose name has one of the words.

  `keep` is called with the results after each program, since XLA takes minutes
  for some.
  """
  devices = tpu.devices(topology)
  mesh = sharding.make_mesh(devices=devices)
  sharding.check_batch_size(mesh, batch)
  rows = []
  result = {
    "topology": topology,
    "chip": devices[0].device_kind,
    "chips": len(devices),
    "jax": jax.__version__,
    "programs": rows,
  }
  for name, make in programs(mesh, batch).items():
    if not words or any(word in name for word in words):
      rows.append(measure(mesh, name, make))
      print(json.dumps({"topology": topology, **rows[-1]}), flush=True)
      keep(result)
  return result


def main(values: list[str] | None = None) -> int:
  """Prints one JSON line a program; returns the exit status."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.tpu_compile")
  parser.add_argument("--topology", default="v5e:2x4", help="one or several")
  parser.add_argument("--batch", type=int, default=256, help="of all chips")
  parser.add_argument("--programs", default="", help="words of their names")
  parser.add_argument("--write", action="store_true", help="docs/performance*")
  given = parser.parse_args(values)
  keep = (performance.write_tpu,) if given.write else ()
  words = tuple(word for word in given.programs.split(",") if word)
  try:
    for topology in given.topology.split(","):
      compile_all(topology, given.batch, words, *keep)
  except InputError as error:
    print(f"problem: {error}", file=sys.stderr)
    return 2
  return 0


if __name__ == "__main__":
  raise SystemExit(main())
