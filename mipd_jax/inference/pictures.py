"""Opens any image safely: upright, RGB, in bounded memory.

An image is used as a viewer shows it: orientation tags are obeyed and
transparent parts are white. (The annotated datasets ignore the tags: their
boxes were drawn on the stored pixels, see `input_pipeline.io.images`.)
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import threading
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from input_pipeline.io import paths
from input_pipeline.io.errors import InputError
from input_pipeline.io.images import to_rgb

Source = str | os.PathLike[str] | Image.Image | np.ndarray

# Formats that Pillow decodes by itself; others start programs or are vectors.
FORMATS = (
  *("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM"),
  *("AVIF", "JPEG2000", "ICO", "TGA"),
)
# An image above LARGE is first shrunk to at least KEPT pixels on its longer
# side, a JPEG while it is decoded. No encoder sees the difference: their
# canvas has a few hundred pixels.
LARGE = 16_000_000
KEPT = 2048
# Anything but a JPEG has to be decoded whole first: 4 bytes per pixel.
MOST_PIXELS = 150_000_000
_LONGEST = 200  # characters of a URL in a message
# EXIF orientation -> its inverse; from 5 on width and height are swapped.
_TURNS = {
  2: Image.Transpose.FLIP_LEFT_RIGHT,
  3: Image.Transpose.ROTATE_180,
  4: Image.Transpose.FLIP_TOP_BOTTOM,
  5: Image.Transpose.TRANSPOSE,
  6: Image.Transpose.ROTATE_270,
  7: Image.Transpose.TRANSVERSE,
  8: Image.Transpose.ROTATE_90,
}
# Warning filters hold for the whole process.
_opening = threading.Lock()
# One large image in memory at a time, however many threads read.
_large = threading.Lock()


@dataclasses.dataclass(frozen=True)
class Picture:
  """An image as a viewer shows it.

  Attributes:
    pixels: RGB, upright; smaller than a large original.
    width, height: of the upright original.
    notes: what was done to it, for people.
  """

  pixels: Image.Image
  width: int
  height: int
  notes: tuple[str, ...] = ()


def name_of(source: Any, index: int) -> str:
  """The name of a source in messages and results."""
  if isinstance(source, (str, os.PathLike)):
    return os.fspath(source)
  return getattr(source, "filename", "") or f"image {index}"


def shown(name: str) -> str:
  """A name for a message: on one line, without invisible characters.

  Control characters, line ends and bytes that are not UTF-8 become escapes.
  """
  return "".join(c if c.isprintable() else _escaped(c) for c in name)


def _escaped(letter: str) -> str:
  if "\udc80" <= letter <= "\udcff":  # a byte, as Python keeps file names
    return f"\\x{ord(letter) - 0xDC00:02x}"
  return letter.encode("unicode_escape").decode("ascii")


def named_as_image(name: str) -> bool:
  """Whether a file's extension is that of a readable image."""
  Image.init()
  ending = os.path.splitext(name)[1].lower()
  return Image.EXTENSION.get(ending) in FORMATS


def open_image(source: Source, name: str) -> Picture:
  """Opens a path, a Pillow image or an array.

  Args:
    source: an array is [H, W], [H, W, 1], [H, W, 3] or [H, W, 4], uint8, or
      floats from 0 to 1.
    name: for messages.

  Raises:
    InputError: it is not an image, damaged or too large; it is named.
  """
  if isinstance(source, (str, os.PathLike)):
    return _open_path(source, name)
  if isinstance(source, Image.Image):
    with _naming(name):
      if 0 in source.size:
        raise ValueError(f"it has {source.width} x {source.height} pixels")
      source.load()
      return _upright(source, name)
  return _upright(Image.fromarray(_checked(source, name)), name)


def _is_data(path: str | os.PathLike[str]) -> bool:
  return os.fspath(path)[:5].lower() == "data:" and not os.path.exists(path)


def _open_path(path: str | os.PathLike[str], name: str) -> Picture:
  if paths.is_remote(path) or _is_data(path):
    raise InputError(
      f"{shown(name[:_LONGEST])}: it is a URL, not a file of this machine",
      "copy the image to this machine first, and give its path",
    )
  place = pathlib.Path(path)
  with _naming(name), place.open("rb") as file:
    with _opening, warnings.catch_warnings():
      # The size is checked below, by our own limits.
      warnings.simplefilter("ignore", Image.DecompressionBombWarning)
      image = Image.open(file, formats=formats())
    with image:
      frames = 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
      if frames == 1:
        return _upright(image, name)
      image.seek(0)
      return _upright(image, name, f"the first of {frames} frames")


