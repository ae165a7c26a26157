"""Loading and writing BLIP-2 checkpoints: strictness, ties, bad folders."""

import json
import pathlib
import shutil
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from input_pipeline.io.errors import InputError
from mipd_jax.teachers import blip2
from mipd_jax.teachers.blip2 import weights
from mipd_jax.teachers.checkpoints import hf_weights, tokenizer
from tests.fixtures import blip2_fixture as fixture
from tests.fixtures.blip2_fixture import BF16, OPT, T5

SINGLE = "model.safetensors"
LANGUAGE = "language_model."
SHARED = LANGUAGE + "shared.weight"


@pytest.fixture
def copy(tmp_path):
  """(case) -> a copy of its folder, with one file of weights."""

  def make(case: str) -> pathlib.Path:
    folder = tmp_path / case
    shutil.copytree(fixture.folder(case), folder)
    if not (folder / SINGLE).exists():
      tensors = hf_weights.read(folder)[0]
      for path in folder.glob("model*"):
        path.unlink()
      save(folder, tensors)
    return folder

  return make


def tensors_of(folder: pathlib.Path) -> dict[str, np.ndarray]:
  return load_file(folder / SINGLE)


def save(folder: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
  save_file(tensors, folder / SINGLE, metadata={"format": "pt"})


def edit_config(folder: pathlib.Path, section: str | None, **fields) -> None:
  path = folder / "config.json"
  config = json.loads(path.read_text())
  (config[section] if section else config).update(fields)
  path.write_text(json.dumps(config))


def same(ours, theirs) -> bool:
  return jax.tree.all(jax.tree.map(np.array_equal, ours, theirs))


def test_shards_and_one_file_are_the_same(copy):
  assert len(list(fixture.folder(T5).glob("model-*"))) > 2
  whole, shards = blip2.load(copy(T5)), fixture.model(T5)
  assert same(whole.params, shards.params)
  assert whole.revision != shards.revision


def test_a_missing_shard_is_named(tmp_path):
  folder = shutil.copytree(fixture.folder(T5), tmp_path / "copy")
  name = "model-00002-of-00004.safetensors"
  (folder / name).unlink()
  with pytest.raises(InputError, match=f"not there: .*{name}"):
    blip2.load(folder)


def test_all_bad_weights_are_named_in_one_error(copy):
  folder = copy(BF16)
  tensors = tensors_of(folder)
  tensors["extra.weight"] = np.ones(3, np.float32)
  del tensors["query_tokens"]
  del tensors[LANGUAGE + "lm_head.weight"]
  qkv = "vision_model.encoder.layers.0.self_attn.qkv.weight"
  tensors[qkv] = np.ascontiguousarray(tensors[qkv][:-1])
  patch = "vision_model.embeddings.patch_embedding.weight"
  tensors[patch] = np.ascontiguousarray(tensors[patch][:, :1])
  bias = "language_projection.bias"
  tensors[bias] = tensors[bias].astype(np.int8)
  save(folder, tensors)
  with pytest.raises(InputError) as caught:
    blip2.load(folder)
  message = str(caught.value)
  for part in (
    str(folder),
    "2 missing: language_model.lm_head.weight, query_tokens;",
    "1 unexpected: extra.weight;",
    "3 of another shape or type",
    f"{qkv} (71, 24) BF16, wanted (72, 24)",
    f"{patch} (24, 1, 8, 8) BF16, wanted (24, 3, 8, 8)",
    f"{bias} (20,) I8",
  ):
    assert part in message


def test_buffers_are_no_weights(copy):
  folder = copy(BF16)
  tensors = tensors_of(folder)
  tensors["qformer.embeddings.position_ids"] = np.arange(10)[None]
  name = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias"
  tensors[f"{LANGUAGE}{name}.weight"] = np.ones((32, 3), np.float32)
  save(folder, tensors)
  assert same(blip2.load(folder).params, fixture.model(BF16).params)


@pytest.mark.parametrize(
  ("case", "own", "other"),
  [
    (T5, SHARED, "encoder.embed_tokens.weight"),
    (T5, SHARED, "lm_head.weight"),
    (BF16, SHARED, "decoder.embed_tokens.weight"),
    (OPT, LANGUAGE + "model.decoder.embed_tokens.weight", "lm_head.weight"),
  ],
)
def test_tied_weights_under_any_name(copy, case, own, other):
  folder, other = copy(case), LANGUAGE + other
  tensors = tensors_of(folder)
  tensors[other] = tensors[own].copy()
  save(folder, tensors)
  twice = blip2.load(folder).params
  save(folder, {n: value for n, value in tensors.items() if n != own})
  once = blip2.load(folder).params
  assert same(twice, fixture.model(case).params)
  assert same(once, twice)
  tensors[other][3, 2] += 1
  save(folder, tensors)
  with pytest.raises(InputError, match=f"{other} and {own} are one weight"):
    blip2.load(folder)


def test_an_untied_output_is_a_weight_of_its_own(copy):
  folder = copy(T5)
  edit_config(folder, "text_config", tie_word_embeddings=False)
  with pytest.raises(InputError, match=r"1 missing: .*lm_head\.weight"):
    blip2.load(folder)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_t5_saved_by_transformers_5(copy, scaled, own):
  """`tie_word_embeddings` is true even where the weights have a head."""
  folder = copy(T5)
  tensors = tensors_of(folder)
  head = tensors[SHARED].copy()
  if own:
    head = head[::-1].copy()
    tensors[LANGUAGE + "lm_head.weight"] = head
    save(folder, tensors)
  edit_config(folder, "text_config", scale_decoder_outputs=scaled)
  model = blip2.load(folder)
  hidden = np.random.default_rng(0).normal(size=(2, head.shape[1])).astype("f4")
  factor = head.shape[1] ** -0.5 if scaled else 1.0
  found = model._language.logits(model.params, hidden)
  np.testing.assert_allclose(found, factor * hidden @ head.T, atol=1e-5)


@pytest.mark.parametrize("case", [T5, OPT])
def test_a_written_checkpoint_is_read_back(tmp_path, case):
  model = fixture.model(case)
  folder = tmp_path / "new" / "folder"
  blip2.write_checkpoint(folder, model.config, model.params)
  names = {path.name for path in folder.iterdir()}
  assert names == {"config.json", SINGLE}
  back = blip2.load(folder)
  assert same(back.params, model.params)
  fields = ("vision_config", "qformer_config", "text_config")
  for field in fields:
    ours, theirs = getattr(back.config, field), getattr(model.config, field)
    assert ours.to_dict() == theirs.to_dict()
  assert set(tensors_of(folder)) == set(
    hf_weights.read(fixture.folder(case))[0]
  )


def test_bfloat16_is_written_as_such(tmp_path):
  half = blip2.load(fixture.folder(BF16), jnp.bfloat16)
  blip2.write_checkpoint(tmp_path, half.config, half.params)
  kinds = {str(value.dtype) for value in tensors_of(tmp_path).values()}
  assert kinds == {"bfloat16"}
  assert same(blip2.load(tmp_path).params, fixture.model(BF16).params)


def test_reading_holds_one_tensor_at_a_time(tmp_path):
  config = fixture.model(T5).config
  config = type(config).from_dict(config.to_dict())
  config.vision_config.intermediate_size = 1 << 15
  _, template = blip2.build(config)
  leaves = jax.tree.map(lambda leaf: np.ones(leaf.shape, "f4"), template)
  blip2.write_checkpoint(tmp_path, config, leaves)
  whole = sum(leaf.nbytes for leaf in jax.tree.leaves(leaves))
  largest = max(leaf.nbytes for leaf in jax.tree.leaves(leaves))
  del leaves
  tracemalloc.start()
  weights.read(
    tmp_path, template, config, jnp.bfloat16, lambda _, array: array.shape
  )
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  # The tensor as stored, and its copy in the wanted type and layout.
  assert peak < 2 * largest + 1_000_000 < whole


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (lambda f: (f / SINGLE).unlink(), "no weights, none of model.safetensors"),
    (lambda f: (f / "config.json").unlink(), "config.json"),
    (lambda f: (f / "config.json").write_text("{"), "config.json"),
    (lambda f: (f / "config.json").write_text("[]"), "not an object"),
    (lambda f: edit_config(f, None, model_type="clip"), "'clip', not 'blip-2'"),
    (
      lambda f: edit_config(f, None, architectures=["Blip2ForImageTextRet"]),
      "architectures are .*ForImageTextRet",
    ),
    (
      lambda f: edit_config(f, "text_config", model_type="llama"),
      "'llama', not t5 or opt",
    ),
    (
      lambda f: edit_config(f, "qformer_config", use_qformer_text_input=True),
      "use_qformer_text_input",
    ),
    (
      lambda f: edit_config(
        f, "qformer_config", position_embedding_type="relative_key"
      ),
      "relative_key",
    ),
    (
      lambda f: edit_config(f, "vision_config", hidden_act="no_such"),
      r"activations \['no_such'\] are none of",
    ),
    (
      lambda f: edit_config(f, "vision_config", num_attention_heads=5),
      "5 heads do not divide a width of 24",
    ),
    (
      lambda f: (f / SINGLE).write_bytes((f / SINGLE).read_bytes()[:-100]),
      "cannot be read as safetensors",
    ),
    (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer"),
    (
      lambda f: (f / "preprocessor_config.json").write_text("{"),
      "preprocessor_config.json",
    ),
  ],
)
def test_bad_folders(copy, spoil, message):
  folder = copy(BF16)
  spoil(folder)
  with pytest.raises(InputError, match=message) as caught:
    blip2.load(folder)
  assert str(folder) in str(caught.value)
  assert "Remedy" in str(caught.value)


