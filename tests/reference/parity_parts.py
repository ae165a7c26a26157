"""Parts of the model beside the authors': criterion, prompts, boxes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from mipd_jax import reference
from mipd_jax.losses import box_ops
from mipd_jax.models import visual_prompts
from mipd_jax.reference import box_layout
from tests.reference import parity
from tests.reference.parity import Quantity
from tests.reference.parity_model import criterion_of

CASES = (
  "mixed8",
  "mixed16",
  "some_empty",
  "no_boxes",
  "one_role",
  "six_roles",
  "wrong_verb",
  "all_right",
  "top5_only",
  "flipped",
  "batch1",
  "extreme_box",
  "iou_half",
)
GRID = 16
IMAGE_SIZES = (224, 336)  # pixels that the reference takes the grid to span


def case_inputs(case: str) -> tuple[dict, dict]:
  """(outputs, targets) of a case of the criterion."""
  golden = parity.section(parity.load("criterion"), case)
  return parity.section(golden, "out"), parity.section(golden, "target")


@jax.jit
def _batch_criterion(outputs, targets):
  def total(outputs):
    found = reference.criterion(outputs, targets)
    return found["total"], found

  grads, train = jax.grad(total, has_aux=True)(outputs)
  return train, reference.criterion(outputs, targets, eval=True), grads


@functools.cache
def case_results(case: str):
  return _batch_criterion(*case_inputs(case))


def criterion_values(case: str) -> list[Quantity]:
  golden = parity.section(parity.load("criterion"), case)
  train, evaluation, _ = case_results(case)
  return criterion_of(golden, train, "train") + criterion_of(
    golden, evaluation, "eval"
  )


def criterion_gradients(case: str) -> list[Quantity]:
  golden = parity.section(parity.load("criterion"), f"{case}/dout")
  grads = case_results(case)[2]
  return [
    Quantity(f"gradient by {name}", grads[name], theirs, parity.GRADIENT)
    for name, theirs in golden.items()
  ]


@functools.cache
def _per_sample() -> dict[str, dict[str, np.ndarray]]:
  """Every sample of every case alone, in one batch: {mode: {name: [75]}}."""
  pairs = [case_inputs(case) for case in CASES]
  joined = [
    {
      name: np.concatenate([part[name] for part in parts])[:, None]
      for name in parts[0]
    }
    for parts in zip(*pairs, strict=True)
  ]

  def both(outputs, targets):
    return {
      "train": reference.criterion(outputs, targets),
      "eval": reference.criterion(outputs, targets, eval=True),
    }

  return jax.tree.map(np.asarray, jax.jit(jax.vmap(both))(*joined))


def criterion_samples(case: str) -> list[Quantity]:
  """The criterion of each sample of a case by itself."""
  sizes = [len(case_inputs(name)[1]["verb"]) for name in CASES]
  start = sum(sizes[: CASES.index(case)])
  rows = slice(start, start + sizes[CASES.index(case)])
  golden = parity.section(parity.load("criterion"), case)
  return [
    quantity
    for mode in ("train", "eval")
    for quantity in criterion_of(
      golden,
      {name: x[rows] for name, x in _per_sample()[mode].items()},
      f"per_sample_{mode}",
    )
  ]


def edge_prompter() -> list[Quantity]:
  golden = parity.section(parity.load("prompters"), "edge")
  names = ("top", "bottom", "left", "right")
  edges = [golden[f"param/edge_prompt_{name}"][0] for name in names]

  def prompted(edges):
    return golden["x"] + visual_prompts.scene_prompt(*edges, grid=GRID)

  grads = jax.grad(lambda e: jnp.sum(prompted(e) * golden["cotangent"]))(edges)
  return [
    Quantity("edge prompter", prompted(edges), golden["y"], parity.OUTPUT),
    *(
      Quantity(
        "edge prompter, gradient",
        grad,
        golden[f"grad/edge_prompt_{name}"][0],
        parity.GRADIENT,
      )
      for name, grad in zip(names, grads, strict=True)
    ),
  ]


def box_prompter(size: int) -> list[Quantity]:
  """Own boxes; and, as the reference's bug has it, one image's for all."""
  golden = parity.section(parity.load("prompters"), "box")

  def prompted(base, boxes):
    mask = jnp.all(boxes >= 0, axis=-1)
    return golden["x"] + visual_prompts.instance_prompt(
      base, boxes / size, mask, GRID
    )

  base, boxes = golden["base_prompt"], golden["boxes"]
  shared = np.broadcast_to(boxes[1], boxes.shape)
  grad = jax.grad(
    lambda base: jnp.sum(prompted(base, boxes) * golden["cotangent"])
  )(base)
  return [
    Quantity(
      "box prompter",
      prompted(base, boxes),
      golden[f"y_image_size_{size}"],
      parity.OUTPUT,
    ),
    Quantity(
      "box prompter, one image's boxes for all",
      prompted(base, shared),
      golden[f"y_shared_boxes_image_size_{size}"],
      parity.OUTPUT,
    ),
    Quantity(
      "box prompter, gradient",
      grad,
      golden[f"grad_base_prompt_image_size_{size}"],
      parity.GRADIENT,
    ),
  ]


def resize() -> list[Quantity]:
  """The map in boxes of known numbers of rows and columns."""
  golden = parity.load("resize")
  found = []
  for name, theirs in parity.section(
    {k.replace("_", "/", 1): x for k, x in golden.items()}, "resized"
  ).items():
    rows, columns = theirs.shape[:2]
    corners = np.array([[[0, 0, (columns - 0.5) / GRID, (rows - 0.5) / GRID]]])
    there = np.ones((1, 1), bool)
    grid = visual_prompts.instance_prompt(golden["base"], corners, there, GRID)[
      0
    ]
    found.append(
      Quantity(
        f"resize to {name}", grid[:rows, :columns], theirs, parity.OUTPUT
      )
    )
  return found


def box_operations() -> list[Quantity]:
  """All but pairs of boxes without area, where the reference is NaN."""
  golden = parity.load("box_ops")
  a, b = golden["boxes1"], golden["boxes2"]
  iou, union = box_ops.iou_and_union(a[:, None], b[None])
  giou = box_ops.giou(a[:, None], b[None])
  defined = np.isfinite(golden["iou"])
  hits = box_ops.iou_and_union(golden["hit_boxes1"], golden["hit_boxes2"])[0]
  pairs = len(golden["giou_loss_pairs"])
  grad = jax.grad(lambda x: jnp.sum(1 - box_ops.giou(x, b[:pairs])))(a[:pairs])
  theirs = golden["giou_loss_grad_boxes1"]
  finite = np.isfinite(theirs)
  found = [
    ("IoU", iou[defined], golden["iou"][defined], parity.OUTPUT),
    ("union", union, golden["union"], parity.OUTPUT),
    ("GIoU", giou[defined], golden["giou"][defined], parity.OUTPUT),
    ("IoU >= 0.5", hits >= 0.5, golden["hit_iou_half"], parity.EXACT),
    ("to cx cy w h", box_ops.to_centres(a), golden["to_cxcywh"], parity.OUTPUT),
    (
      "to corners",
      box_ops.to_corners(golden["to_cxcywh"]),
      golden["to_xyxy"],
      parity.OUTPUT,
    ),
    ("GIoU, gradient", grad[finite], theirs[finite], parity.GRADIENT),
  ]
  return [Quantity(*entry) for entry in found]


def canvas_rules() -> list[Quantity]:
  """The reference's rules for annotations and for predictions."""
  golden = parity.load("box_ops")
  found = []
  for rule, truth in (("gt", True), ("pred", False)):
    there = box_layout.normalise(golden["px_boxes"], truth=truth)
    back = box_layout.to_pixels(golden[f"{rule}_norm_cxcywh"], truth=truth)
    for name, ours in (("norm_cxcywh", there), ("back_to_px_xyxy", back)):
      theirs = golden[f"{rule}_{name}"]
      found.append(Quantity(f"{rule}_{name}", ours, theirs, parity.OUTPUT))
  return found


def canvas_geometry() -> list[Quantity]:
  """Placement of 24 images, mirrored or not, and of their boxes."""
  golden = parity.load("geometry")
  found = []
  for row, (width, height, flip) in enumerate(golden["in/width_height_flip"]):
    placement = box_layout.place(int(width), int(height))
    boxes = golden["in/annot"][row, :, :4]
    if flip:
      boxes = box_layout.mirror(boxes, width)
    pixels = box_layout.to_canvas(boxes, placement)
    values = {
      "boxes_xyxy_px": pixels,
      "boxes_cxcywh": box_layout.normalise(pixels, truth=True),
      "scale": placement.scale,
    }
    whole = {
      name: getattr(placement, name)
      for name in ("width", "height", "shift_0", "shift_1")
    }
    found += [
      Quantity(
        name,
        ours,
        golden[f"out/{name}"][row],
        parity.EXACT if name in whole else parity.OUTPUT,
      )
      for name, ours in (values | whole).items()
    ]
  return found
