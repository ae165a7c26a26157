"""Writes the checkpoints and arrays beside it, by torch's own BLIP-2.

Needs PyTorch, which the project itself does without: in an environment of
its own,

  pip install torch==2.13.0 transformers==4.57.6 safetensors numpy
  python -m tests.goldens.blip2.make

Weights are random and tiny; every bias and norm is away from its start, so
that one that is not read shows. The live comparison in
tests/teachers/test_blip2_torch.py uses the same functions with other sizes.
"""

import pathlib
import shutil

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
PROMPT, TARGET, NEW_TOKENS = 6, 4, 6
IMAGES = 3

VISION = {
  "hidden_size": 24,
  "intermediate_size": 36,
  "num_hidden_layers": 2,
  "num_attention_heads": 3,
  "image_size": 24,
  "patch_size": 8,
}
QFORMER = {
  "hidden_size": 16,
  "intermediate_size": 28,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
  "vocab_size": 40,
}
T5 = {
  "model_type": "t5",
  "vocab_size": 40,
  "d_model": 20,
  "d_kv": 6,
  "num_heads": 4,
  "d_ff": 24,
  "num_layers": 1,
  "num_decoder_layers": 2,
  # transformers 4.57.6 sizes its cache by the encoder's layers.
  "use_cache": False,
  "decoder_start_token_id": 0,
  "eos_token_id": 1,
  "pad_token_id": 0,
}
OPT = {
  "model_type": "opt",
  "vocab_size": 40,
  "hidden_size": 24,
  "word_embed_proj_dim": 24,
  "num_attention_heads": 4,
  "ffn_dim": 40,
  "num_hidden_layers": 2,
  "max_position_embeddings": 40,
  "eos_token_id": 3,
  "bos_token_id": 2,
  "pad_token_id": 1,
}
# Name -> (settings, dtype of the saved weights, greatest shard, prompt's
# length, side that is padded).
CASES = {
  # Few buckets and a long prompt: relative positions reach all of them.
  "t5_tied_relu": (
    {
      "vision": VISION,
      "qformer": QFORMER | {"num_hidden_layers": 3},
      "text": T5
      | {
        "feed_forward_proj": "relu",
        "tie_word_embeddings": True,
        "relative_attention_num_buckets": 12,
        "relative_attention_max_distance": 20,
      },
      "queries": 4,
    },
    "float32",
    "40KB",
    24,
    "right",
  ),
  # As published: gated, untied, biases of queries and values alone, half
  # precision; the patches do not cover the image.
  "t5_gated_bf16": (
    {
      "vision": VISION | {"image_size": 30, "num_hidden_layers": 1},
      "qformer": QFORMER | {"cross_attention_frequency": 1},
      "text": T5
      | {
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "num_layers": 2,
        "num_decoder_layers": 1,
      },
      "queries": 5,
    },
    "bfloat16",
    "5GB",
    PROMPT,
    "right",
  ),
  "opt": (
    {
      "vision": VISION | {"num_hidden_layers": 1, "qkv_bias": False},
      "qformer": QFORMER,
      "text": OPT,
      "queries": 4,
    },
    "float32",
    "5GB",
    PROMPT,
    "left",
  ),
}


def make_config(settings: dict):
  """Blip2Config; the last word is the image's placeholder."""
  from transformers import Blip2Config

  return Blip2Config(
    vision_config=dict(settings["vision"]),
    qformer_config=dict(settings["qformer"]),
    text_config=dict(settings["text"]),
    num_query_tokens=settings["queries"],
    image_token_index=settings["text"]["vocab_size"] - 1,
  )


def make_model(config, seed: int):
  """torch's Blip2ForConditionalGeneration with random weights, evaluating."""
  import torch
  from transformers import Blip2ForConditionalGeneration

  model = Blip2ForConditionalGeneration(config).eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, value in model.named_parameters():
      noise = torch.randn(value.shape, generator=generator)
      if "norm" in name.lower() and name.endswith("weight"):
        value.copy_(1 + 0.2 * noise)
      elif value.ndim == 2 and "embed" not in name and "shared" not in name:
        value.copy_(noise * 1.5 / value.shape[1] ** 0.5)
      elif name.endswith("bias"):
        value.copy_(0.3 * noise)
        if name.endswith("qkv.bias"):
          third = len(value) // 3
          value[third : 2 * third] = 0
      else:
        value.copy_(0.7 * noise)
  return model


