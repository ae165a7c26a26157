"""Image files: sizes, checks and decoding, with errors that name the image."""

import contextlib
import io
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import Image

from input_pipeline.io.errors import InputError

_ORIENTATION = 0x0112  # of EXIF
# By orientation tag: what undoes the turn that Pillow gives a TIFF itself.
_BACK = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_90,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_270,
}


def read_size(path: pathlib.Path) -> tuple[int, int]:
  """(height, width) in pixels from the header of an image file."""
  with _naming(str(path)), Image.open(path) as image:
    return _stored_size(image)


def check(content: bytes, name: str, size: tuple[int, int] | None) -> None:
  """Checks that encoded bytes can be decoded, to the annotated size.

  A JPEG is decoded at an eighth of its size. That reads all of its data, so
  it fails where full decoding would, in a quarter of the time.

  Args:
    content: the bytes.
    name: the image's name, for messages.
    size: (height, width) in its record, pixels; None: any.

  Raises:
    InputError: the image is broken, truncated, or of another size.
  """
  with _naming(name), Image.open(io.BytesIO(content)) as image:
    stored, turn = _stored_size(image), _own_turn(image)
    image.draft(None, (1, 1))  # only affects JPEG
    image.load()
    turned = stored != size and (turn != 1 or _is_turned(image))
  if size is not None and stored != size:
    raise InputError(
      f"image {name} is {stored[0]} x {stored[1]} pixels (height x width), "
      f"its record says {size[0]} x {size[1]}"
      f"{_exchanged(stored, size, turned)}",
      "use the images that the boxes were drawn on (SWiG: images_512), or "
      "scale the record's height, width and boxes",
    )


def is_turned(content: bytes) -> bool:
  """Whether an orientation tag asks viewers to turn or mirror an image.

  Tags are ignored here, as in SWiG's annotations; tools for drawing boxes may
  obey them. False if the content is not an image.
  """
  try:
    with Image.open(io.BytesIO(content)) as image:
      return _is_turned(image)
  except Exception:
    return False


def _is_turned(image: Image.Image) -> bool:
  try:
    return image.getexif().get(_ORIENTATION, 1) not in (0, 1)
  except Exception:  # Pillow does not validate tags; a broken one has no effect
    return False


def _own_turn(image: Image.Image) -> int:
  """The tag by which Pillow will turn an image when it loads it, or 1."""
  if image.format != "TIFF" or not _is_turned(image):
    return 1
  return image.getexif()[_ORIENTATION]


def _stored_size(image: Image.Image) -> tuple[int, int]:
  """(height, width) of the stored pixels of an image before loading."""
  if _own_turn(image) in (5, 6, 7, 8):
    return image.width, image.height
  return image.height, image.width


def _exchanged(
  stored: tuple[int, int], size: tuple[int, int], turned: bool
) -> str:
  if stored != size[::-1]:
    return ""
  if turned:
    return "; its orientation tag turns it, and tags are ignored"
  return ": the two are exchanged"


def decode(content: bytes, name: str) -> Image.Image:
  """Decodes to RGB (see `to_rgb`) and ignores orientation tags.

  The annotations do the same: they were drawn on the stored pixels.

  Raises:
    InputError: the image is broken or truncated.
  """
  with _naming(name), Image.open(io.BytesIO(content)) as image:
    turn = _own_turn(image)
    rgb = to_rgb(image)
    if turn in _BACK:
      return rgb.transpose(_BACK[turn])
    return rgb.copy() if rgb is image else rgb


def to_rgb(image: Image.Image) -> Image.Image:
  """Converts any mode to RGB: transparent is white, 16 bits become 8."""
  if image.mode == "RGB" and "transparency" not in image.info:
    return image
  if image.mode.startswith("I;16") or image.mode in ("I", "F"):
    return _from_numbers(image).convert("RGB")
  clear = image.mode in ("RGBA", "LA", "PA", "La", "RGBa")
  if not clear and "transparency" not in image.info:
    return image.convert("RGB")
  if image.mode == "La":  # the only conversion that Pillow has for it
    image = image.convert("LA")
  image = image.convert("RGBA")
  ground = Image.new("RGBA", image.size, "white")
  ground.alpha_composite(image)
  return ground.convert("RGB")


def _from_numbers(image: Image.Image) -> Image.Image:
  """Scales grey values of more than 8 bits; Pillow would clip them at 255."""
  values = np.asarray(image, np.float32)
  finite = values[np.isfinite(values)]
  low, high = 0.0, 65535.0 if finite.max(initial=0) > 255 else 255.0
  odd = finite.min(initial=0) < 0 or finite.max(initial=0) > 65535
  if finite.size and (image.mode == "F" or odd):  # no standard scale
    low, high = float(finite.min()), float(finite.max())
  share = (values - low) / max(high - low, 1e-12)
  share = np.nan_to_num(share, nan=0.0, posinf=1.0, neginf=0.0)
  grey = (share.clip(0, 1) * 255).round().astype(np.uint8)
  clear = image.info.get("transparency")
  if isinstance(clear, int):
    grey[values == clear] = 255
  return Image.fromarray(grey)


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
  try:
    yield
  except (InputError, MemoryError):
    raise
  # For content that is not an image, damaged or malicious, Pillow's readers
  # raise almost anything (struct.error, IndexError, SyntaxError ...).
  except Exception as error:
    raise InputError(
      f"image {name} cannot be decoded: {str(error) or type(error).__name__}",
      "copy or download the image again, or take its record out of the JSON",
    ) from None
