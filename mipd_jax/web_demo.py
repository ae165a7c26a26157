"""A page on this machine to try a trained student: image, words, result.

  python -m mipd_jax.web_demo --workdir=runs/synthetic [--port=7860]

It is served only to this machine, and answers only requests that name this
machine: a page of the network cannot reach it through a visitor's browser.
Uploads are limited, and kept in a folder that is deleted when the page stops.
Needs Gradio too: requirements-demo.txt. docs/web_demo.md says more.
"""

import argparse
import contextlib
import dataclasses
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from input_pipeline.io import commands
from input_pipeline.io.errors import InputError
from mipd_jax.inference import Prediction, Predictor
from mipd_jax.inference import pictures as image_lib
from mipd_jax.report import drawing, pages
from mipd_jax.stages.predict import as_annotated

if TYPE_CHECKING:
  import gradio

HEADER = ("role", "noun", "probability", "other guesses", "box in pixels")
HOST = "127.0.0.1"
_NAMES = (HOST, "localhost")  # names of this machine
# Limits of one upload; more pixels than nearly any camera's.
MOST_BYTES, MOST_PIXELS = 50 * 2**20, 64_000_000
# Limit of all uploads and pictures together; above it the oldest are deleted.
KEPT_BYTES = 256 * 2**20
_SWEEP, _AGE = 60, 3600  # seconds between Gradio's sweeps, and age to delete
_TEMP = "GRADIO_TEMP_DIR"
_HOST_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252})(:[0-9]{1,5})?")
# Commas, semicolons and colons of other keyboards.
_MARKS = str.maketrans(dict.fromkeys(";，、､،﹐；؛", ",") | {"：": ":"})
_FONTS = ("system-ui", "sans-serif")
_CSS = """
.problem { border-left: 4px solid #b91c1c; padding: 0.6em 1em; }
.sentence { font-size: 1.25em; }
"""
_ABOUT = """\
Checkpoint of step {step}: {verbs} verbs and {nouns} nouns of its own. \
Give other words to choose from below; leave a box empty for its own."""


@dataclasses.dataclass(frozen=True)
class Shown:
  """The page's content: a message, or a result without a message.

  Attributes:
    message: HTML, "" if all went well.
    picture: the image with boxes and legend.
    sentence: HTML.
    verbs: probability by name.
    rows: of the table, by HEADER.
  """

  message: str = ""
  picture: Image.Image | None = None
  sentence: str = ""
  verbs: dict[str, float] | None = None
  rows: Sequence[Sequence[Any]] = ()


def verbs_of(given: str) -> dict[str, list[str] | None] | None:
  """Words of the box for verbs, None if it is empty.

  A line is a verb with its roles ("juggling: agent, item"), or verbs without
  roles, which the predictor chooses ("jumping, running").

  Raises:
    InputError: a verb comes twice.
  """
  verbs: dict[str, list[str] | None] = {}
  given = given.translate(_MARKS)
  for line in filter(str.strip, given.splitlines()):
    name, colon, roles = line.partition(":")
    wanted = _listed(roles) if colon else None
    for verb in [name.strip()] if colon else _listed(line):
      if verb in verbs:
        raise InputError(
          f"the verb {verb!r} is there twice", "give each word once"
        )
      verbs[verb] = wanted
  return verbs or None


def nouns_of(given: str) -> list[str] | None:
  """Words of the box for nouns, by commas or lines; None if it is empty."""
  return _listed(",".join(given.translate(_MARKS).splitlines())) or None


def look(
  predictor: Predictor, path: str | None, verbs: str, nouns: str
) -> Shown:
  """The page's content for an uploaded file and the two boxes of words."""
  try:
    if not path:
      raise InputError("there is no image yet", "choose or drop one")
    # Checked under its own name: a visitor does not know the upload's path.
    name = os.path.basename(path)
    _check_size(path, name)
    picture = image_lib.open_image(path, name)
    words = verbs_of(verbs or ""), nouns_of(nouns or "")
    result = predictor.predict(path, *words)
  except InputError as error:
    return Shown(message=_message(error))
  return shown(result, picture)


def _check_size(path: str, name: str) -> None:
  """Raises InputError for a file that is too large for a page."""
  what = ""
  with contextlib.suppress(OSError):
    size = os.path.getsize(path)
    if size > MOST_BYTES:
      what = f"{size / 2**20:.0f} MiB"
  if not what:
    # `open_image` reports what is not an image.
    with (
      contextlib.suppress(Exception),
      Image.open(path, formats=image_lib.formats()) as image,
    ):
      if image.width * image.height > MOST_PIXELS:
        what = f"{image.width} x {image.height} pixels"
  if what:
    raise InputError(
      f"{image_lib.shown(name)}: {what} are too many for this page",
      f"scale it down to {MOST_PIXELS // 10**6} megapixels and "
      f"{MOST_BYTES // 2**20} MiB or fewer, or use --mode=predict",
    )


