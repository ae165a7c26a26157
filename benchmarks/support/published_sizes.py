"""The real checkpoints' sizes, from their config.json files.

For counting and compiling without weights. They are from the model cards on
Hugging Face: openai's CLIPs and Salesforce's BLIP-2 with Flan-T5-XL.
"""

from typing import Any

STUDENT_CLIP = "openai/clip-vit-large-patch14-336"
TEXT_CLIP = "openai/clip-vit-large-patch14"
BLIP2 = "Salesforce/blip2-flan-t5-xl"
# Image side, patch, vision width, vision layers, joint width.
CLIPS: dict[str, tuple[int, int, int, int, int]] = {
  STUDENT_CLIP: (336, 14, 1024, 24, 768),
  TEXT_CLIP: (224, 14, 1024, 24, 768),
  "openai/clip-vit-base-patch32": (224, 32, 768, 12, 512),
}
_HEAD = 64  # width of a head in all towers of CLIP


def clip_config(name: str) -> Any:
  """transformers' CLIPConfig of one of `CLIPS`."""
  from transformers import CLIPConfig

  image, patch, width, layers, joint = CLIPS[name]
  return CLIPConfig(
    vision_config={
      "hidden_size": width,
      "intermediate_size": 4 * width,
      "num_hidden_layers": layers,
      "num_attention_heads": width // _HEAD,
      "image_size": image,
      "patch_size": patch,
    },
    # The text tower is as wide as the joint space.
    text_config={
      "hidden_size": joint,
      "intermediate_size": 4 * joint,
      "num_attention_heads": joint // _HEAD,
      "num_hidden_layers": 12,
    },
    projection_dim=joint,
  )


def blip2_config() -> Any:
  """transformers' Blip2Config of `BLIP2`."""
  from transformers import Blip2Config

  return Blip2Config(
    vision_config={},  # transformers' defaults are ViT-g's
    qformer_config={"vocab_size": 30523},
    text_config={
      "model_type": "t5",
      "d_model": 2048,
      "d_ff": 5120,
      "d_kv": 64,
      "num_layers": 24,
      "num_decoder_layers": 24,
      "num_heads": 32,
      "vocab_size": 32128,
      "feed_forward_proj": "gated-gelu",
      "tie_word_embeddings": False,
    },
    num_query_tokens=32,
  )
