"""Compares preset `reference` with the authors' code: docs/parity.md.

  python -m benchmarks.parity [--out=docs/parity.md]

Compares with the goldens of `tests/goldens`, and with the model of true sizes
if its file is beside the checkout. The exit status is 1 if anything is out of
tolerance.
"""

import argparse
import collections
import pathlib
import sys
from collections.abc import Iterable

import jax

from input_pipeline.io import atomic
from tests.reference import parity, parity_model, parity_parts
from tests.reference.parity import Quantity

_HEAD = """# Parity with the authors' code

Written by `python -m benchmarks.parity`; do not edit.

Every quantity of preset `reference` beside the value that the authors' code
(`caicch/Ov-GSR`, commit 4c6547d; PyTorch 2.13.0, float32, CPU, dropout off)
gave for the same weights and inputs. Ours: JAX {jax}, float32, {device}.
"Relative" is the largest absolute difference over the largest magnitude of the
reference's array; where a line stands for several arrays, the worst of them.
"""
_DIFFERENT = (  # where, reference, ours
  (
    "IoU and GIoU of two boxes without area",
    "0/0, NaN",
    "IoU 0; never in training, where true boxes have an area",
  ),
  (
    "clipping",
    "gradient times 0.1/(norm + 1e-6)",
    "times 0.1/norm; at norms about 15 a relative 7e-8",
  ),
  (
    "map of the box prompter",
    "outside the optimizer",
    "the same in `reference.train_step`; in training weight decay takes 1e-8 "
    "of it a step, and no output depends on it",
  ),
  (
    "parameters that nothing depends on",
    "49.7 M are kept",
    "dropped: `mipd_jax.reference.UNUSED` names them",
  ),
  (
    "predicted boxes, before they are scored",
    "cut to the image",
    "the same in `reference.criterion` and in evaluation",
  ),
)


def sections() -> dict[str, list[Quantity]]:
  """All comparisons by section."""
  small = parity.load("model_small")
  outputs, criterion, _ = parity_model.small_results()
  made = {
    "Small model: outputs": parity_model.outputs_of(small, outputs),
    **{
      f"Small model: {what}": parity_model.criterion_of(
        small, criterion[mode], mode
      )
      for what, mode in (
        ("criterion in training", "crit_train"),
        ("criterion in evaluation", "crit_eval"),
      )
    },
    "Small model: gradients": parity_model.small_gradients(),
    "Three optimizer steps": [
      *parity_model.optimizer_scalars(),
      *(
        _renamed(
          q,
          f"{'changes' if 'change' in q.name else 'parameters'} "
          f"after step {steps}",
        )
        for steps in (1, 3)
        for q in parity_model.optimizer_parameters(steps)
      ),
    ],
    "Criterion alone, 13 cases": [
      _renamed(quantity, f"{what}: {quantity.name}")
      for case in parity_parts.CASES
      for what, quantities in (
        ("batch", parity_parts.criterion_values(case)),
        ("each sample", parity_parts.criterion_samples(case)),
        ("batch", parity_parts.criterion_gradients(case)),
      )
      for quantity in quantities
    ],
    "Prompts": [
      *parity_parts.edge_prompter(),
      *(
        q
        for s in parity_parts.IMAGE_SIZES
        for q in parity_parts.box_prompter(s)
      ),
      *parity_parts.resize(),
    ],
    "Boxes": parity_parts.box_operations() + parity_parts.canvas_rules(),
    "336 canvas, 24 images": parity_parts.canvas_geometry(),
  }
  if parity.FULL.exists():
    made |= _full()
  return made


def _full() -> dict[str, list[Quantity]]:
  golden = parity.load("model_full")
  outputs, criterion, _ = parity_model.full_results()[3]
  return {
    "Model at true sizes: outputs": parity_model.outputs_of(golden, outputs),
    "Model at true sizes: criterion": [
      quantity
      for mode in ("crit_train", "crit_eval")
      for quantity in parity_model.criterion_of(golden, criterion[mode], mode)
    ],
    "Model at true sizes: gradients": [
      _renamed(q, q.name.split(" of ")[0] + " of every gradient")
      for q in parity_model.full_gradients()
    ],
  }


def _renamed(quantity: Quantity, name: str) -> Quantity:
  return Quantity(
    name, quantity.ours, quantity.theirs, quantity.tolerance, quantity.scale
  )


def report(made: dict[str, list[Quantity]]) -> str:
  """The document."""
  device = jax.devices()[0].device_kind
  parts = [_HEAD.format(jax=jax.__version__, device=device), _tolerances()]
  for title, quantities in made.items():
    parts.append(f"\n## {title}\n\n{_table(quantities)}")
  if not parity.FULL.exists():
    parts.append("\nThe model at true sizes was not compared: no file.\n")
  rows = [f"| {' | '.join(row)} |\n" for row in _DIFFERENT]
  head = "\n## What differs\n\n| where | reference | ours |\n|---|---|---|\n"
  return "".join([*parts, head, *rows])


def _tolerances() -> str:
  lines = [
    "\n## Tolerances\n\n| tolerance | relative | or absolute | why |\n",
    "|---|---|---|---|\n",
  ]
  for t in parity.TOLERANCES:
    lines.append(
      f"| {t.name} | {t.relative:g} | {t.absolute:g} | {t.reason} |\n"
    )
  return "".join(lines)


def _table(quantities: Iterable[Quantity]) -> str:
  """One line per name; of several arrays with one name the worst counts."""
  by_name = collections.defaultdict(list)
  for quantity in quantities:
    by_name[quantity.name, quantity.tolerance.name].append(quantity)
  head = ("quantity", "arrays", "difference", "relative", "tolerance", "within")
  lines = [f"| {' | '.join(head)} |\n{'|---' * len(head)}|\n"]
  for (name, tolerance), group in by_name.items():
    difference = max(quantity.difference for quantity in group)
    # Arrays that are zero up to rounding have no relative difference.
    real = [quantity for quantity in group if quantity.magnitude > 1e-6]
    relative = max((quantity.relative for quantity in real), default=0.0)
    within = "yes" if all(quantity.equal for quantity in group) else "**no**"
    lines.append(
      f"| {name} | {len(group)} | {difference:.1e} | {relative:.1e} "
      f"| {tolerance} | {within} |\n"
    )
  return "".join(lines)


def main(arguments: list[str] | None = None) -> int:
  """Command line; returns the exit status."""
  parser = argparse.ArgumentParser(prog="python -m benchmarks.parity")
  parser.add_argument("--out", default="docs/parity.md")
  out = pathlib.Path(parser.parse_args(arguments).out)
  made = sections()
  with atomic.replacing(out) as partial:
    partial.write_text(report(made))
  wrong = [q for quantities in made.values() for q in quantities if not q.equal]
  print(f"{out}: {sum(map(len, made.values()))} arrays, {len(wrong)} differ")
  for quantity in wrong:
    print(f"  {quantity}", file=sys.stderr)
  return bool(wrong)


if __name__ == "__main__":
  sys.exit(main())
