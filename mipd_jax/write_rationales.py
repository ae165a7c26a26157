"""Writes the rationales of a SWiG-layout folder with a language model.

  python -m mipd_jax.write_rationales --folder=SWIG --model=google/flan-t5-xl \\
    --out=rationales.json --dtype=bfloat16 --batch_size=64

The model may be served elsewhere: --model=http://HOST:PORT/v1#NAME.

The output holds the split's records with the four captions added, so it can
take the place of SWIG/SWiG_jsons/train.json. See docs/rationales.md.
"""

import argparse
import dataclasses
import logging
import pathlib

from input_pipeline.io import atomic, commands, paths
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import builder, layout
from mipd_jax.devices import compilation, sharding
from mipd_jax.rationales import jrg, prompts, store
from mipd_jax.rationales.judging import (
  JrgConfig,
  ServedConfig,
  Writer,
  is_address,
)
from mipd_jax.teachers.language import language_model
from mipd_jax.teachers.served import served_model

_HELP = {
  "seed": "of all draws",
  "attempts": "times that a text may be written before a template stands in",
  "temperature": "of the draw",
  "max_new_tokens": "at which a text is cut off",
  "words": "length asked for",
  "max_words": "length accepted",
  "judge": "least probability that the judge must give the right answer",
  "definition_words": "words of a noun's definition among the facts",
  "images_per_part": "images that a stopped run loses at most",
}


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog="python -m mipd_jax.write_rationales",
    description="Write rationales with a language model, or by template.",
    formatter_class=argparse.ArgumentDefaultsHelpFormatter,
  )
  parser.add_argument("--folder", required=True, help="SWiG-layout folder")
  parser.add_argument("--out", required=True, help="JSON to write")
  parser.add_argument(
    "--model",
    help="folder, id or address of a language model; templates without",
  )
  parser.add_argument("--split", default="train", choices=layout.SPLITS)
  parser.add_argument("--given", help="JSON with texts to take as they are")
  parser.add_argument(
    "--data_dir", help="prepared datasets; FOLDER/../tfds if not given"
  )
  parser.add_argument(
    "--batch_size", type=int, default=32, help="texts at a time, all devices"
  )
  parser.add_argument("--dtype", default="float32", help="of the model")
  parser.add_argument(
    "--model_devices", type=int, default=1, help="devices that share a model"
  )
  parser.add_argument(
    "--requests",
    type=int,
    default=ServedConfig.requests,
    help="at a time, to a served model",
  )
  parser.add_argument(
    "--timeout",
    type=float,
    default=ServedConfig.timeout,
    help="seconds that an answer of a served model may take",
  )
  parser.add_argument(
    "--style", default=JrgConfig.style, choices=sorted(prompts.STYLES)
  )
  for name, text in _HELP.items():
    default = getattr(JrgConfig, name)
    parser.add_argument(
      f"--{name}", type=type(default), default=default, help=text
    )
  return parser


def main(arguments: list[str] | None = None) -> int:
  """Command line; returns the exit status.

  Raises:
    InputError: see `jrg.write_rationales`; `commands.start` reports it.
  """
  given = _parser().parse_args(arguments)
  logging.basicConfig(level=logging.INFO, format="%(message)s")
  _write(given)
  return 0


def _write(given: argparse.Namespace) -> None:
  names = [field.name for field in dataclasses.fields(JrgConfig)]
  config = JrgConfig(**{name: getattr(given, name) for name in names})
  if paths.is_remote(given.out):
    raise InputError(
      f"--out={given.out} is in a bucket", "write here and copy it there"
    )
  atomic.check_target(given.out, "--out")
  atomic.check_folder(pathlib.Path(given.out).parent, "--out")
  folder = pathlib.Path(given.folder)
  texts = store.load_texts(given.given) if given.given else {}
  # Before the dataset is read: a wrong model is refused in seconds.
  model = _load(given) if given.model else None
  dataset = builder.prepare(folder, given.data_dir or folder.parent / "tfds")
  jsons = layout.jsons_folder(folder)
  jrg.write_rationales(
    dataset.split(given.split),
    dataset.vocabulary,
    model,
    given.out,
    config,
    given=texts,
    records=layout.read_json(jsons / f"{given.split}.json"),
  )
  report = pathlib.Path(given.out).with_suffix(".report.md")
  print(f"{given.out}; {report} has the figures")


def _load(given: argparse.Namespace) -> Writer:
  if is_address(given.model):
    served = ServedConfig(requests=given.requests, timeout=given.timeout)
    return served_model.load(given.model, served)
  return language_model.load(
    given.model,
    compilation.compute_dtype(given.dtype),
    mesh=sharding.make_mesh(model=given.model_devices),
    batch_size=given.batch_size,
  )


if __name__ == "__main__":
  commands.start(main)