def test_unknown_id():
  with pytest.raises(InputError, match="hf download no/such-blip2"):
    blip2.load("no/such-blip2")


@pytest.mark.parametrize(
  ("fields", "told"),
  [
    ({"pad_token_id": None}, "pad_token_id is None, expected a token below 40"),
    (
      {"feed_forward_proj": "gated-silu"},
      "feed_forward_proj is 'gated-silu', but dense_act_fn is",
    ),
    ({"is_gated_act": "yes"}, "is_gated_act is 'yes', expected true or false"),
  ],
)
def test_fields_of_t5_that_make_no_model(copy, fields, told):
  folder = copy(T5)
  edit_config(folder, "text_config", **fields)
  with pytest.raises(InputError, match=told) as caught:
    blip2.load(folder)
  assert str(folder) in str(caught.value)


@pytest.mark.parametrize("dtype", [jnp.int8, "int32", bool, "nonsense", 7])
def test_dtypes_that_are_not_floating(dtype):
  with pytest.raises(InputError, match="not a floating one"):
    blip2.load(fixture.folder(T5), dtype)


def test_normalisation_of_the_checkpoint_wins(copy):
  folder = copy(BF16)
  assert blip2.load(folder).mean == (0.48145466, 0.4578275, 0.40821073)
  content = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.2, 0.1]}
  (folder / "preprocessor_config.json").write_text(json.dumps(content))
  model = blip2.load(folder)
  assert model.mean == (0.5, 0.4, 0.3)
  white = np.full((1, 1, 3), 255, np.uint8)
  np.testing.assert_allclose(
    model.normalise(white)[0, 0], [2.5, 3.0, 7.0], rtol=1e-5
  )


