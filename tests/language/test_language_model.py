"""Language models in Flax: parity with PyTorch, sampling, bad input."""

import dataclasses
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from input_pipeline.io.errors import InputError
from mipd_jax.devices import sharding
from mipd_jax.teachers.checkpoints import hf_weights
from mipd_jax.teachers.language import decoding, language_model, llama, weights

GOLDENS = pathlib.Path(__file__).parents[1] / "goldens" / "language_model"
EXPECTED = json.loads((GOLDENS / "expected.json").read_text())
PROMPTS = [one["prompt"] for one in EXPECTED["gpt2"]]


@pytest.fixture(scope="module")
def one_device():
  return sharding.make_mesh(devices=jax.devices()[:1])


@pytest.fixture(scope="module")
def models(one_device):
  return {
    name: language_model.load(GOLDENS / name, mesh=one_device, batch_size=4)
    for name in EXPECTED
  }


@pytest.fixture
def copy(tmp_path):
  return lambda name: shutil.copytree(GOLDENS / name, tmp_path / name)


def sample(model, prompts, seeds, temperature=1.0):
  return model.generate(
    prompts, max_new_tokens=8, temperature=temperature, seeds=seeds
  )


@pytest.mark.parametrize("name", EXPECTED)
def test_logits_are_pytorchs(models, name):
  model = models[name]
  first = jax.jit(
    lambda params, ids, mask: decoding.start(
      model.network, params, ids, mask, model.tokens.prefix, 8
    )[0]
  )
  for rows, ids, mask in model._batches(PROMPTS, 8):
    logits = np.asarray(first(model.params, ids, mask))
    for place, row in enumerate(rows):
      wanted = EXPECTED[name][row]["logits"]
      np.testing.assert_allclose(logits[place], wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", EXPECTED)
def test_greedy_texts_are_pytorchs(models, name):
  texts = sample(models[name], PROMPTS, [0, 1, 2], temperature=0.0)
  assert texts == [one["greedy"] for one in EXPECTED[name]]


@pytest.mark.parametrize("name", EXPECTED)
def test_texts_depend_on_prompt_and_seed_alone(models, name):
  model = models[name]
  prompts = [*PROMPTS, "w1 w2", PROMPTS[0], "w5 " * 7]
  seeds = [11, 12, 13, 14, 2**32 - 1, 16]
  texts = sample(model, prompts, seeds)
  alone = [
    sample(model, [p], [s])[0] for p, s in zip(prompts, seeds, strict=True)
  ]
  assert texts == alone
  assert sample(model, prompts[::-1], seeds[::-1]) == texts[::-1]
  assert texts[0] != texts[4]  # the same prompt, another seed
  other = dataclasses.replace(model, batch_size=2)
  assert sample(other, prompts, seeds) == texts


def test_padding_changes_nothing(models, monkeypatch):
  texts = sample(models["gpt2"], PROMPTS, [1, 2, 3])
  odds = models["gpt2"].answer_probability(PROMPTS)
  monkeypatch.setattr(language_model, "_BUCKET", 16)
  model = dataclasses.replace(models["gpt2"], batch_size=3)
  assert sample(model, PROMPTS, [1, 2, 3]) == texts
  np.testing.assert_allclose(model.answer_probability(PROMPTS), odds, atol=1e-5)


def test_temperature(models):
  model = models["gpt2"]
  cold = sample(model, PROMPTS, [5, 6, 7], temperature=1e-4)
  assert cold == [one["greedy"] for one in EXPECTED["gpt2"]]
  hot = sample(model, PROMPTS, [5, 6, 7], temperature=5.0)
  assert hot != cold


def test_a_text_ends_at_the_end_token(models):
  """Whatever comes after a row's end is dropped, and others go on."""
  model = models["t5"]
  greedy = EXPECTED["t5"][0]["greedy"].split()
  stop = model.tokens.inner.convert_tokens_to_ids(greedy[2])
  tokens = dataclasses.replace(model.tokens, stops=(2, stop))
  ends = dataclasses.replace(model, tokens=tokens)
  texts = sample(ends, PROMPTS, [0] * 3, temperature=0.0)
  assert texts[0].split() == greedy[:3]
  if stop not in model.tokens.inner(EXPECTED["t5"][1]["greedy"])["input_ids"]:
    assert texts[1] == EXPECTED["t5"][1]["greedy"]


def test_no_token_beyond_the_tokenizer_is_drawn(models):
  model = models["gpt2"]
  seeds = range(40)
  texts = sample(model, [PROMPTS[0]] * 40, seeds, temperature=50.0)
  lengths = {len(text.split()) for text in texts}
  assert max(lengths) == 8
  # Three embeddings of 29 have no token: some texts would lack words.
  ended = [t for t in texts if len(t.split()) < 8]
  assert len(ended) < 40


@pytest.mark.parametrize("name", EXPECTED)
def test_answers(models, name):
  model = models[name]
  odds = model.answer_probability(PROMPTS)
  yes, no = model.tokens.first_tokens(("yes",), ("no",))
  for one, share in zip(EXPECTED[name], odds, strict=True):
    logits = np.exp(np.array(one["logits"]))
    wanted = logits[list(yes)].sum() / (
      logits[list(yes)].sum() + logits[list(no)].sum()
    )
    assert share == pytest.approx(wanted, abs=1e-4)
  with pytest.raises(InputError, match="does not tell"):
    model.answer_probability(PROMPTS, yes=("w1 w2",), no=("w1 w3",))
  with pytest.raises(InputError, match="does not tell"):
    model.answer_probability(PROMPTS, yes=("zebra",), no=("no",))


def test_devices_and_their_layout_change_no_text(models):
  """Rows over four devices, and parameters over two."""
  mesh = sharding.make_mesh(data=4, model=2)
  model = language_model.load(GOLDENS / "gpt2", mesh=mesh, batch_size=4)
  kernel = model.params["transformer"]["h"]["0"]["mlp"]["c_fc"]["kernel"]
  assert kernel.sharding.shard_shape(kernel.shape)[1] == kernel.shape[1] // 2
  assert sample(model, PROMPTS, [1, 2, 3]) == sample(
    models["gpt2"], PROMPTS, [1, 2, 3]
  )
  with pytest.raises(InputError, match="does not divide"):
    language_model.load(GOLDENS / "gpt2", mesh=mesh, batch_size=3)


def test_dtype_is_part_of_the_revision(models, one_device):
  half = language_model.load(GOLDENS / "gpt2", jnp.bfloat16, mesh=one_device)
  leaves = jax.tree.leaves(half.params)
  assert {leaf.dtype for leaf in leaves} == {jnp.dtype(jnp.bfloat16)}
  assert half.revision != models["gpt2"].revision
  assert models["t5"].revision != models["gpt2"].revision


def _tensors(folder):
  tensors, _ = hf_weights.read(folder)
  return tensors


def _save(folder, tensors):
  from safetensors.numpy import save_file

  kept = {name: np.ascontiguousarray(v) for name, v in tensors.items()}
  save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def _read(folder):
  return weights.read(folder, weights.build(folder))


def test_all_bad_weights_are_named_in_one_error(copy):
  folder = copy("gpt2")
  tensors = _tensors(folder)
  tensors["extra.weight"] = np.ones(3, np.float32)
  del tensors["transformer.ln_f.bias"]
  name = "transformer.h.0.attn.c_attn.weight"
  tensors[name] = tensors[name][:, :-1]
  _save(folder, tensors)
  with pytest.raises(InputError) as caught:
    _read(folder)
  for part in (
    "1 missing: transformer.ln_f.bias",
    "1 unexpected: extra.weight",
    f"{name} (47, 16), wanted (48, 16)",
  ):
    assert part in str(caught.value)


def test_names_of_the_first_checkpoints_are_known(copy):
  """Without prefix, with masks as buffers, with a copy of the tied head."""
  folder = copy("gpt2")
  before, _ = _read(folder)
  tensors = {
    name.removeprefix("transformer."): value
    for name, value in _tensors(folder).items()
  }
  tensors["h.0.attn.bias"] = np.ones((1, 1, 64, 64), np.float32)
  tensors["h.0.attn.masked_bias"] = np.float32(-1e4)
  tensors["lm_head.weight"] = tensors["wte.weight"]
  _save(folder, tensors)
  after, _ = _read(folder)
  same = jax.tree.map(np.array_equal, before, after)
  assert all(jax.tree.leaves(same))
  tensors["lm_head.weight"] = tensors["wte.weight"] + 1
  _save(folder, tensors)
  with pytest.raises(InputError, match=r"unexpected: lm_head\.weight"):
    _read(folder)


def test_an_unused_bias_of_the_first_t5_is_known(copy):
  folder = copy("t5")
  before, _ = _read(folder)
  tensors = _tensors(folder)
  name = "decoder.block.0.layer.%d.%s.relative_attention_bias.weight"
  own = tensors[name % (0, "SelfAttention")]
  tensors[name % (1, "EncDecAttention")] = own
  _save(folder, tensors)
  same = jax.tree.map(np.array_equal, before, _read(folder)[0])
  assert all(jax.tree.leaves(same))


def test_a_tied_head_is_filled_in_where_flax_wants_one(tmp_path):
  """Flax's Llama always has its own head; PyTorch's saves none."""
  from transformers import LlamaConfig

  config = LlamaConfig(
    vocab_size=20,
    hidden_size=8,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=2,
    max_position_embeddings=4096,
    tie_word_embeddings=True,
  )
  config.save_pretrained(tmp_path)
  network = weights.build(tmp_path)
  assert network.config.max_position_embeddings == 2048
  tree = jax.tree.map(
    lambda leaf: np.random.default_rng(0).normal(size=leaf.shape),
    dict(network.params_shape_tree),
  )
  tensors = hf_weights.to_torch(tree)
  del tensors["lm_head.weight"]
  _save(tmp_path, tensors)
  params, _ = weights.read(tmp_path, network)
  embedding = params["model"]["embed_tokens"]["embedding"]
  np.testing.assert_array_equal(params["lm_head"]["kernel"], embedding.T)
  tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] + 1
  _save(tmp_path, tensors)
  with pytest.raises(InputError, match=r"lm_head\.weight is .* but they diff"):
    _read(tmp_path)
  del tensors["lm_head.weight"]
  _save(tmp_path, tensors)
  config.tie_word_embeddings = False
  config.save_pretrained(tmp_path)
  with pytest.raises(InputError, match=r"missing: lm_head\.weight"):
    _read(tmp_path)


