"""The settings of Hugging Face checkpoints: read, and checked field by field.

A field that a model would ignore, or compute something else from, is refused
with the file, the field and the expected value. A folder's own Python
(`auto_map`) is never run.
"""

import contextlib
import dataclasses
import json
import math
import pathlib
from collections.abc import (
  Callable,
  Collection,
  Iterator,
  Mapping,
  Sequence,
)
from typing import Any

from absl import logging

from input_pipeline.io import json_files
from input_pipeline.io.errors import InputError

# openai/CLIP clip.py, `Normalize`, and transformers' BlipImageProcessor.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = (3, "bicubic")

_AGAIN = "give a folder with the model's own config.json"
_MOST_LAYERS, _MOST = 1000, 2**26
# Normalised pixels beyond it are odd; 0 to 1 or -2.7 to 2.7 are usual.
_FAR = 20

# Fields outside a class that change no arithmetic.
_HARMLESS = frozenset(
  """
  auto_map dtype torch_dtype model_type architectures transformers_version
  transformers.js_config output_past n_positions task_specific_params
  text_config_dict vision_config_dict gradient_checkpointing use_cache
  is_llama_config pretraining_tp projection_dim initializer_range
  initializer_factor image_text_hidden_size license tokenizer_class
  model_max_length id2label label2id num_labels torchscript use_bfloat16
  vocab_size_or_config_json_file attn_implementation unsloth_version
  unsloth_fixed
  """.split()  # noqa: SIM905 - one name a line would be long
)
# Biases: a wrong value shows in the weights, which are then refused.
_IN_WEIGHTS = frozenset(("attention_bias", "mlp_bias"))
# Sizes, by any class's name for them.
_SIZES = frozenset(
  """
  hidden_size intermediate_size num_hidden_layers num_attention_heads
  num_key_value_heads head_dim vocab_size max_position_embeddings d_model d_ff
  d_kv num_layers num_decoder_layers num_heads ffn_dim image_size patch_size
  n_embd n_layer n_head projection_dim num_query_tokens encoder_layers
  decoder_layers encoder_attention_heads decoder_attention_heads
  """.split()  # noqa: SIM905
)
# Fields that classes lack, and the one value that matches the computation.
_FIXED = {
  "num_channels": 3,
  "partial_rotary_factor": 1,
  "rope_interleaved": False,
  "use_qk_norm": False,
  "use_mrope": False,
  "no_rope_layers": None,
  "vision_use_head": True,
}


@dataclasses.dataclass(frozen=True)
class Processing:
  """How a family's images are processed, where its files do not say.

  Attributes:
    mean, std: of RGB on a scale of 0 to 1.
    processors: beginnings of the names of transformers' processors that have
      this mean and std; the first is taken where a file names none.
    resample: accepted values of the field; images are resampled bicubically.
  """

  mean: tuple[float, ...] = MEAN
  std: tuple[float, ...] = STD
  processors: tuple[str, ...] = ("CLIP", "Blip")
  resample: tuple[int | str, ...] = _BICUBIC


OPENAI = Processing()


@dataclasses.dataclass(frozen=True)
class Rule:
  """The allowed values of a field, and their description in messages."""

  told: str
  fits: Callable[[Any], bool]


COUNT = Rule(
  "a whole number of 1 or more",
  lambda value: type(value) is int and 0 < value <= _MOST,
)
LAYERS = Rule(
  f"a whole number of 1 to {_MOST_LAYERS}",
  lambda value: type(value) is int and 0 < value <= _MOST_LAYERS,
)
SIDE = Rule(
  "a whole number of 1 to 8192",
  lambda value: type(value) is int and 0 < value <= 8192,
)
POSITIVE = Rule(
  "a number above 0",
  lambda value: (
    type(value) in (int, float) and math.isfinite(value) and value > 0
  ),
)
EPSILON = Rule(
  "a number above 0 and below 1",
  lambda value: POSITIVE.fits(value) and value < 1,
)
SWITCH = Rule("true or false", lambda value: type(value) is bool)


