"""The SigLIP loader: every weight, setting and token fits, or is named."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.teachers import families, siglip
from mipd_jax.teachers.checkpoints import hf_weights, tokenizer
from mipd_jax.teachers.image_teachers import ZeroShotTeacher
from tests.siglip import tiny

_ASKED = {"question": "what", "verb_score": "sum"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  return tiny.write(tmp_path_factory.mktemp("siglip") / "tiny")


@pytest.fixture
def copy(folder, tmp_path) -> pathlib.Path:
  return shutil.copytree(folder, tmp_path / "copy")


def _edit(path: pathlib.Path, **values) -> None:
  content = json.loads(path.read_text()) if path.exists() else {}
  path.write_text(json.dumps(content | values))


def _part(name: str, **values):
  def spoil(folder):
    content = json.loads((folder / "config.json").read_text())
    content[name] |= values
    (folder / "config.json").write_text(json.dumps(content))

  return spoil


def _config(**values):
  return lambda folder: _edit(folder / "config.json", **values)


def _processing(**values):
  return lambda folder: _edit(folder / "preprocessor_config.json", **values)


def test_by_its_folder_alone(folder):
  """Encoder and, by its zero-shot logits, teacher."""
  encoder = families.load_encoder(folder, "float32")
  assert isinstance(encoder, siglip.Siglip)
  teacher = families.load_teacher(str(folder), "float32", **_ASKED)
  assert isinstance(teacher, ZeroShotTeacher)
  assert teacher.revision == encoder.revision
  pixels = np.zeros((1, 16, 16, 3), np.uint8)
  assert teacher.see(teacher.params, pixels)["tokens"].shape == (1, 5, 16)


def test_all_bad_weights_are_named_in_one_error(copy):
  from safetensors.numpy import save_file

  file = copy / "model.safetensors"
  tensors, _ = hf_weights.read(copy)
  # Buffers of positions, in older files, are no weights.
  tensors["text_model.embeddings.position_ids"] = np.arange(10)[None]
  save_file(tensors, file, metadata={"format": "pt"})
  siglip.load(copy)
  tensors["vision_model.head.extra"] = np.ones(3, np.float32)
  del tensors["logit_bias"], tensors["vision_model.head.probe"]
  name = "vision_model.head.attention.in_proj_weight"
  tensors[name] = np.ascontiguousarray(tensors[name][:-1])
  save_file(tensors, file, metadata={"format": "pt"})
  with pytest.raises(InputError) as caught:
    siglip.load(copy)
  for part in (
    "2 missing: logit_bias, vision_model.head.probe",
    "1 unexpected: vision_model.head.extra",
    f"{name} (47, 16), wanted (48, 16)",
    str(copy),
  ):
    assert part in str(caught.value)


@pytest.mark.parametrize(
  ("spoil", "told"),
  [
    (_config(model_type="clip"), "model_type is 'clip', not 'siglip'"),
    (_config(text_config=3), "text_config"),
    (_config(use_gating=True), "use_gating=True: not known here"),
    (_part("vision_config", rope_theta=1e4), "vision_config has rope_theta"),
    (_part("text_config", causal=True), "text_config has causal=True"),
    (_part("vision_config", vision_use_head=True), None),
    (_part("vision_config", vision_use_head=False), "vision_use_head=False"),
    (_part("vision_config", num_channels=4), "num_channels=4"),
    (_part("vision_config", patch_size=17), "at most the image_size, 16"),
    (_part("vision_config", num_attention_heads=3), "3 heads do not divide"),
    (_part("vision_config", hidden_act="mish"), "hidden_act is 'mish'"),
    (_part("text_config", num_hidden_layers=0), "num_hidden_layers is 0"),
    (_part("text_config", layer_norm_eps=0), "layer_norm_eps is 0"),
    (_part("text_config", projection_size=8), "projection_size is 8.* 16"),
    (_part("text_config", max_position_embeddings=11), "1 of another shape"),
    # SigLIP 2's config names a padding that is not its tokenizer's.
    (_part("text_config", pad_token_id=99, bos_token_id=49406), None),
  ],
)
def test_settings(copy, spoil, told):
  spoil(copy)
  if told is None:
    siglip.load(copy)
    return
  with pytest.raises(InputError, match=told) as caught:
    siglip.load(copy)
  assert str(copy) in str(caught.value)


@pytest.mark.parametrize(
  ("spoil", "told"),
  [
    (
      lambda f: tokenizer.save_word_level(f, [*tiny.WORDS, "more"], 10),
      "ids up to 8, the embedding has 8 rows",
    ),
    (lambda f: _edit(f / "tokenizer_config.json", pad_token=None), "to fill"),
    (lambda f: (f / "tokenizer.json").unlink(), "no readable tokenizer"),
    (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer"),
    *(
      (lambda f, k=kind: _edit(f / "tokenizer_config.json", **k), None)
      for kind in (
        {"tokenizer_class": "Siglip2Tokenizer", "padding_side": "left"},
        {"tokenizer_class": "SiglipTokenizer"},
      )
    ),
  ],
)
def test_tokenizers(copy, folder, spoil, told):
  spoil(copy)
  if told:
    with pytest.raises(InputError, match=told):
      siglip.load(copy)
    return
  found, wanted = (siglip.load(f).tokenize(["A Cat"]) for f in (copy, folder))
  for ours, theirs in zip(found, wanted, strict=True):
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
  ("spoil", "found"),
  [
    (lambda folder: None, (0.5, 0.5)),
    (_processing(image_processor_type="SiglipImageProcessorFast"), (0.5, 0.5)),
    (_processing(resample=2, size={"height": 16, "width": 16}), (0.5, 0.5)),
    (_processing(image_mean=[0.4] * 3, image_std=[0.2] * 3), (0.4, 0.2)),
    (_processing(do_normalize=False), (0, 1)),
    (_processing(resample=0), "resample is 0, expected 3"),
    (_processing(size={"height": 32, "width": 32}), "expected 16"),
    (_processing(do_resize=False), "do_resize is False"),
    (_processing(image_processor_type="CLIPImageProcessor"), "image_mean"),
  ],
)
def test_pixels(copy, spoil, found):
  spoil(copy)
  if isinstance(found, str):
    with pytest.raises(InputError, match=found):
      siglip.load(copy)
    return
  model = siglip.load(copy)
  assert (model.mean[0], model.std[0]) == found