def words(count: int) -> list[str]:
  return [f"w{i}" for i in range(count)]


def test_tokenizer_of_the_checkpoint(copy):
  folder = copy(BF16)
  tokenizer.save_word_level(folder, words(36), 12)  # and four special ones
  model = blip2.load(folder)
  known = tokenizer.vocabulary(words(36))
  ids, mask = model.tokenize(["w3 w1"], 6)
  begin, end = known[tokenizer.BEGIN], known[tokenizer.END]
  assert ids[0].tolist() == [begin, known["w3"], known["w1"], end, 0, 0]
  assert mask[0].tolist() == [True] * 4 + [False] * 2
  tree = model.tokenize_answers(["w3 w1", "w3 w2", "w5"])
  assert tree.lengths.tolist() == [3, 3, 2]
  last = tree.edge_token[tree.edges[[0, 1, 2], tree.lengths - 1]]
  assert last.tolist() == [model.config.text_config.eos_token_id] * 3
  with pytest.raises(InputError, match="without any token"):
    model.tokenize_answers(["w3", " "])
  with pytest.raises(InputError, match="no candidates"):
    model.tokenize_answers([])


def test_tokenizer_that_does_not_match(copy):
  folder = copy(BF16)
  tokenizer.save_word_level(folder, words(37), 12)
  with pytest.raises(InputError, match=r"ids up to 40, .* has 40 rows"):
    blip2.load(folder)


def test_without_a_tokenizer_texts_are_refused():
  for ask in (
    lambda model: model.tokenize(["a"]),
    lambda model: model.tokenize_answers(["a"]),
  ):
    with pytest.raises(InputError, match="there is no tokenizer"):
      ask(fixture.model(T5))