def activation() -> Rule:
  """A name of transformers' Flax activations."""
  from transformers.modeling_flax_utils import ACT2FN

  return Rule(
    f"{', '.join(sorted(ACT2FN))}",
    lambda value: type(value) is str and value in ACT2FN,
  )


def token(words: int, *, several: bool = False, needed: bool = False) -> Rule:
  """An id of a table of `words` rows.

  Args:
    words: rows of the table.
    several: whether a list of ids is allowed too.
    needed: whether null is refused.
  """

  def one(value: Any) -> bool:
    return type(value) is int and 0 <= value < words

  def fits(value: Any) -> bool:
    if several and isinstance(value, list | tuple):
      return bool(value) and all(map(one, value))
    return one(value) or (value is None and not needed)

  null = "" if needed else ", or null"
  return Rule(f"a token below {words}, the model's vocab_size{null}", fits)


def read(folder: pathlib.Path) -> dict[str, Any]:
  """The content of a checkpoint folder's config.json.

  Raises:
    InputError: it is absent or not a JSON object.
  """
  path = folder / "config.json"
  content = json_files.read(path, object, _AGAIN)
  if not isinstance(content, dict):
    raise InputError(f"{path}: not an object of settings", _AGAIN)
  return content


def make(kind: Any, content: Mapping[str, Any], path: pathlib.Path) -> Any:
  """A config of transformers' class `kind` from a file's content.

  Raises:
    InputError: a part of it is not an object, or the class refuses it.
  """
  parts = getattr(kind, "sub_configs", {})
  for part in parts:
    json_files.check(
      content.get(part), (type(None), {str: object}), f"{path}: {part}", _AGAIN
    )
    _check_sizes(content.get(part) or {}, str(path), part)
  _check_sizes(content, str(path))
  try:
    return kind.from_dict(json.loads(json.dumps(content)))
  except Exception as error:  # transformers raises many types
    raise InputError(
      f"{path}: transformers' {kind.__name__} refuses it: "
      f"{str(error) or type(error).__name__:.500}",
      _AGAIN,
    ) from error


def _check_sizes(
  content: Mapping[str, Any], source: str, part: str = ""
) -> None:
  """Checks sizes before transformers' classes divide by them."""
  for name in _SIZES.intersection(content):
    value, rule = content[name], LAYERS if "layer" in name else COUNT
    if value is not None and not rule.fits(value):
      raise _unfit(source, part, name, value, rule)


def _unfit(
  source: str, part: str, name: str, value: Any, rule: Rule
) -> InputError:
  return InputError(
    f"{source}: {part and part + '.'}{name} is {value!r:.80}, expected "
    f"{rule.told}",
    _AGAIN,
  )


def check(
  config: Any, rules: Mapping[str, Rule], source: str, part: str = ""
) -> None:
  """Raises InputError for the first field that does not fit its rule."""
  for name, rule in rules.items():
    value = getattr(config, name, None)
    if not rule.fits(value):
      raise _unfit(source, part, name, value, rule)


@contextlib.contextmanager
def building(path: pathlib.Path) -> Iterator[None]:
  """Turns any error while a config's network is built into an InputError.

  Raises:
    InputError: in place of any other exception.
  """
  try:
    yield
  except InputError:
    raise
  except Exception as error:  # transformers and Flax raise many types
    raise InputError(
      f"{path}: a network cannot be built from it "
      f"({str(error) or type(error).__name__:.500})",
      _AGAIN,
    ) from error


def check_heads(config: Any, source: str, part: str = "") -> None:
  """Raises InputError unless the heads divide the width."""
  if config.hidden_size % config.num_attention_heads:
    raise InputError(
      f"{source}: {part and part + ': '}{config.num_attention_heads} heads do "
      f"not divide a width of {config.hidden_size} (num_attention_heads, "
      "hidden_size)",
      _AGAIN,
    )


def check_patches(vision: Any, source: str, part: str) -> None:
  """Raises InputError unless at least one patch fits the image."""
  check(vision, {"image_size": SIDE, "patch_size": SIDE}, source, part)
  if vision.patch_size > vision.image_size:
    raise InputError(
      f"{source}: {part}.patch_size is {vision.patch_size}, expected at most "
      f"the image_size, {vision.image_size}",
      _AGAIN,
    )


