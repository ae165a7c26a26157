"""The prompts against a plain loop."""

import jax.numpy as jnp
import numpy as np

from mipd_jax.models import visual_prompts


def _slow_instance_prompt(base, boxes, mask, grid):
  side = base.shape[0]
  result = np.zeros((len(boxes), grid, grid, base.shape[-1]))
  taken = np.zeros(result.shape[:3], bool)
  for b, image in enumerate(boxes):
    for box, there in zip(image, mask[b], strict=True):
      if not there:
        continue
      x1, y1, x2, y2 = np.clip(np.floor(box * grid), 0, grid - 1).astype(int)
      for i in range(y1, y2 + 1):
        for j in range(x1, x2 + 1):
          if taken[b, i, j]:
            continue
          taken[b, i, j] = True
          y = (i - y1 + 0.5) * side / (y2 - y1 + 1) - 0.5
          x = (j - x1 + 0.5) * side / (x2 - x1 + 1) - 0.5
          y, x = np.clip([y, x], 0, side - 1)
          y0, x0 = int(y), int(x)
          y9, x9 = min(y0 + 1, side - 1), min(x0 + 1, side - 1)
          result[b, i, j] = (
            (1 - y + y0) * (1 - x + x0) * base[y0, x0]
            + (1 - y + y0) * (x - x0) * base[y0, x9]
            + (y - y0) * (1 - x + x0) * base[y9, x0]
            + (y - y0) * (x - x0) * base[y9, x9]
          )
  return result


def test_instance_prompt_equals_a_loop():
  rng = np.random.default_rng(0)
  base = rng.normal(size=(8, 8, 3)).astype(np.float32)
  low = rng.uniform(-0.1, 0.8, (20, 6, 2))
  boxes = np.concatenate([low, low + rng.uniform(0, 0.6, low.shape)], -1)
  boxes = boxes.astype(np.float32)
  mask = rng.random((20, 6)) < 0.7
  for grid in (4, 16):
    fast = visual_prompts.instance_prompt(base, boxes, jnp.asarray(mask), grid)
    slow = _slow_instance_prompt(base, boxes, mask, grid)
    np.testing.assert_allclose(fast, slow, atol=1e-5)


def test_scene_prompt_is_the_border_and_corners_sum():
  top, bottom, left, right = np.eye(4, dtype=np.float32)
  prompt = np.asarray(
    visual_prompts.scene_prompt(top, bottom, left, right, grid=5)
  )
  np.testing.assert_array_equal(prompt[0, 0], top + left)
  np.testing.assert_array_equal(prompt[0, 2], top)
  np.testing.assert_array_equal(prompt[4, 4], bottom + right)
  np.testing.assert_array_equal(prompt[2, 0], left)
  assert not prompt[1:4, 1:4].any()
