"""config.json and preprocessor_config.json: heeded, or refused by the field."""

import copy
import json

import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.teachers import clip
from mipd_jax.teachers.blip2 import config as blip2_config
from mipd_jax.teachers.checkpoints import hf_config
from mipd_jax.teachers.language import weights
from tests.fixtures import blip2_fixture
from tests.language.test_language_model import GOLDENS as LANGUAGE

DEEP = 100_000
OPENAI = (hf_config.MEAN, hf_config.STD)
CLIP = {
  "model_type": "clip",
  "projection_dim": 12,
  "vision_config": {"hidden_size": 16, "num_attention_heads": 2},
  "text_config": {"hidden_size": 16, "num_attention_heads": 2},
}


def _blip2(case: str) -> dict:
  path = blip2_fixture.folder(case) / "config.json"
  return json.loads(path.read_text())


def _language(case: str) -> dict:
  return json.loads((LANGUAGE / case / "config.json").read_text())


# Kind -> a config that is read, and how.
KINDS = {
  "clip": (lambda: CLIP, clip._read_config),
  "blip2 t5": (lambda: _blip2(blip2_fixture.T5), blip2_config.read),
  "blip2 opt": (lambda: _blip2(blip2_fixture.OPT), blip2_config.read),
  "t5": (lambda: _language("t5"), weights.build),
  "gpt2": (lambda: _language("gpt2"), weights.build),
}