# The parts of a dual encoder's config.
_TOWERS = ("vision_config", "text_config")


def check_towers(config: Any, source: str) -> None:
  """Raises InputError for invalid sizes of a dual encoder's towers."""
  tower = {
    "hidden_size": COUNT,
    "intermediate_size": COUNT,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": COUNT,
    "layer_norm_eps": EPSILON,
    "hidden_act": activation(),
  }
  text = {"vocab_size": COUNT, "max_position_embeddings": COUNT}
  for part, rules in zip(_TOWERS, ({}, text), strict=True):
    one = getattr(config, part)
    check(one, {**tower, **rules}, source, part)
    check_heads(one, source, part)
  check_patches(config.vision_config, source, _TOWERS[0])


def check_dual(content: Mapping[str, Any], config: Any, source: str) -> None:
  """Raises InputError for unknown fields of a dual encoder's config."""
  check_known(content, config, source, heeded=_TOWERS)
  for part in _TOWERS:
    check_known(content.get(part) or {}, getattr(config, part), source, part)


def check_known(
  content: Mapping[str, Any],
  config: Any,
  source: str,
  part: str = "",
  heeded: Collection[str] = (),
) -> None:
  """Raises InputError for unknown fields.

  A newer transformers may write fields that change the arithmetic; ignoring
  them would silently give other numbers.

  Args:
    content: this part of the file.
    config: transformers' config made from it.
    source: the file's name.
    part: the part's name.
    heeded: fields that are used although the class lacks them.
  """
  known = {*vars(type(config)()), *type(config).attribute_map, *heeded}
  strange = []
  for name, value in content.items():
    if name in _FIXED and value != _FIXED[name]:
      strange.append(name)
    if name in known or name in _FIXED or name in _HARMLESS | _IN_WEIGHTS:
      continue
    if name.startswith("_") or "dropout" in name or name.endswith("_token_id"):
      continue
    if value is not None and value not in ("", [], {}):
      strange.append(name)
  if strange:
    named = ", ".join(f"{name}={content[name]!r:.80}" for name in strange[:5])
    raise InputError(
      f"{source}: {part and part + ' has '}{named}: not known here, and it "
      "may change what the model computes",
      "use a checkpoint without it; if it changes nothing, delete it from the "
      "file",
    )


def pixel_normalisation(
  folder: pathlib.Path, image_size: int, usual: Processing = OPENAI
) -> tuple[tuple[float, ...], tuple[float, ...]]:
  """Mean and std of RGB for pixels on a scale of 0 to 1.

  They are in preprocessor_config.json, or in the part image_processor of
  processor_config.json (transformers 5); without either, the usual ones are
  used: openai's, which BLIP-2 has too. Other settings that change the pixels
  are followed (do_normalize, do_rescale, rescale_factor) or refused: images are
  fitted into a square of the model's size with bicubic resampling.

  Raises:
    InputError: a file is broken, or asks for unsupported processing.
  """
  path, content = _processor(folder)
  if path is None:
    return usual.mean, usual.std
  settings = _Settings(path, content)
  settings.refuse_others(image_size, usual)
  mean = settings.rgb("image_mean", usual.mean)
  std = settings.rgb("image_std", usual.std)
  if min(std) <= 0:
    settings.refuse("image_std", "numbers above 0")
  if not settings.switch("do_normalize"):
    mean, std = (0.0,) * 3, (1.0,) * 3
  scale = 1.0
  if not settings.switch("do_rescale"):
    scale = 255.0
  elif "rescale_factor" in content:
    factor = content["rescale_factor"]
    if not POSITIVE.fits(factor):
      settings.refuse("rescale_factor", POSITIVE.told)
    scale = 255.0 * factor
  if not math.isclose(scale, 1.0, rel_tol=1e-6):
    mean, std = (tuple(x / scale for x in some) for some in (mean, std))
  settings.note_odd(mean, std)
  return mean, std


