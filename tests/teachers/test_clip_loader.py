"""The one CLIP loader: parity with transformers, strictness, bad input."""

import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.teachers import clip
from mipd_jax.teachers.checkpoints import hf_config, hf_weights, tokenizer

WORDS = ["a", "cat", "dog", "red"]
SIZES = {
  "hidden_size": 16,
  "intermediate_size": 24,
  "num_hidden_layers": 2,
  "num_attention_heads": 2,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
  """A random CLIP in Hugging Face format."""
  from transformers import CLIPConfig

  out = tmp_path_factory.mktemp("clip")
  ids = tokenizer.vocabulary(WORDS)
  config = CLIPConfig(
    vision_config={**SIZES, "image_size": 16, "patch_size": 8},
    text_config={
      **SIZES,
      "vocab_size": len(ids),
      "max_position_embeddings": 10,
      "eos_token_id": ids[tokenizer.END],
      "bos_token_id": ids[tokenizer.BEGIN],
      "pad_token_id": ids[tokenizer.PAD],
    },
    projection_dim=12,
  )
  _, template = clip.build(config)
  rng = np.random.default_rng(0)
  params = jax.tree.map(
    lambda leaf: rng.standard_normal(leaf.shape).astype(np.float32) * 0.3,
    template,
  )
  config.save_pretrained(out)
  tokenizer.save_word_level(out, WORDS, 10)
  hf_weights.write(out / "model.safetensors", params)
  return out


@pytest.fixture(scope="module")
def model(folder) -> clip.Clip:
  return clip.load(folder)


@pytest.fixture
def copy(folder, tmp_path) -> pathlib.Path:
  return shutil.copytree(folder, tmp_path / "copy")


def _tensors(folder: pathlib.Path) -> dict[str, np.ndarray]:
  tensors, _ = hf_weights.read(folder)
  return tensors


def _save(folder: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
  from safetensors.numpy import save_file

  save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def test_agrees_with_transformers(folder, model):
  """Same numbers as FlaxCLIPModel reading the folder by its own rules."""
  from transformers import FlaxCLIPModel

  theirs = FlaxCLIPModel.from_pretrained(folder)
  rng = np.random.default_rng(1)
  pixels = rng.integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
  ids, mask = model.tokenize(["a red cat", "dog"], 8)
  normal = (pixels / 255.0 - np.array(hf_config.MEAN)) / np.array(hf_config.STD)
  out = theirs(
    input_ids=ids,
    attention_mask=mask.astype(np.int32),
    pixel_values=normal.transpose(0, 3, 1, 2),
  )

  def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)

  tokens, image = jax.jit(model.image_features)(model.params, pixels)
  text = jax.jit(model.text_embedding)(model.params, ids, mask)
  np.testing.assert_allclose(
    tokens, out.vision_model_output.last_hidden_state, atol=1e-4
  )
  np.testing.assert_allclose(unit(image), out.image_embeds, atol=1e-5)
  np.testing.assert_allclose(unit(text), out.text_embeds, atol=1e-5)
  similarity = unit(image) @ unit(text).T * model.logit_scale
  np.testing.assert_allclose(similarity, out.logits_per_image, rtol=1e-3)


def test_shapes_and_attributes(model):
  pixels = np.zeros((2, 16, 16, 3), np.uint8)
  ids, mask = model.tokenize(["a cat"] * 3, 6)
  assert model.image_tokens(model.params, pixels).shape == (2, 5, 16)
  assert model.image_embedding(model.params, pixels).shape == (2, 12)
  assert model.text_tokens(model.params, ids, mask).shape == (3, 6, 12)
  assert model.image_size == 16
  assert model.num_image_tokens == 5
  assert (model.vision_width, model.text_width) == (16, 12)
  assert len(model.revision) == 64


def test_end_token_of_text_tokens_is_the_embedding(model):
  ids, mask = model.tokenize(["a red dog"], 9)
  tokens = model.text_tokens(model.params, ids, mask)
  embedding = model.text_embedding(model.params, ids, mask)
  end = int(mask.sum()) - 1
  np.testing.assert_allclose(tokens[:, end], embedding, atol=1e-6)


def test_padding_changes_no_text_embedding(model):
  short = model.tokenize(["red cat"], 4)
  long = model.tokenize(["red cat"], 10)
  np.testing.assert_allclose(
    model.text_embedding(model.params, *short),
    model.text_embedding(model.params, *long),
    atol=1e-6,
  )


def test_tokenizer(model):
  ids, mask = model.tokenize(["A red, CAT!", "zebra", "a " * 40], 6)
  known = tokenizer.vocabulary(WORDS)
  end = known[tokenizer.END]
  expected = [known[w] for w in (tokenizer.BEGIN, "a", "red", "cat")]
  assert ids[0].tolist() == [*expected, end, known[tokenizer.PAD]]
  assert mask[0].tolist() == [True] * 5 + [False]
  assert ids[1, 1] == known[tokenizer.UNKNOWN]
  assert ids[2, -1] == end
  assert (ids.dtype, mask.dtype) == (np.int32, bool)
  assert model.tokenize([], 6)[0].shape == (0, 6)
  # Never longer than the model has positions for.
  assert model.tokenize(["a"], 99)[0].shape == (1, 10)


def test_names_and_layout_are_pytorchs(folder):
  tensors = _tensors(folder)
  patch = "vision_model.embeddings.patch_embedding.weight"
  assert tensors[patch].shape == (16, 3, 8, 8)
  layer = "text_model.encoder.layers.1."
  assert tensors[layer + "mlp.fc1.weight"].shape == (24, 16)
  assert tensors[layer + "layer_norm2.weight"].shape == (16,)
  assert tensors["visual_projection.weight"].shape == (12, 16)
  assert tensors["logit_scale"].shape == ()
  assert "vision_model.pre_layrnorm.bias" in tensors


def test_round_trip_is_exact(model):
  tensors = hf_weights.to_torch(model.params)
  back = hf_weights.to_flax(tensors, model.params, source="memory")
  same = jax.tree.map(lambda a, b: np.array_equal(a, b), back, model.params)
  assert all(jax.tree.leaves(same))


def test_all_bad_weights_are_named_in_one_error(copy):
  tensors = _tensors(copy)
  tensors["text_model.embeddings.position_ids"] = np.arange(10)[None]
  _save(copy, tensors)
  clip.load(copy)  # buffers of positions are no weights
  tensors["extra.weight"] = np.ones(3, np.float32)
  del tensors["text_projection.weight"]
  del tensors["vision_model.post_layernorm.bias"]
  name = "text_model.embeddings.token_embedding.weight"
  tensors[name] = np.ascontiguousarray(tensors[name][:-1])
  _save(copy, tensors)
  with pytest.raises(InputError) as caught:
    clip.load(copy)
  message = str(caught.value)
  for part in (
    "2 missing: text_projection.weight, vision_model.post_layernorm.bias",
    "1 unexpected: extra.weight",
    f"{name} (7, 16), wanted (8, 16)",
    str(copy),
  ):
    assert part in message


def test_shards_and_bfloat16(copy, model):
  import ml_dtypes

  tensors = {
    name: value.astype(ml_dtypes.bfloat16)
    for name, value in _tensors(copy).items()
  }
  (copy / "model.safetensors").unlink()
  from safetensors.flax import save_file

  names = sorted(tensors)
  parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
  for file, some in parts.items():
    save_file({n: jnp.asarray(tensors[n]) for n in some}, copy / file)
  index = {n: file for file, some in parts.items() for n in some}
  path = copy / "model.safetensors.index.json"
  path.write_text(json.dumps({"weight_map": index}))
  loaded = clip.load(copy)
  assert loaded.revision != model.revision
  for ours, whole in zip(
    jax.tree.leaves(loaded.params), jax.tree.leaves(model.params), strict=True
  ):
    np.testing.assert_allclose(ours, whole, rtol=1e-2)
  (copy / "b.safetensors").unlink()
  with pytest.raises(InputError, match=r"not there: \['b.safetensors'\]"):
    clip.load(copy)


def test_flax_checkpoint(copy, model):
  import flax

  params = jax.tree.map(np.asarray, model.params)
  data = flax.serialization.msgpack_serialize(params)
  (copy / "model.safetensors").unlink()
  (copy / "flax_model.msgpack").write_bytes(data)
  loaded = clip.load(copy)
  same = jax.tree.map(np.array_equal, loaded.params, model.params)
  assert all(jax.tree.leaves(same))


def test_dtype(folder):
  half = clip.load(folder, jnp.bfloat16)
  pixels = np.zeros((1, 16, 16, 3), np.uint8)
  assert half.image_tokens(half.params, pixels).dtype == jnp.bfloat16


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (
      lambda f: (f / "model.safetensors").unlink(),
      "no weights, none of model.safetens",
    ),
    (lambda f: (f / "config.json").unlink(), "config.json"),
    (lambda f: (f / "config.json").write_text("{"), "config.json"),
    (
      lambda f: (f / "config.json").write_text('{"model_type": "bert"}'),
      "'bert', not 'clip'",
    ),
    (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer"),
    (
      lambda f: (f / "model.safetensors").write_bytes(
        (f / "model.safetensors").read_bytes()[:-100]
      ),
      "cannot be read as safetensors",
    ),
  ],
)
def test_bad_folders(copy, spoil, message):
  spoil(copy)
  with pytest.raises(InputError, match=message) as caught:
    clip.load(copy)
  assert "Remedy" in str(caught.value)