class Guard:
  """ASGI middleware that passes only requests that name this machine.

  A page elsewhere can make a browser here send requests to this port, under a
  host name of its own that points here. Browsers send that name along.

  Args:
    app: the guarded application.
    hosts: further allowed names, "name" or "name:port".
    folder: of uploads, trimmed before each new one.
  """

  def __init__(self, app: Any, hosts: Sequence[str] = (), folder: str = ""):
    self._app, self._folder = app, folder
    self._hosts = {host.casefold() for host in hosts}

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] in ("http", "websocket"):
      headers = {key.lower(): value for key, value in scope["headers"]}
      host = headers.get(b"host", b"").decode("latin-1")
      origin = headers.get(b"origin", b"").decode("latin-1")
      if not (
        self._is_ours(host, scope)
        and (not origin or self._is_ours(origin.partition("://")[2], scope))
      ):
        await _refuse(scope, send)
        return
      if scope.get("method") == "POST" and scope["path"].endswith("/upload"):
        trim(self._folder)
    await self._app(scope, receive, send)

  def _is_ours(self, host: str, scope: Any) -> bool:
    host = host.casefold()
    name, _, port = host.partition(":")
    served = (scope.get("server") or (HOST, None))[1]
    if name in _NAMES and (port or "80") == str(served):
      return True
    return host in self._hosts or name in self._hosts


async def _refuse(scope: Any, send: Any) -> None:
  if scope["type"] == "websocket":
    await send({"type": "websocket.close", "code": 1008})
    return
  kind = (b"content-type", b"text/plain; charset=utf-8")
  said = b"Unknown host. --allow_host=NAME lets one more through.\n"
  await send({"type": "http.response.start", "status": 403, "headers": [kind]})
  await send({"type": "http.response.body", "body": said})


def trim(folder: str, most: int = KEPT_BYTES) -> None:
  """Deletes the oldest files below a folder until it holds `most` bytes."""
  if not folder:
    return
  files = []
  for path in pathlib.Path(folder).rglob("*"):
    with contextlib.suppress(OSError):
      if path.is_file() and not path.is_symlink():
        state = path.stat()
        files.append((state.st_mtime, state.st_size, path))
  total = sum(size for _, size, _ in files)
  for _, size, path in sorted(files):
    if total <= most:
      break
    with contextlib.suppress(OSError):
      path.unlink()
      total -= size


@contextlib.contextmanager
def scratch() -> Iterator[str]:
  """A temporary folder for Gradio's files, deleted at the end."""
  before = os.environ.get(_TEMP)
  with tempfile.TemporaryDirectory(
    prefix="mipd-demo-", ignore_cleanup_errors=True
  ) as folder:
    os.environ[_TEMP] = folder
    try:
      yield folder
    finally:
      os.environ.pop(_TEMP)
      if before is not None:
        os.environ[_TEMP] = before


def shown(result: Prediction, picture: image_lib.Picture) -> Shown:
  """A prediction in the page's form."""
  said = pages.fragment(
    "demo.html.j2", "sentence", said=result.sentence, notes=result.notes
  )
  return Shown(
    picture=drawing.draw_annotated(as_annotated(result, picture)).image,
    sentence=said,
    verbs={guess.verb: guess.probability for guess in result.verbs},
    rows=[
      (
        role.role,
        role.nouns[0].noun or "(nothing)",
        f"{role.nouns[0].probability:.0%}",
        ", ".join(
          f"{guess.noun or '(nothing)'} {guess.probability:.0%}"
          for guess in role.nouns[1:4]
        ),
        "none" if role.box is None else ", ".join(f"{x:.0f}" for x in role.box),
      )
      for role in result.roles
    ],
  )


