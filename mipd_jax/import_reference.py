"""The authors' checkpoints as ours.

  python -m mipd_jax.import_reference --checkpoint=ckpt.pth --out=DIR \
      --swig=data/swig

DIR is then a work directory that evaluation takes:

  python -m mipd_jax.main --config=configs/ov_swig.py:reference \
      --workdir=DIR --mode=eval

A checkpoint holds numbers, not names: class 17 is the 18th line of its index
file. So the vocabulary is checked first, by counts and, for the released one,
by order. Only this module needs PyTorch; the file is read with
`weights_only`, so nothing in it is executed.
"""

import argparse
import hashlib
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from input_pipeline.io import commands
from input_pipeline.io.errors import InputError
from input_pipeline.ov_swig import layout, vocabulary

# sha256 of the names of SWiG's index files, joined by line breaks.
RELEASED: Mapping[str, str] = {
  "verbs": "d454fdb06af4af8b62a43d589eb25d87ee14573fc77b064949caa1a0f153551c",
  "roles": "6dafca7cd09f9ee7783462eccc13b58276c143412dcb91e4d906fe9da80ebad5",
  "nouns": "5f4d2c13130a7b5a519fe7c2b1371d78f3fb0b74de79782bddb08266eee5c603",
}
_INDEX_FILES = {
  "verbs": layout.VERB_FILE,
  "roles": layout.ROLE_FILE,
  "nouns": layout.NOUN_FILE,
}
# Keys of the state dict in training scripts' files, beside optimizer and epoch.
_STATE_KEYS = ("model", "state_dict", "model_state_dict")


def check_order(
  folder: str | pathlib.Path, *, released: bool = True
) -> vocabulary.Vocabulary:
  """Reads the vocabulary of a SWiG folder and checks its numbering.

  Args:
    folder: with the index files; a derived numbering is not enough.
    released: whether the order must be that of the SWiG release.

  Raises:
    InputError: an index file is absent, or has another numbering.
  """
  words = vocabulary.load(folder)
  jsons = layout.jsons_folder(folder)
  for what, name in _INDEX_FILES.items():
    if not (jsons / name).exists():
      raise InputError(
        f"{jsons / name} is missing, so the numbers of the {what} are unknown",
        "put SWiG's own file there; a checkpoint goes by its order",
      )
    text = "\n".join(getattr(words, what)).encode()
    if released and hashlib.sha256(text).hexdigest() != RELEASED[what]:
      raise InputError(
        f"{jsons / name} lists {len(getattr(words, what))} {what} in another "
        "order than the SWiG release, by which the authors trained",
        "use the released file; for a checkpoint that was trained on this "
        "folder, add --own_vocabulary",
      )
  return words


def check_counts(
  words: vocabulary.Vocabulary, state: Mapping[str, np.ndarray]
) -> None:
  """Compares the classes of a checkpoint with a vocabulary.

  Raises:
    InputError: the numbers of verbs, roles or nouns differ.
  """
  by_name = {k.removeprefix("module."): x for k, x in state.items()}
  problems = []
  for what, name in (
    ("verbs", "verb_token_embed.weight"),
    ("roles", "role_token_embed.weight"),
    ("nouns", "noun_3_classifier.3.bias"),
  ):
    expected = len(getattr(words, what))
    count = np.shape(by_name[name])[0] if name in by_name else expected
    if count != expected:
      problems.append(f"{count} {what} ({name}), {expected} in the vocabulary")
  if problems:
    raise InputError(
      f"the checkpoint has {'; '.join(problems)}",
      "give the --swig folder that the checkpoint was trained on",
    )


def read_checkpoint(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """The state dict of a `.pth` file; executes nothing that is in it.

  Raises:
    InputError: PyTorch or the file is missing, or the file does not hold
      tensors by name.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise InputError(f"{path} is no file", "give the authors' checkpoint")
  content = _torch_load(path)
  for key in _STATE_KEYS:
    if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
      content = content[key]
  if not isinstance(content, Mapping) or not all(
    hasattr(x, "shape") for x in content.values()
  ):
    raise InputError(
      f"{path} holds no tensors by name",
      f"it is to be a state dict, alone or below one of {_STATE_KEYS}",
    )
  return {name: _as_array(x) for name, x in content.items()}


def write_checkpoint(
  state: Mapping[str, np.ndarray], out: str | pathlib.Path
) -> None:
  """Writes DIR/best, a state at step 0, which evaluation restores.

  Raises:
    InputError: DIR has checkpoints already, or the parameters are not those
      of the reference.
  """
  import jax
  import jax.numpy as jnp

  from mipd_jax import reference
  from mipd_jax.config import TrainConfig
  from mipd_jax.training.checkpoints import Checkpoints
  from mipd_jax.training.state import TrainState, make_optimizer

  out = pathlib.Path(out)
  taken = [p for p in ("best", "checkpoints") if any(out.glob(f"{p}/[0-9]*"))]
  if taken:
    raise InputError(f"{out} has checkpoints already", "choose another --out")
  params = jax.tree.map(jnp.asarray, reference.params_from_state_dict(state))
  # The structure of the optimizer's state does not depend on its settings.
  optimizer = make_optimizer(TrainConfig(), steps=1)
  initial = TrainState(jnp.zeros((), jnp.int32), params, optimizer.init(params))
  checkpoints = Checkpoints(out, {"imported": "caicch/Ov-GSR"})
  try:
    checkpoints.save_best(initial, selection=0.0)
    checkpoints.wait()
  finally:
    checkpoints.close()


def main(arguments: Sequence[str] | None = None) -> int:
  """Command line; returns the exit status."""
  parser = argparse.ArgumentParser(
    prog="python -m mipd_jax.import_reference",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--checkpoint", required=True, help="the .pth file")
  parser.add_argument("--out", required=True, help="work directory to make")
  parser.add_argument(
    "--swig", default="data/swig", help="SWiG folder; default %(default)s"
  )
  parser.add_argument(
    "--own_vocabulary",
    action="store_true",
    help="the checkpoint was trained on this folder, not on the release",
  )
  given = parser.parse_args(arguments)
  try:
    words = check_order(given.swig, released=not given.own_vocabulary)
    state = read_checkpoint(given.checkpoint)
    check_counts(words, state)
    write_checkpoint(state, given.out)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  print(
    f"{given.out}/best holds {given.checkpoint}. To score it:\n"
    "  python -m mipd_jax.main --config=configs/ov_swig.py:reference "
    f"--workdir={given.out} --mode=eval"
  )
  return 0


def _torch_load(path: pathlib.Path) -> Any:
  try:
    import torch
  except ImportError as error:
    raise InputError(
      "reading .pth files needs PyTorch, which is not installed",
      "pip install torch --index-url https://download.pytorch.org/whl/cpu "
      "(the CPU build is enough; nothing else here needs it)",
    ) from error
  try:
    # The settings that training scripts also save are plain values.
    with torch.serialization.safe_globals([argparse.Namespace]):
      return torch.load(path, map_location="cpu", weights_only=True)
  except Exception as error:
    reason = str(error).strip().splitlines()[0] if str(error) else repr(error)
    raise InputError(
      f"{path} cannot be read without executing what is in it: {reason}",
      "the file is damaged or holds more than tensors; save "
      "`model.state_dict()` alone where it was made",
    ) from error


def _as_array(tensor: Any) -> np.ndarray:
  """float32 for any dtype of the tensor; numpy has no bfloat16."""
  if hasattr(tensor, "detach"):
    tensor = tensor.detach().float().numpy()
  return np.asarray(tensor, np.float32)


if __name__ == "__main__":
  commands.start(main)