@pytest.mark.parametrize(
  ("kind", "values"),
  [
    ("llama", {"rope_theta": 500000.0}),
    ("llama", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}),
    ("llama", {"head_dim": 32}),
    ("mistral", {"rope_theta": 1e6}),
    ("qwen2", {}),
  ],
)
def test_settings_that_flax_passes_over_are_heeded(tmp_path, kind, values):
  """By our own class; see test_llama for its logits."""
  from transformers import AutoConfig

  AutoConfig.for_model(kind, **values).save_pretrained(tmp_path)
  assert isinstance(weights.build(tmp_path), llama.Llama)


@pytest.mark.parametrize(
  ("values", "told"),
  [
    ({"rope_theta": 5e5}, r"does not heed rope_theta=500000\.0"),
    ({"hidden_act": "relu"}, "does not heed hidden_act='relu'"),
  ],
)
def test_settings_that_nobody_heeds_are_refused(tmp_path, values, told):
  from transformers import GemmaConfig

  GemmaConfig(**values).save_pretrained(tmp_path)
  with pytest.raises(InputError, match=told):
    weights.build(tmp_path)


# What transformers 5 writes, with a head of its own or none, -> the factor on
# the logits of the golden, whose head is its own and not scaled.
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("head", ["own", "equal", "none"])
def test_t5_saved_by_transformers_5(copy, scaled, head):
  """`tie_word_embeddings` is true with any weights."""
  folder = copy("t5")
  before = weights.build(folder)
  params, _ = weights.read(folder, before)
  tensors = _tensors(folder)
  if head != "own":
    tensors["lm_head.weight"] = tensors["shared.weight"]
    kernel = params["shared"]["embedding"].T
    params["lm_head"]["kernel"] = kernel
  ids, start = np.array([[5, 6, 7, 2]]), np.array([[0, 9, 10]])
  wanted = np.asarray(
    before(ids, decoder_input_ids=start, params=params).logits
  )
  if head == "none":
    del tensors["lm_head.weight"]
  _save(folder, tensors)
  _config(
    folder,
    tie_word_embeddings=True,
    scale_decoder_outputs=scaled,
    transformers_version="5.24.0",
  )
  network = weights.build(folder)
  tree, _ = weights.read(folder, network)
  found = network(ids, decoder_input_ids=start, params=tree).logits
  factor = 16**-0.5 if scaled else 1.0
  np.testing.assert_allclose(found, wanted * factor, rtol=1e-5, atol=1e-5)


