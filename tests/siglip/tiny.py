"""SigLIP checkpoints for tests: the stored goldens, and tiny random ones."""

import functools
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from mipd_jax.teachers import siglip
from mipd_jax.teachers.checkpoints import hf_weights, tokenizer

GOLDENS = pathlib.Path(__file__).resolve().parents[1] / "goldens" / "siglip"
FIRST, SECOND = "siglip", "siglip2_bf16"
CASES = (FIRST, SECOND)
WORDS = ("a", "cat", "dog", "red")
SIZES = {
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
}


@functools.cache
def expected(case: str) -> dict[str, np.ndarray]:
  with np.load(GOLDENS / case / "expected.npz") as arrays:
    return dict(arrays)


@functools.cache
def model(case: str) -> siglip.Siglip:
  return siglip.load(GOLDENS / case)


def write(
  folder: pathlib.Path,
  words: Sequence[str] = WORDS,
  *,
  positions: int = 10,
  image_size: int = 16,
  seed: int = 0,
) -> pathlib.Path:
  """Writes a random SigLIP with a word-level tokenizer; makes the folder.

  Its config names another padding than the tokenizer has, as that of SigLIP 2.
  """
  from transformers import SiglipConfig

  folder.mkdir(parents=True)
  ids = tokenizer.vocabulary(words)
  config = SiglipConfig(
    vision_config={**SIZES, "image_size": image_size, "patch_size": 8},
    text_config={
      **SIZES,
      "vocab_size": len(ids),
      "max_position_embeddings": positions,
    },
  )
  _, _, template = siglip.build(config)
  rng = np.random.default_rng(seed)
  params = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32) * 0.3,
    template,
  )
  config.save_pretrained(folder)
  tokenizer.save_word_level(folder, words, positions)
  hf_weights.write(folder / "model.safetensors", params)
  return folder