def _read(folder, kind: str, *changes):
  content, read = KINDS[kind]
  content = copy.deepcopy(content())
  for path, value in changes:
    *parts, name = path.split(".")
    part = content
    for one in parts:
      part = part[one]
    if value is KeyError:
      del part[name]
    else:
      part[name] = value
  (folder / "config.json").write_text(json.dumps(content))
  return read(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_tables_below_change_is_read(tmp_path, kind):
  _read(tmp_path, kind)
  _read(
    tmp_path,
    kind,
    ("dtype", "float32"),
    ("transformers_version", "5.24.0"),
    ("auto_map", {"AutoModel": "evil.Model"}),
    ("_unused", 3),
    ("a_token_id", 7),
  )
  path = tmp_path / "config.json"
  path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
  KINDS[kind][1](tmp_path)


@pytest.mark.parametrize(
  ("kind", "path", "value", "told"),
  [
    ("clip", "vision_config.hidden_act", "nosuch", "hidden_act is 'nosuch'"),
    ("clip", "vision_config.hidden_act", 3, "hidden_act is 3, expected gelu"),
    ("clip", "text_config.num_attention_heads", 0, "heads is 0, expected a wh"),
    ("clip", "text_config.num_attention_heads", 3, "3 heads do not divide"),
    ("clip", "text_config.num_hidden_layers", -1, "layers is -1, expected a"),
    ("clip", "text_config.num_hidden_layers", 10**6, "whole number of 1 to 10"),
    ("clip", "vision_config.hidden_size", "16", "hidden_size is '16'"),
    ("clip", "vision_config.hidden_size", 16.0, "hidden_size is 16.0"),
    ("clip", "vision_config.hidden_size", True, "hidden_size is True"),
    ("clip", "vision_config.patch_size", 0, "patch_size is 0"),
    ("clip", "vision_config.patch_size", 500, "at most the image_size, 224"),
    ("clip", "vision_config.layer_norm_eps", "1e-5", "layer_norm_eps is '1e-5"),
    ("clip", "vision_config.num_channels", 1, "num_channels=1"),
    ("clip", "vision_config.layer_scale", 0.1, "layer_scale=0.1: not known"),
    ("clip", "vision_config", [], "vision_config is"),
    ("clip", "text_config", "small", "text_config is 'small'"),
    ("clip", "projection_dim", -1, "projection_dim is -1"),
    ("clip", "scale_logits", False, "scale_logits=False: not known"),
    ("clip", "quantization_config", {"bits": 4}, "quantization_config"),
    ("clip", "model_type", "siglip", "'siglip', not 'clip'"),
    ("clip", "model_type", KeyError, "None, not 'clip'"),
    ("blip2 t5", "text_config.num_heads", 0, "num_heads is 0"),
    ("blip2 t5", "text_config.d_kv", "8", "d_kv is '8'"),
    ("blip2 t5", "text_config.num_decoder_layers", 0, "decoder_layers is 0"),
    ("blip2 t5", "text_config.eos_token_id", 10**6, "eos_token_id is 1000000"),
    ("blip2 t5", "text_config.pad_token_id", -1, "pad_token_id is -1"),
    ("blip2 t5", "text_config.decoder_start_token_id", [0], "start_token_id"),
    ("blip2 t5", "text_config.scale_decoder_outputs", "no", "outputs is 'no'"),
    ("blip2 t5", "text_config.scale_keys", True, "scale_keys=True: not known"),
    ("blip2 t5", "text_config", [1], "text_config is a?"),
    ("blip2 t5", "vision_config.patch_size", 99, "at most the image_size"),
    ("blip2 t5", "qformer_config.num_attention_heads", 5, "5 heads do not div"),
    ("blip2 t5", "qformer_config.cross_attention_frequency", 0, "quency is 0"),
    ("blip2 t5", "num_query_tokens", 0, "num_query_tokens is 0"),
    ("blip2 t5", "architectures", "Blip2", "architectures is 'Blip2'"),
    ("blip2 t5", "model_type", None, "None, not 'blip-2'"),
    ("blip2 opt", "text_config.ffn_dim", 0, "ffn_dim is 0"),
    ("blip2 opt", "text_config.enable_bias", False, "OPT is without biases"),
    ("blip2 opt", "text_config.num_attention_heads", 7, "7 heads do not divi"),
    ("t5", "d_model", "16", "d_model is '16'"),
    ("t5", "num_layers", 0, "num_layers is 0"),
    ("t5", "dense_act_fn", "nosuch", "dense_act_fn is 'nosuch'"),
    ("t5", "feed_forward_proj", "a-b-c", "feed_forward_proj"),
    ("t5", "layer_norm_epsilon", -1e-6, "layer_norm_epsilon is -1e-06"),
    ("t5", "layer_norm_epsilon", 2**31, "above 0 and below 1"),
    ("t5", "relative_attention_num_buckets", 0, "num_buckets is 0"),
    ("t5", "logit_softcap", 30.0, "logit_softcap=30.0: not known"),
    ("t5", "model_type", "nosuch", "model_type 'nosuch' has no Flax class"),
    ("t5", "model_type", ["t5"], "no Flax class"),
    ("gpt2", "n_head", 0, "n_head is 0"),
    ("gpt2", "n_head", 3, "3 heads do not divide"),
    ("gpt2", "n_layer", "2", "n_layer is '2'"),
    ("gpt2", "n_positions", 0, "is 0, expected a whole number"),
    (
      "gpt2",
      "activation_function",
      "nosuch",
      "a network cannot be built from it",
    ),
    ("gpt2", "scale_attn_by_inverse_layer_idx", True, "does not heed scale_at"),
    ("gpt2", "vocab_size", None, "vocab_size is None"),
  ],
)
def test_what_makes_no_model_is_refused(tmp_path, kind, path, value, told):
  with pytest.raises(InputError, match=told) as caught:
    _read(tmp_path, kind, (path, value))
  assert str(tmp_path / "config.json") in str(caught.value)


@pytest.mark.parametrize(
  ("content", "told"),
  [
    (b"", "cut off or is not JSON"),
    (b"[]", "not an object"),
    (b"\xff", "not UTF-8"),
    (b'{"a": ' * DEEP, "nested too deeply"),
    (b'{"model_type": "clip", "model_type": "clip"}', "twice"),
    (b'{"model_type": "clip", "projection_dim": 1' + b"0" * 5000 + b"}", "dig"),
    (
      b'{"model_type": "clip", "x": ' + b"[" * 900 + b"]" * 900 + b"}",
      "refuses it|not known",
    ),
  ],
)
@pytest.mark.parametrize("kind", ["clip", "blip2 t5", "t5"])
def test_a_file_that_is_none_is_refused(tmp_path, kind, content, told):
  content = content.replace(b'"clip"', json.dumps(_type(kind)).encode())
  (tmp_path / "config.json").write_bytes(content)
  with pytest.raises(InputError, match=told) as caught:
    KINDS[kind][1](tmp_path)
  assert "config.json" in str(caught.value)


def _type(kind: str) -> str:
  return KINDS[kind][0]()["model_type"]


SIXTEENTH = [1 / 16] * 3


@pytest.mark.parametrize("name", ["preprocessor", "processor"])
@pytest.mark.parametrize(
  ("content", "expected"),
  [
    ({}, OPENAI),
    ({"image_mean": None, "image_std": None, "do_normalize": None}, OPENAI),
    ({"do_normalize": False}, ((0, 0, 0), (1, 1, 1))),
    ({"do_normalize": False, "do_rescale": False}, ((0,) * 3, (1 / 255,) * 3)),
    ({"image_mean": 0.5, "image_std": [0.25] * 3}, ((0.5,) * 3, (0.25,) * 3)),
    ({"rescale_factor": 1 / 255, "resample": 3}, OPENAI),
    (
      {"rescale_factor": 2 / 255, "image_mean": [1, 1, 1], "image_std": 1},
      ((0.5,) * 3, (0.5,) * 3),
    ),
    (
      {
        "image_processor_type": "ViTImageProcessor",
        "image_mean": SIXTEENTH,
        "image_std": SIXTEENTH,
      },
      (SIXTEENTH, SIXTEENTH),
    ),
    ({"size": 224, "crop_size": 224, "do_center_crop": True}, OPENAI),
    ({"size": {"height": 224, "width": 224}, "do_convert_rgb": True}, OPENAI),
    (
      {
        "size": {"shortest_edge": 256},
        "crop_size": {"height": 224, "width": 224},
        "image_processor_type": "CLIPImageProcessorFast",
        "data_format": "channels_first",
      },
      OPENAI,
    ),
  ],
)
def test_pixels_are_normalised_as_the_file_says(
  tmp_path, name, content, expected
):
  """The formula of transformers: (pixel * rescale_factor - mean) / std."""
  path = tmp_path / f"{name}_config.json"
  whole = content if name == "preprocessor" else {"image_processor": content}
  path.write_text(json.dumps(whole))
  found = hf_config.pixel_normalisation(tmp_path, 224)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("content", "told"),
  [
    ({"image_std": [0, 0.2, 0.2]}, r"image_std is \[0, 0.2, 0.2\], expected"),
    ({"image_std": 0}, "image_std is 0"),
    ({"image_std": [-1, 1, 1]}, "image_std"),
    ({"image_mean": [0.5, 0.5]}, "image_mean is .* expected three numbers"),
    ({"image_mean": ["a", "b", "c"]}, "expected three numbers"),
    ({"image_mean": [0.5, 0.5, float("nan")]}, "expected three numbers"),
    ({"image_mean": [True] * 3}, "expected three numbers"),
    ({"image_mean": {}}, "expected three numbers"),
    ({"do_normalize": "false"}, "do_normalize is 'false'"),
    ({"do_rescale": 0}, "do_rescale is 0"),
    ({"rescale_factor": 0}, "rescale_factor is 0"),
    ({"rescale_factor": "1/255"}, "rescale_factor"),
    ({"do_resize": False}, "do_resize is False"),
    ({"resample": 2}, "resample is 2, expected 3, bicubic"),
    ({"size": 336}, "size is 336, expected 224"),
    ({"size": {"height": 224, "width": 200}}, "size is"),
    ({"size": "224"}, "size is '224'"),
    ({"size": {"longest_side": 224}}, "size is"),
    ({"size": 224, "crop_size": 336}, "crop_size is 336"),
    ({"do_flip_channel_order": True}, "do_flip_channel_order is True"),
    ({"offset": True}, "offset is True"),
    ({"image_processor_type": "ViTImageProcessor"}, "mean and std beside a"),
    ([], "expected an object"),
  ],
)
def test_other_pixels_than_are_made_here_are_refused(tmp_path, content, told):
  path = tmp_path / "preprocessor_config.json"
  path.write_text(json.dumps(content))
  with pytest.raises(InputError, match=told) as caught:
    hf_config.pixel_normalisation(tmp_path, 224)
  assert str(path) in str(caught.value)