@functools.cache
def formats() -> list[str]:
  """The FORMATS that this Pillow was built with."""
  Image.init()
  return [name for name in FORMATS if name in Image.OPEN]


def _upright(image: Image.Image, name: str, *notes: str) -> Picture:
  """Shrinks a large image, turns it upright and makes it RGB.

  A caller's Pillow image is loaded and otherwise left as it is.
  """
  stored, notes = image.size, list(notes)
  if stored[0] * stored[1] > LARGE:
    with _large:
      pixels = _shrunk(image, name)
    notes.append(f"seen at {pixels.width} x {pixels.height} pixels")
  else:
    pixels = image
    image.load()
  turn = _orientation(image)
  if turn != 1:
    pixels = pixels.transpose(_TURNS[turn])
    notes.append("turned upright")
  width, height = stored[::-1] if turn >= 5 else stored
  return Picture(to_rgb(pixels), width, height, tuple(notes))


def _orientation(image: Image.Image) -> int:
  try:
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
  except Exception:  # Pillow does not check tags; a broken one is ignored
    return 1
  return value if value in range(1, 9) else 1


def _shrunk(image: Image.Image, name: str) -> Image.Image:
  """A large image at a smaller size that is enough here."""
  scale = KEPT / max(image.size)
  wanted = tuple(max(1, round(length * scale)) for length in image.size)
  image.draft(None, wanted)  # only JPEG; others ignore it
  if image.width * image.height > MOST_PIXELS:
    raise InputError(
      f"{shown(name)}: {image.width} x {image.height} pixels are too many",
      f"scale it down to {MOST_PIXELS // 10**6} megapixels or fewer, or save "
      "it as JPEG, which is shrunk while it is read",
    )
  image.load()
  factor = max(1, max(image.size) // KEPT)
  if factor == 1:
    return image
  if image.mode not in ("RGB", "RGBA", "L", "LA", "CMYK"):
    image = to_rgb(image)
  # The sides of a thin strip cannot shrink alike; each keeps one pixel.
  return image.reduce((min(factor, image.width), min(factor, image.height)))


def _checked(values: Any, name: str) -> np.ndarray:
  """uint8 [H, W], [H, W, 3] or [H, W, 4]."""
  if is_content(values):
    raise no_content(name)
  try:
    array = np.asarray(values)
  except (TypeError, ValueError) as error:
    raise _no_array(name, str(error)) from None
  if array.ndim == 3 and array.shape[-1] == 1:
    array = array[..., 0]
  colours = array.ndim == 3 and array.shape[-1] in (3, 4)
  if not array.size or not (array.ndim == 2 or colours):
    raise _no_array(name, f"an array of {list(array.shape)}")
  if array.shape[0] * array.shape[1] > MOST_PIXELS:
    raise _no_array(name, f"{array.shape[1]} x {array.shape[0]} pixels")
  if np.issubdtype(array.dtype, np.floating):
    if not (array.min() >= 0 and array.max() <= 1):  # also where it is NaN
      raise _no_array(name, f"floats from {array.min()} to {array.max()}")
    array = (array * 255).round().astype(np.uint8)
  if array.dtype != np.uint8:
    raise _no_array(name, f"an array of {array.dtype}")
  return np.ascontiguousarray(array)


def is_content(source: Any) -> bool:
  """Whether it is the bytes of a file, or an open file."""
  return isinstance(source, (bytes, bytearray, memoryview)) or (
    hasattr(source, "read") and not hasattr(source, "dtype")
  )


def no_content(name: str) -> InputError:
  """The error for `is_content`: give a path or a Pillow image."""
  return InputError(
    f"{shown(name)}: bytes and open files are not read",
    "give a path, or a Pillow image: PIL.Image.open(io.BytesIO(content))",
  )


def _no_array(name: str, kind: str) -> InputError:
  return InputError(
    f"{shown(name)}: {kind} is no image",
    "give [H, W, 3] of uint8 from 0 to 255, or of floats from 0 to 1, of "
    f"{MOST_PIXELS // 10**6} megapixels at most",
  )


@contextlib.contextmanager
def _naming(name: str) -> Iterator[None]:
  """Turns errors of Pillow and the file system into an InputError.

  For a damaged file Pillow's readers raise nearly anything (struct.error,
  IndexError, zlib.error, SyntaxError ...).
  """
  try:
    yield
  except InputError:
    raise
  except Exception as error:
    reason = getattr(error, "strerror", None) or str(error)
    reason = reason or type(error).__name__
    if isinstance(error, Image.UnidentifiedImageError):
      reason = "it is no image, or of a format that is not read"
    raise InputError(
      f"{shown(name)}: {shown(reason)}",
      f"give an image file ({', '.join(FORMATS[:6])}, ...)",
    ) from None
