"""Writes the checkpoints and arrays beside it, by torch's own SigLIP.

Needs PyTorch and sentencepiece, which the project itself does without: in an
environment of its own,

  pip install torch==2.13.0 transformers==4.57.6 safetensors numpy pillow
  pip install sentencepiece==0.2.3 protobuf
  python -m tests.goldens.siglip.make

Weights are random and tiny; every bias and norm is away from its start, so
that one that is not read shows. Tokenizers have the forms of the published
ones, trained on a few sentences. The live comparison in
tests/siglip/test_siglip_torch.py uses the same functions with other sizes.
"""

import io
import json
import math
import pathlib
import shutil

import numpy as np

HERE = pathlib.Path(__file__).resolve().parent
IMAGES = 3
SCALE, BIAS = 10.0, -3.0
CORPUS = (
  "a photo of a dog",
  "a photo of a cat that sleeps on the floor",
  "the man throws a red ball to the dog",
  "two people are eating at a table in a park",
  "a woman, outdoors: she is jumping over a fence",
  "the agent chases the item in a place",
)
# Capitals, marks and white space are folded; the last ones have words that are
# not in the corpus, no words, and more than the tower reads.
TEXTS = (
  "a dog",
  "A photo of the MAN, who throws a ball!",
  "two  people\teating ",
  "zebra's 7 quills?",
  "",
  "the man the dog the cat the ball the fence the table the park the floor",
)

VISION = {
  "hidden_size": 24,
  "intermediate_size": 36,
  "num_hidden_layers": 2,
  "num_attention_heads": 3,
  "image_size": 24,
  "patch_size": 8,
}
TEXT = {
  "hidden_size": 20,
  "intermediate_size": 28,
  "num_hidden_layers": 2,
  "num_attention_heads": 4,
  "max_position_embeddings": 24,
  "projection_size": 24,
}
# Name -> (settings, dtype of the saved weights, greatest shard, tokenizer).
CASES = {
  # The text tower is narrower than the image tower, as in the giant one.
  "siglip": (
    {"vision": VISION, "text": TEXT},
    "float32",
    "30KB",
    "sentencepiece",
  ),
  # As published: towers of one width, half precision, bilinear resampling; the
  # padding's id is not the config's; the patches do not cover the image.
  "siglip2_bf16": (
    {
      "vision": VISION | {"image_size": 30, "num_hidden_layers": 1},
      "text": {
        "hidden_size": 24,
        "intermediate_size": 40,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 20,
      },
    },
    "bfloat16",
    "5GB",
    "gemma",
  ),
}


def make_config(settings: dict, words: int):
  """SiglipConfig for a table of `words` tokens."""
  from transformers import SiglipConfig

  return SiglipConfig(
    vision_config=dict(settings["vision"]),
    text_config={**settings["text"], "vocab_size": words},
  )


def make_model(config, seed: int):
  """torch's SiglipModel with random weights, evaluating."""
  import torch
  from transformers import SiglipModel

  model = SiglipModel(config).eval()
  generator = torch.Generator().manual_seed(seed)
  with torch.no_grad():
    for name, value in model.named_parameters():
      noise = torch.randn(value.shape, generator=generator)
      if "norm" in name and name.endswith("weight"):
        value.copy_(1 + 0.2 * noise)
      elif value.ndim == 2 and "embedding" not in name:
        value.copy_(noise * 1.5 / value.shape[1] ** 0.5)
      elif name.endswith("bias") and value.numel() > 1:
        value.copy_(0.3 * noise)
      else:
        value.copy_(0.7 * noise)
    model.logit_scale.fill_(math.log(SCALE))
    model.logit_bias.fill_(BIAS)
  return model


def make_pixels(config, seed: int) -> np.ndarray:
  size = config.vision_config.image_size
  rng = np.random.default_rng(seed)
  return rng.standard_normal((IMAGES, 3, size, size)).astype("f4")


def run(model, pixels: np.ndarray, ids: np.ndarray) -> dict:
  """What torch makes of the inputs, by the names of README.md beside."""
  import torch

  with torch.no_grad():
    out = model(
      input_ids=torch.from_numpy(ids), pixel_values=torch.from_numpy(pixels)
    )
    states = model.text_model.head(out.text_model_output.last_hidden_state)
    return {
      "patches": out.vision_model_output.last_hidden_state.numpy(),
      "image": model.get_image_features(torch.from_numpy(pixels)).numpy(),
      "positions": states.numpy(),
      "text": model.get_text_features(torch.from_numpy(ids)).numpy(),
      "logits_per_image": out.logits_per_image.numpy(),
    }