def test_scores_that_are_no_numbers_name_the_prompt(models):
  """A weight made infinite after loading, which refuses such files."""
  model = models["gpt2"]
  params = jax.tree.map(lambda leaf: leaf, model.params)
  row = model.tokens.encode("w7")[0]
  table = params["transformer"]["wte"]["embedding"]
  # The token w7 alone; its own logit is one of all rows' logits.
  params["transformer"]["wte"]["embedding"] = table.at[row].set(np.nan)
  bad = dataclasses.replace(model, params=params)
  for ask in (
    lambda: sample(bad, ["w1", "w7 w1"], [0, 1]),
    lambda: bad.answer_probability(["w1", "w7 w1"]),
  ):
    with pytest.raises(InputError, match=r"infinite scores .* 'w"):
      ask()


def test_weights_that_are_no_numbers_are_named(copy):
  folder = copy("gpt2")
  tensors = _tensors(folder)
  tensors["transformer.ln_f.bias"][0] = np.inf
  _save(folder, tensors)
  with pytest.raises(InputError, match=r"infinite: transformer\.ln_f\.bias"):
    _read(folder)


@pytest.mark.parametrize(
  ("case", "values", "told"),
  [
    ("gpt2", {"eos_token_id": 29}, "ends with is 29, but the model has 29"),
    ("gpt2", {"eos_token_id": [2, -1]}, "ends with is -1"),
    ("gpt2", {"eos_token_id": "2"}, "ends with is '2'"),
    ("t5", {"decoder_start_token_id": 40}, "begins with is 40"),
    ("t5", {"decoder_start_token_id": [0]}, r"begins with is \[0\]"),
    ("t5", {"forced_bos_token_id": 1.5}, "begins with is 1.5"),
  ],
)
def test_special_tokens_are_rows_of_the_embedding(copy, case, values, told):
  folder = copy(case)
  path = folder / "generation_config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | values))
  with pytest.raises(InputError, match=told):
    language_model.load(folder)