def _processor(
  folder: pathlib.Path,
) -> tuple[pathlib.Path | None, dict[str, Any]]:
  again = "download the file again, or delete it"
  path = folder / "preprocessor_config.json"
  if path.exists():
    return path, json_files.read(path, {str: object}, again)
  path = folder / "processor_config.json"
  if path.exists():
    content = json_files.read(path, {str: object}, again)
    inner = content.get("image_processor")
    if inner is not None:
      json_files.check(inner, {str: object}, f"{path}: image_processor", again)
      return path, inner
  return None, {}


@dataclasses.dataclass(frozen=True)
class _Settings:
  """The settings of an image processor in a file."""

  path: pathlib.Path
  content: Mapping[str, Any]

  def refuse(self, name: str, expected: str) -> None:
    raise InputError(
      f"{self.path}: {name} is {self.content.get(name)!r:.80}, expected "
      f"{expected}",
      "use the checkpoint's own file, or delete it if the model wants the "
      "usual mean and std of its family",
    )

  def switch(self, name: str, default: bool = True) -> bool:
    value = self.content.get(name)
    if value is not None and type(value) is not bool:
      self.refuse(name, SWITCH.told)
    return default if value is None else value

  def rgb(self, name: str, default: Sequence[float]) -> tuple[float, ...]:
    value = self.content.get(name)
    if value is None:
      return tuple(default)
    values = [value] * 3 if type(value) in (int, float) else value
    fits = isinstance(values, list) and len(values) == 3
    if not fits or not all(
      type(x) in (int, float) and math.isfinite(x) for x in values
    ):
      self.refuse(name, "three numbers")
    return tuple(values)

  def note_odd(self, mean: Sequence[float], std: Sequence[float]) -> None:
    """Warns if the pixels are far from any usual model's."""
    pairs = list(zip(mean, std, strict=True))
    ends = [(end - m) / s for m, s in pairs for end in (0.0, 1.0)]
    if max(map(abs, ends)) > _FAR or not all(0 <= m <= 1 for m in mean):
      logging.warning(
        "%s: black to white become %.4g to %.4g, which suits hardly any "
        "model; check image_mean, image_std, do_rescale and rescale_factor.",
        self.path,
        min(ends),
        max(ends),
      )

  def refuse_others(self, image_size: int, usual: Processing) -> None:
    """Refuses settings that would give the model other pixels than here."""
    content = self.content
    kind = content.get("image_processor_type") or content.get(
      "feature_extractor_type", usual.processors[0]
    )
    plain = str(kind).startswith(usual.processors)
    if not plain and content.get("auto_map"):
      name = "image_processor_type"
      self.refuse(
        name if name in content else "auto_map",
        "one of transformers' own: the folder's Python is never run",
      )
    normal = content.get("image_mean") and content.get("image_std")
    if not plain and self.switch("do_normalize") and not normal:
      # Other processors have other defaults.
      self.refuse("image_mean", f"mean and std beside a {kind!s:.80}")
    if not self.switch("do_resize"):
      self.refuse("do_resize", "true: every image is resized")
    if content.get("resample") not in (None, *usual.resample):
      self.refuse("resample", ", ".join(map(str, usual.resample)))
    for name in ("do_flip_channel_order", "do_grayscale", "do_reduce_labels"):
      if self.switch(name, default=False):
        self.refuse(name, "false")
    for name in ("offset", "do_color_quantize", "do_binarize"):
      if self.switch(name, default=False):
        self.refuse(name, "false")
    crops = self.switch("do_center_crop", default="crop_size" in content)
    name = "crop_size" if crops and content.get("crop_size") else "size"
    sides = _sides(content.get(name))
    if sides is None or sides - {image_size}:
      self.refuse(name, f"{image_size}, as image_size in config.json")


def _sides(size: Any) -> set[int] | None:
  """The sides that a processor's size names; None if it is malformed."""
  if size is None:
    return set()
  if isinstance(size, dict):
    names = ("height", "width", "shortest_edge")
    if set(size) - {*names, "longest_edge"}:
      return None
    values = [size[name] for name in names if size.get(name) is not None]
  else:
    values = size if isinstance(size, list) else [size]
  return set(values) if all(type(x) is int for x in values) else None
