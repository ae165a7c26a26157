"""One small CLIP: its settings, and its folder in Hugging Face's format.

It trains in a minute because of fan-in initialisation (Hugging Face's kernels
of std 0.01 stay on a plateau at these widths), a patch embedding that whitens
patches, many narrow heads, and, besides InfoNCE, a word-level loss: each word
of a caption against all absent words.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np

from input_pipeline.small_world import lessons
from input_pipeline.small_world.situations.captions import CaptionConfig
from input_pipeline.small_world.situations.world import World
from mipd_jax.teachers import clip
from mipd_jax.teachers.checkpoints import hf_weights, tokenizer
from mipd_jax.teachers.small import box_nouns, card, clip_training


@dataclasses.dataclass(frozen=True)
class ClipSettings:
  """One CLIP: its size, its captions, its schedule.

  Attributes:
    vision_width, vision_layers, text_width, text_layers, joint_width,
      head_width, patch_size, image_size, max_text_length: of the towers.
    captions: the content of captions.
    word_weight: of the loss on a caption's words.
    region_weight: of the same loss on the words of what is in a box.
    steps, batch_size, learning_rate: of AdamW.
    muon_rate: learning rate of Muon on the image tower's matrices; 0 is AdamW.
  """

  vision_width: int
  vision_layers: int
  text_width: int
  text_layers: int
  joint_width: int
  steps: int
  captions: CaptionConfig = dataclasses.field(default_factory=CaptionConfig)
  head_width: int = 16
  patch_size: int = 8
  image_size: int = 48
  max_text_length: int = 64
  batch_size: int = 64
  learning_rate: float = 1e-3
  muon_rate: float = 0.0
  word_weight: float = 1.0
  region_weight: float = 0.0


def write(
  world: World,
  settings: ClipSettings,
  images: clip_training.Images,
  seed: int,
  folder: Path,
) -> dict[str, dict[str, float]]:
  """Trains a CLIP and writes config.json, model.safetensors, tokenizer.

  Args:
    world: gives the words.
    settings: sizes, captions, schedule.
    images: of the settings' size.
    seed: of weights, captions and order.
    folder: exists.

  Returns:
    Zero-shot verb accuracy on held-out images: prompt -> group -> percent.
  """
  words = lessons.of(world).all_words(world)
  tokenizer.save_word_level(folder, words, settings.max_text_length)
  config = _clip_config(settings, words)
  module, template = clip.build(config)
  model = clip.Clip(
    name=folder.name,
    revision="in training",
    module=module,
    config=config,
    params=template,
    tokenizer=tokenizer.load(folder),
  )
  params = clip_training.train(world, model, settings, images, seed=seed)
  scores = clip_training.zero_shot(world, model, params, images)
  scores[card.NOUNS] = box_nouns.scores(world, model, params, images)
  config.save_pretrained(folder)
  hf_weights.write(
    folder / "model.safetensors", jax.tree.map(np.asarray, params)
  )
  return scores


def _clip_config(settings: ClipSettings, words: list[str]) -> Any:
  from transformers import CLIPConfig

  ids = tokenizer.vocabulary(words)
  vision, text = settings.vision_width, settings.text_width
  return CLIPConfig(
    vision_config={
      "hidden_size": vision,
      "intermediate_size": 4 * vision,
      "num_hidden_layers": settings.vision_layers,
      "num_attention_heads": max(1, vision // settings.head_width),
      "image_size": settings.image_size,
      "patch_size": settings.patch_size,
    },
    text_config={
      "vocab_size": len(ids),
      "hidden_size": text,
      "intermediate_size": 4 * text,
      "num_hidden_layers": settings.text_layers,
      "num_attention_heads": max(1, text // settings.head_width),
      "max_position_embeddings": settings.max_text_length,
      "pad_token_id": ids[tokenizer.PAD],
      "bos_token_id": ids[tokenizer.BEGIN],
      "eos_token_id": ids[tokenizer.END],
    },
    projection_dim=settings.joint_width,
    architectures=["CLIPModel"],
  )