def test_an_answer_longer_than_the_positions(models):
  from types import SimpleNamespace

  network = SimpleNamespace(config=SimpleNamespace(max_position_embeddings=8))
  model = dataclasses.replace(models["t5"], network=network)
  assert model._bucket(5, 7) == 8
  with pytest.raises(InputError, match="has positions for 8"):
    model._bucket(5, 8)


def test_mistral_without_window_sees_everything(tmp_path):
  from transformers import MistralConfig

  config = MistralConfig(sliding_window=None)
  config.save_pretrained(tmp_path)
  assert weights.build(tmp_path).config.sliding_window == 2048


def test_too_long_a_prompt(models):
  with pytest.raises(InputError, match="reads 56 and then 8 new"):
    sample(models["gpt2"], ["w1 " * 57], [0])
  assert sample(models["t5"], ["w1 " * 57], [0])  # any length


def test_a_prompt_to_be_continued_has_no_end(models):
  gpt2, t5 = models["gpt2"].tokens, models["t5"].tokens
  assert t5.encode("w1") == [*gpt2.encode("w1"), 2]
  ending = gpt2.inner("w1 </s>")["input_ids"]
  assert ending[-1] == 2
  assert gpt2.encode("w1 </s>") == ending[:-1]


def test_chat_template(models):
  pytest.importorskip("jinja2")
  import copy as copy_lib

  inner = copy_lib.deepcopy(models["gpt2"].tokens.inner)
  inner.chat_template = (
    "{% for m in messages %}w1 {{ m.content }} w2{% endfor %}"
    "{% if add_generation_prompt %} w3{% endif %}"
  )
  tokens = dataclasses.replace(models["gpt2"].tokens, inner=inner)
  assert tokens.encode("w9") == models["gpt2"].tokens.encode("w1 w9 w2 w3")


def test_chat_template_without_jinja2(copy, monkeypatch):
  folder = copy("gpt2")
  path = folder / "tokenizer_config.json"
  content = json.loads(path.read_text()) | {"chat_template": "{{ 1 }}"}
  path.write_text(json.dumps(content))
  monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
  with pytest.raises(InputError, match="pip install jinja2"):
    language_model.load(folder)


def _config(folder, **values):
  path = folder / "config.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
  ("spoil", "message"),
  [
    (lambda f: (f / "model.safetensors").unlink(), "no weights, none"),
    (lambda f: (f / "config.json").unlink(), "config.json"),
    (lambda f: _config(f, model_type="clip"), "no Flax class that generates"),
    (lambda f: _config(f, vocab_size=9), "up to 25, but the model has 9"),
    (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer"),
    (
      lambda f: (f / "generation_config.json").write_text("{"),
      "generation_config.json",
    ),
  ],
)
def test_bad_folders(copy, spoil, message):
  folder = copy("gpt2")
  spoil(folder)
  with pytest.raises(InputError, match=message) as caught:
    language_model.load(folder)
  assert "Remedy" in str(caught.value)


def test_decoder_needs_a_first_token(copy):
  folder = copy("t5")
  (folder / "generation_config.json").unlink()
  _config(folder, decoder_start_token_id=None, bos_token_id=None)
  with pytest.raises(InputError, match="decoder_start_token_id"):
    language_model.load(folder)


def test_unknown_id():
  with pytest.raises(InputError, match="hf download no/such-model"):
    language_model.load("no/such-model")