def make_inputs(config, seed: int, length: int, side: str) -> dict:
  """Pixels, prompts padded on one side, targets padded at the end."""
  rng = np.random.default_rng(seed)
  words, size = config.text_config.vocab_size, config.vision_config.image_size
  mask = np.ones((IMAGES, length), np.int64)
  hidden = slice(length - 2, None) if side == "right" else slice(0, 2)
  mask[1, hidden] = 0
  ids = rng.integers(4, words - 1, mask.shape)
  targets = rng.integers(4, words - 1, (IMAGES, TARGET))
  targets[:, -1] = config.text_config.eos_token_id
  targets[2, -2:] = config.text_config.eos_token_id, -100
  return {
    "pixel_values": rng.standard_normal((IMAGES, 3, size, size)).astype("f4"),
    "prompt_ids": np.where(mask, ids, config.text_config.pad_token_id),
    "prompt_mask": mask,
    "target_ids": targets,
  }


def run(model, inputs: dict, new_tokens: int = NEW_TOKENS) -> dict:
  """What torch makes of the inputs, by the names of README.md beside."""
  import torch

  config = model.config
  pixels, ids, mask, targets = map(torch.from_numpy, inputs.values())
  queries = (len(pixels), config.num_query_tokens)
  ids = torch.cat([torch.full(queries, config.image_token_index), ids], 1)
  mask = torch.cat([torch.ones(queries, dtype=mask.dtype), mask], 1)
  with torch.no_grad():
    language, vision, query = model.get_image_features(pixels, return_dict=True)
    if config.text_config.model_type == "t5":
      logits = model(pixels, ids, mask, labels=targets).logits
      first = 1
    else:
      logits = _causal_logits(model, pixels, ids, mask, targets)
      first = ids.shape[1]
    answer = model.generate(
      pixels,
      ids,
      mask,
      max_new_tokens=new_tokens,
      do_sample=False,
      num_beams=1,
    )
  log_p = torch.log_softmax(logits, -1)
  counts = targets != -100
  chosen = log_p.gather(-1, targets.clamp(min=0)[..., None])[..., 0]
  return {
    "vision_tokens": vision[0].numpy(),
    "query_tokens": query[0].numpy(),
    "language_tokens": language.numpy(),
    "target_logits": logits.numpy(),
    "target_log_likelihood": (chosen * counts).sum(1).numpy(),
    "generated": answer[:, first:].numpy(),
  }


def _causal_logits(model, pixels, ids, mask, targets):
  """Of [image, prompt, target]; targets that do not count are masked.

  What follows them is no prediction, so their rows are not to be compared.
  """
  import torch

  counts = (targets != -100).to(mask.dtype)
  filled = torch.where(
    targets == -100, model.config.text_config.pad_token_id, targets
  )
  whole = torch.cat([ids, filled], 1)
  logits = model(pixels, whole, torch.cat([mask, counts], 1)).logits
  return logits[:, ids.shape[1] - 1 : -1]


def _ends_early_but_not_always(generated: np.ndarray, end: int) -> bool:
  ended = (generated == end).any(axis=1)
  return ended.any() and not ended.all()


def write(name: str) -> None:
  """Writes one case: a checkpoint folder and expected.npz in it."""
  import torch
  from transformers import Blip2ForConditionalGeneration

  settings, dtype, shard, length, side = CASES[name]
  folder = HERE / name
  for seed in range(1000):
    shutil.rmtree(folder, ignore_errors=True)
    config = make_config(settings)
    model = make_model(config, seed).to(getattr(torch, dtype))
    model.save_pretrained(folder, max_shard_size=shard)
    model = Blip2ForConditionalGeneration.from_pretrained(
      folder, dtype=torch.float32
    ).eval()
    inputs = make_inputs(config, seed, length, side)
    expected = run(model, inputs)
    # An answer that ends and one that does not, so that both are compared.
    end = config.text_config.eos_token_id
    if _ends_early_but_not_always(expected["generated"], end):
      break
  else:
    raise RuntimeError(f"{name}: no seed gives answers of different length")
  np.savez_compressed(folder / "expected.npz", **inputs, **expected)
  (folder / "generation_config.json").unlink(missing_ok=True)
  print(name, "seed", seed, expected["generated"].tolist())


if __name__ == "__main__":
  for case in CASES:
    write(case)