def write_sentencepiece(folder: pathlib.Path):
  """The first SigLIP's tokenizer: sentencepiece's, as tokenizer.json alone.

  Returns:
    transformers' own tokenizer, which reads sentencepiece's file.
  """
  import sentencepiece
  from tokenizers import (
    Regex,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
  )
  from transformers import SiglipTokenizer

  data = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(CORPUS),
    model_writer=data,
    model_type="unigram",
    vocab_size=70,
    hard_vocab_limit=False,
    normalization_rule_name="identity",
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    minloglevel=2,
  )
  file = folder / "spiece.model"
  file.write_bytes(data.getvalue())
  theirs = SiglipTokenizer(str(file), model_max_length=24)
  pieces = theirs.sp_model
  table = [
    (pieces.id_to_piece(i), pieces.get_score(i)) for i in range(len(pieces))
  ]
  inner = Tokenizer(models.Unigram(table, unk_id=2))
  marks = r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~]"""
  inner.normalizer = normalizers.Sequence(
    [
      normalizers.Lowercase(),
      normalizers.Replace(Regex(marks), ""),
      normalizers.Replace(Regex(r"\s+"), " "),
      normalizers.Strip(),
    ]
  )
  inner.pre_tokenizer = pre_tokenizers.Metaspace()
  inner.post_processor = processors.TemplateProcessing(
    single="$A </s>", special_tokens=[("</s>", 1)]
  )
  inner.add_special_tokens(["</s>", "<unk>"])
  theirs.save_pretrained(folder)
  inner.save(str(folder / "tokenizer.json"))
  file.unlink()
  return theirs


def write_gemma(folder: pathlib.Path):
  """SigLIP 2's tokenizer: Gemma's, which ends texts and begins none."""
  from tokenizers import Tokenizer, models, normalizers, trainers
  from transformers import GemmaTokenizerFast

  inner = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True))
  inner.normalizer = normalizers.Replace(" ", "▁")
  trainer = trainers.BpeTrainer(
    vocab_size=80,
    special_tokens=["<pad>", "<eos>", "<bos>", "<unk>"],
    show_progress=False,
  )
  inner.train_from_iterator(CORPUS, trainer)
  file = folder / "tokenizer.json"
  inner.save(str(file))
  theirs = GemmaTokenizerFast(
    tokenizer_file=str(file),
    add_bos_token=False,
    add_eos_token=True,
    padding_side="right",
    model_max_length=20,
    model_input_names=["input_ids"],
  )
  theirs.save_pretrained(folder)
  path = folder / "tokenizer_config.json"
  named = path.read_text().replace("GemmaTokenizerFast", "GemmaTokenizer")
  path.write_text(named)  # as published
  return theirs


def tokenized(theirs, texts, length: int) -> np.ndarray:
  """Ids [n, length] by transformers, as the models' pages call for."""
  lower = [text.lower() for text in texts]
  found = theirs(
    lower, padding="max_length", truncation=True, max_length=length
  )
  return np.array(found["input_ids"], np.int64)


def write(name: str, seed: int) -> None:
  """Writes one case: a checkpoint folder and expected.npz in it."""
  import torch
  from transformers import SiglipImageProcessor, SiglipModel

  settings, dtype, shard, kind = CASES[name]
  folder = HERE / name
  shutil.rmtree(folder, ignore_errors=True)
  folder.mkdir()
  by_kind = {"sentencepiece": write_sentencepiece, "gemma": write_gemma}
  theirs = by_kind[kind](folder)
  words = max(theirs.get_vocab().values()) + 1
  config = make_config(settings, words)
  model = make_model(config, seed).to(getattr(torch, dtype))
  model.save_pretrained(folder, max_shard_size=shard)
  side = config.vision_config.image_size
  SiglipImageProcessor(
    size={"height": side, "width": side}, resample=2 if "2" in name else 3
  ).save_pretrained(folder)
  # As published, of the fields that have their defaults none is written.
  path = folder / "config.json"
  content = json.loads(path.read_text())
  for part in ("text", "vision"):
    kept = settings[part] | ({"vocab_size": words} if part == "text" else {})
    kept["model_type"] = content[f"{part}_config"]["model_type"]
    content[f"{part}_config"] = kept
  path.write_text(json.dumps(content, indent=2) + "\n")
  model = SiglipModel.from_pretrained(folder, dtype=torch.float32).eval()
  ids = tokenized(theirs, TEXTS, config.text_config.max_position_embeddings)
  pixels = make_pixels(config, seed)
  np.savez_compressed(
    folder / "expected.npz",
    texts=np.array(TEXTS),
    ids=ids,
    pixel_values=pixels,
    **run(model, pixels, ids),
  )
  print(name, words, "words", sorted(p.name for p in folder.iterdir()))


if __name__ == "__main__":
  for number, case in enumerate(CASES):
    write(case, number)
