"""The whole model beside the authors': small, over three steps, full size."""

import functools
import json

import jax
import numpy as np

from mipd_jax import reference
from tests.reference import parity
from tests.reference.parity import Quantity

SHAPES_OF = "grad"  # this section of a golden file has every used parameter
LEARNING_RATE = 1e-4


@functools.cache
def small_state() -> dict[str, np.ndarray]:
  """Weights of the small model by their names in the reference."""
  grads = parity.section(parity.load("model_small"), SHAPES_OF)
  return {name: parity.weight(name, x.shape) for name, x in grads.items()}


@functools.cache
def small_params() -> dict:
  return reference.params_from_state_dict(small_state())


def small_batch() -> dict[str, np.ndarray]:
  return parity.section(parity.load("model_small"), "in")


def small_banks() -> dict[str, np.ndarray]:
  return {
    "label_emb": parity.normal("label_emb", (504, 32)),
    "class_emb": parity.normal("class_emb", (50, 32)),
  }


@jax.jit
def everything(params, batch, banks):
  """Outputs, criterion in both modes, gradient of the total."""

  def loss_of(params):
    outputs = reference.forward(params, batch, **banks)
    found = {
      "crit_train": reference.criterion(outputs, batch),
      "crit_eval": reference.criterion(outputs, batch, eval=True),
    }
    return found["crit_train"]["total"], (outputs, found)

  (_, (outputs, found)), grads = jax.value_and_grad(loss_of, has_aux=True)(
    params
  )
  return outputs, found, grads


@functools.cache
def small_results():
  return everything(small_params(), small_batch(), small_banks())


def outputs_of(golden, outputs) -> list[Quantity]:
  theirs = parity.section(golden, "out")
  return [
    Quantity(name, outputs[name], theirs[name], parity.OUTPUT)
    for name in reference.OUTPUTS
  ]


def criterion_of(golden, found, mode: str) -> list[Quantity]:
  """Losses and metrics of `crit_train`, `crit_eval` or another section."""
  return [
    Quantity(
      name,
      found[name],
      theirs,
      parity.METRIC if "acc" in name else parity.OUTPUT,
    )
    for name, theirs in parity.section(golden, mode).items()
  ]


def small_gradients() -> list[Quantity]:
  golden = parity.load("model_small")
  grads = reference.state_dict_from_params(small_results()[2])
  norm = np.sqrt(sum(np.sum(np.square(x, dtype=float)) for x in grads.values()))
  found = [
    Quantity(name, grads[name], theirs, parity.GRADIENT)
    for name, theirs in parity.section(golden, "grad").items()
  ]
  return [
    *found,
    Quantity(
      "grad_norm_total", norm, golden["grad_norm_total"], parity.GRADIENT
    ),
  ]


@functools.cache
def three_steps() -> tuple[list[dict], list[dict], list[float]]:
  """Parameters by name after each step, losses and norms before each."""
  step = jax.jit(reference.train_step)
  params = small_params()
  opt_state = reference.init_optimizer(params)
  states, losses, norms = [], [], []
  for _ in range(3):
    params, opt_state, found, norm = step(
      params, opt_state, small_batch(), **small_banks()
    )
    states.append(reference.state_dict_from_params(params))
    losses.append({name: float(x) for name, x in found.items()})
    norms.append(float(norm))
  return states, losses, norms


def optimizer_scalars() -> list[Quantity]:
  golden = parity.load("optim_small")
  _, losses, norms = three_steps()
  parts = [[found[name] for name in reference.LOSSES[:-1]] for found in losses]
  totals = [found["total"] for found in losses]
  return [
    Quantity("loss_parts", parts, golden["loss_parts"], parity.OUTPUT),
    Quantity("loss_total", totals, golden["loss_total"][:3], parity.OUTPUT),
    Quantity(
      "grad_norm_before_clip",
      norms,
      golden["grad_norm_before_clip"],
      parity.GRADIENT,
    ),
  ]


def optimizer_parameters(steps: int) -> list[Quantity]:
  """Parameters after 1 or 3 steps, and how far each has come."""
  golden = parity.section(parity.load("optim_small"), f"param_after_{steps}")
  after, before = three_steps()[0][steps - 1], small_state()
  return [
    quantity
    for name, theirs in golden.items()
    for quantity in (
      Quantity(name, after[name], theirs, parity.PARAMETER),
      Quantity(
        f"change of {name}",
        after[name] - before[name],
        theirs - before[name],
        parity.CHANGE,
        scale=steps * LEARNING_RATE,
      ),
    )
  ]


@functools.cache
def full_results():
  """As `small_results`, at true sizes; everything drawn by the recipe."""
  golden = parity.load("model_full")
  names = parity.section(golden, "grad_stat")
  shapes = json.loads(str(golden["json/param_shapes"]))
  state = {name: parity.weight(name, tuple(shapes[name])) for name in names}
  batch = parity.section(golden, "in")
  for name, shape in (
    ("q_feat", (4, 577, 1024)),
    ("q_form", (4, 257, 1408)),
    ("captions", (4, 4, 77, 768)),
  ):
    batch[name] = parity.normal(f"full:{name}", shape)
  banks = {
    "label_emb": parity.normal("label_emb", (504, 512)),
    "class_emb": parity.normal("class_emb", (9929, 512)),
  }
  params = reference.params_from_state_dict(state)
  return state, batch, banks, everything(params, batch, banks)


def full_recipe() -> list[Quantity]:
  """The first values of what the recipe draws."""
  checks = parity.section(parity.load("model_full"), "check")
  state, batch, banks, _ = full_results()
  drawn = state | batch | banks
  first = {name: drawn[name.removesuffix("_first8")].ravel() for name in checks}
  return [
    Quantity(name, first[name][:8], theirs, parity.EXACT)
    for name, theirs in checks.items()
  ]


def full_gradients() -> list[Quantity]:
  """Norm, sum, largest and first 64 values of every gradient."""
  golden = parity.load("model_full")
  grads = reference.state_dict_from_params(full_results()[3][2])
  found = []
  for name, (norm, total, largest) in parity.section(
    golden, "grad_stat"
  ).items():
    ours = grads[name].astype(np.float64)
    first = golden[f"grad_first64/{name}"]
    # Values of either sign cancel in a sum, their rounding does not.
    for what, value, theirs, scale in (
      ("norm", np.linalg.norm(ours), norm, norm),
      ("sum", ours.sum(), total, np.abs(ours).sum()),
      ("largest", np.abs(ours).max(), largest, largest),
      ("first 64", ours.ravel()[:64], first, largest),
    ):
      found.append(
        Quantity(f"{what} of {name}", value, theirs, parity.GRADIENT, scale)
      )
  return found