def _edit(path: pathlib.Path, **values) -> None:
  content = json.loads(path.read_text()) if path.exists() else {}
  path.write_text(json.dumps(content | values))


def _text(folder: pathlib.Path, **values) -> None:
  content = json.loads((folder / "config.json").read_text())
  content["text_config"] |= values
  (folder / "config.json").write_text(json.dumps(content))


def _eight_bits(folder: pathlib.Path) -> None:
  """Weights that are one number of eight bits, by safetensors' rules."""
  one = {"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}
  header = json.dumps({"logit_scale": one}).encode()
  data = len(header).to_bytes(8, "little") + header + b"\0"
  (folder / "model.safetensors").write_bytes(data)


@pytest.mark.parametrize(
  ("spoil", "told"),
  [
    (
      lambda f: tokenizer.save_word_level(f, [*WORDS, "more"], 10),
      "ids up to 8, the embedding has 8 rows",
    ),
    (
      lambda f: tokenizer.save_word_level(f, WORDS[:-1], 10),
      "CLIP reads a text at .* 7 .* the tokenizer ends texts with 6",
    ),
    (lambda f: _text(f, eos_token_id=6), "reads a text at .* 6 in text_config"),
    (lambda f: _text(f, eos_token_id=99), "reads a text at .* 99 in"),
    (lambda f: _text(f, vocab_size=7), "up to 7, the embedding has 7 rows"),
    (
      lambda f: tokenizer.save_word_level(f, WORDS, 10, begin=False),
      None,
    ),
    (lambda f: _text(f, eos_token_id=2), None),
    (lambda f: _edit(f / "tokenizer_config.json", pad_token=None), "to fill"),
    (lambda f: _edit(f / "tokenizer.json", model={}), "no readable tokenizer"),
    (lambda f: (f / "tokenizer.json").write_text("[]"), "expected an object"),
    (
      lambda f: (f / "tokenizer_config.json").write_text("[" * 100_000),
      "nested too deeply",
    ),
    (
      lambda f: (f / "tokenizer.json").write_bytes(
        b"\xef\xbb\xbf" + (f / "tokenizer.json").read_bytes()
      ),
      "byte order mark",
    ),
    (
      lambda f: _edit(
        f / "tokenizer_config.json", tokenizer_class="TransfoXLTokenizer"
      ),
      "pickled files, which are never read",
    ),
    (
      lambda f: _edit(f / "preprocessor_config.json", image_std=[0, 0, 0]),
      "image_std",
    ),
    (
      lambda f: _edit(
        f / "preprocessor_config.json",
        image_processor_type="Own",
        auto_map={"AutoImageProcessor": "own.Own"},
        image_mean=0.5,
        image_std=0.5,
      ),
      "image_processor_type is 'Own', expected one of transformers' own",
    ),
    (lambda f: _eight_bits(f), "logit_scale is of type F8_E4M3, which is not"),
  ],
)
def test_parts_that_do_not_fit_together(copy, spoil, told):
  spoil(copy)
  if told is None:
    clip.load(copy)
    return
  with pytest.raises(InputError, match=told) as caught:
    clip.load(copy)
  assert str(copy) in str(caught.value)


@pytest.mark.parametrize(
  ("name", "field"),
  [
    ("tokenizer_config.json", {"AutoTokenizer": ["evil.Evil", None]}),
    ("config.json", {"AutoTokenizer": "evil.Evil", "AutoModel": "evil.Evil"}),
    ("config.json", {"AutoConfig": "evil.Evil", "AutoTokenizer": "evil.Evil"}),
  ],
)
def test_a_folders_own_python_never_runs(copy, monkeypatch, name, field):
  """No question is asked either: reading standard input fails here."""
  monkeypatch.chdir(copy)
  (copy / "evil.py").write_text(
    "import pathlib\npathlib.Path('EXECUTED').touch()\nclass Evil: pass\n"
  )

  def asked(*_):
    raise AssertionError("asked on the terminal")

  monkeypatch.setattr("builtins.input", asked)
  _edit(copy / name, auto_map=field)
  if name == "config.json":
    clip.load(copy)
  _edit(copy / "tokenizer_config.json", tokenizer_class="Evil")
  with pytest.raises(InputError, match=r"tokenizer"):
    clip.load(copy)
  (copy / "tokenizer_config.json").unlink()
  (copy / "tokenizer.json").unlink()
  with pytest.raises(InputError, match=r"tokenizer"):
    clip.load(copy)
  assert not (copy / "EXECUTED").exists()


def test_pixels_that_the_folder_does_not_normalise(copy, model):
  _edit(copy / "preprocessor_config.json", do_normalize=False)
  loaded = clip.load(copy)
  pixels = np.full((1, 2, 2, 3), 51, np.uint8)
  np.testing.assert_allclose(loaded.normalise(pixels), 0.2, rtol=1e-6)
  assert model.mean == hf_config.MEAN


def test_texts_are_padded_at_the_right(copy, model):
  """Left is for generating; here it would move every token's position."""
  _edit(copy / "tokenizer_config.json", padding_side="left")
  ids, mask = clip.load(copy).tokenize(["a cat", "dog"])
  wanted_ids, wanted_mask = model.tokenize(["a cat", "dog"])
  np.testing.assert_array_equal(ids, wanted_ids)
  np.testing.assert_array_equal(mask, wanted_mask)


@pytest.mark.parametrize(
  ("values", "odd"),
  [
    ({"image_mean": [123.7, 116.3, 103.5], "image_std": 58.0}, True),
    ({"image_std": 1e-9}, True),
    ({"do_rescale": False}, True),
    ({"do_rescale": False, "image_mean": 127.5, "image_std": 127.5}, False),
    ({"rescale_factor": 1 / 127.5, "image_mean": 1, "image_std": 1}, False),
    ({"do_normalize": False}, False),
    ({"image_mean": [0, 0, 0], "image_std": [1, 1, 1]}, False),
  ],
)
def test_odd_pixels_are_told(tmp_path, caplog, values, odd):
  """They are what the file says; a wrong file is only likely."""
  _edit(tmp_path / "preprocessor_config.json", **values)
  with caplog.at_level("WARNING"):
    hf_config.pixel_normalisation(tmp_path, 16)
  assert ("black to white become" in caplog.text) == odd


def test_unknown_id(monkeypatch):
  with pytest.raises(InputError, match="hf download no/such-clip"):
    clip.load("no/such-clip")


def test_the_revision_counts_what_says_how_to_use_the_weights(tmp_path):
  """Tokenizer and settings, by content; not notes, nor spaces in JSON."""
  weights, config = tmp_path / "model.safetensors", tmp_path / "config.json"
  weights.write_bytes(b"weights")
  config.write_text('{"a": 1, "b": 2}')
  before = hf_weights.revision([weights])
  config.write_text('{"b":2,\n"a":1, "transformers_version": "5"}')
  (tmp_path / "README.md").write_text("x")
  assert hf_weights.revision([weights]) == before
  seen = {before}
  for name, text in (
    ("config.json", '{"a": 1, "b": 3}'),
    ("preprocessor_config.json", '{"image_mean": [0, 0, 0]}'),
    ("tokenizer.json", "{}"),
    ("merges.txt", "a b"),
    ("tokenizer.json", "{cut off"),
  ):
    (tmp_path / name).write_text(text)
    seen.add(hf_weights.revision([weights]))
  assert len(seen) == 6