def page(predictor: Predictor) -> "gradio.Blocks":
  """The page; `launch` opens it.

  Raises:
    InputError: Gradio is not installed.
  """
  gr = _gradio()

  def run(path, verbs, nouns):
    result = look(predictor, path, verbs, nouns)
    return (
      result.message or result.sentence,
      result.picture,
      result.verbs,
      [list(row) for row in result.rows],
    )

  about = _ABOUT.format(
    step=predictor.step,
    verbs=len(predictor.vocabulary.verbs),
    nouns=len(predictor.vocabulary.nouns),
  )
  with gr.Blocks(
    title="MIPD", analytics_enabled=False, delete_cache=(_SWEEP, _AGE)
  ) as blocks:
    gr.Markdown(f"# What is going on, who takes part, and where\n\n{about}")
    with gr.Row():
      with gr.Column(scale=2):
        upload = gr.Image(
          label="Image", type="filepath", sources=["upload"], image_mode=None
        )
        # The unchanged file: our reader reports what is wrong with it.
        upload.preprocess = lambda payload: payload.path if payload else None
        verbs = gr.Textbox(
          label="Verbs",
          lines=3,
          placeholder="juggling: agent, item, place\njumping, running",
          info="by commas or lines; after a colon the roles",
        )
        nouns = gr.Textbox(
          label="Nouns",
          lines=3,
          placeholder="man, club, street",
          info="by commas or lines",
        )
        button = gr.Button("Look", variant="primary")
        ranked = gr.Label(label="Best verbs", num_top_classes=5)
      with gr.Column(scale=3):
        headline = gr.HTML()  # the sentence, or the error
        picture = gr.Image(
          label="Result",
          interactive=False,
          format="jpeg",
          buttons=["download", "fullscreen"],  # "share" would upload it
        )
    table = gr.Dataframe(
      headers=list(HEADER),
      label="Roles",
      interactive=False,
      wrap=True,
      type="array",
    )
    button.click(
      run,
      [upload, verbs, nouns],
      [headline, picture, ranked, table],
      api_name="look",
    )
  return blocks


def launch(
  blocks: "gradio.Blocks",
  port: int,
  *,
  wait: bool = True,
  hosts: Sequence[str] = (),
  folder: str = "",
) -> str:
  """Serves the page to this machine only, without using the network.

  Args:
    blocks: from `page`.
    port: 0 takes a free one.
    wait: whether to return only when it is stopped.
    hosts, folder: see `Guard`.

  Returns:
    Its address.

  Raises:
    InputError: the port is taken.
  """
  gr = _gradio()
  from starlette.middleware import Middleware

  guard = Middleware(Guard, hosts=tuple(hosts), folder=folder)
  try:
    _, url, _ = blocks.launch(
      app_kwargs={"middleware": [guard]},
      max_file_size=MOST_BYTES,
      server_name=HOST,
      server_port=port or None,
      prevent_thread_lock=True,
      share=False,
      ssr_mode=False,
      quiet=True,
      footer_links=[],
      theme=gr.themes.Default(font=_FONTS, font_mono=("monospace",)),
      css=_CSS,
    )
  except OSError as error:
    raise InputError(f"port {port} is taken", "name another --port") from error
  if wait:
    print(f"The page is at {url}; stop it with Ctrl-C.")
    blocks.block_thread()
  return url


def main(arguments: Sequence[str] | None = None) -> int:
  """Command line; returns the exit status: 0 stopped, 2 bad input."""
  parser = argparse.ArgumentParser(
    prog="python -m mipd_jax.web_demo",
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  parser.add_argument("--workdir", required=True, help="of a run that trained")
  parser.add_argument(
    "--port", type=int, default=7860, help="0 takes a free one; else 7860"
  )
  parser.add_argument(
    "--allow_host",
    action="append",
    default=[],
    metavar="NAME[:PORT]",
    help="also answer requests to this name, such as that of a tunnel or a "
    "proxy on this machine; may be repeated",
  )
  given = parser.parse_args(arguments)
  return commands.guarded(lambda: _serve(given))


def _serve(given: argparse.Namespace) -> None:
  if not 0 <= given.port <= 65535:
    raise InputError(f"--port={given.port}", "give a number from 0 to 65535")
  for host in given.allow_host:
    if not _HOST_NAME.fullmatch(host):
      raise InputError(
        f"--allow_host={host!r} is no name of a host",
        "give it as browsers do: demo.example.org, or localhost:9000",
      )
  with scratch() as folder:
    _gradio()  # before the slow part
    predictor = Predictor.from_workdir(given.workdir, batch_size=1)
    # Compiles now, so that the first visitor does not wait.
    predictor.predict(np.full((8, 8, 3), 127, np.uint8))
    launch(page(predictor), given.port, hosts=given.allow_host, folder=folder)


def _gradio() -> Any:
  os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
  try:
    import gradio
  except ImportError as error:
    raise InputError(
      f"the web demo needs Gradio ({error})",
      "python -m pip install --no-deps -r requirements-demo.txt",
    ) from error
  return gradio


def _message(error: InputError) -> str:
  return pages.fragment("demo.html.j2", "problem", error=error)


def _listed(given: str) -> list[str]:
  return [word.strip() for word in given.split(",") if word.strip()]


if __name__ == "__main__":
  commands.start(main)
