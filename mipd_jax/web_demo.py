"""A page on this machine to try a trained student: image, words, result.

  python -m mipd_jax.web_demo --workdir=runs/synthetic [--port=7860]

Needs Gradio beside the rest: requirements-demo.txt. docs/web_demo.md says more.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from input_pipeline.errors import InputError
from mipd_jax.inference import Prediction, Predictor
from mipd_jax.inference import images as image_lib
from mipd_jax.report import annotated
from mipd_jax.report.html_page import text
from mipd_jax.stages.predict import as_annotated

if TYPE_CHECKING:
  import gradio

HEADER = ("role", "noun", "probability", "other guesses", "box in pixels")
HOST = "127.0.0.1"
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
  """What the page shows: a message, or a result and no message.

  Attributes:
    message: HTML, "" where all went well.
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

  A line is a verb with its roles ("juggling: agent, item"), or verbs that
  leave their roles to the predictor ("jumping, running").

  Raises:
    InputError: a verb comes twice.
  """
  found: dict[str, list[str] | None] = {}
  for line in filter(str.strip, given.splitlines()):
    name, colon, roles = line.partition(":")
    wanted = _listed(roles) if colon else None
    for verb in [name.strip()] if colon else _listed(line):
      if verb in found:
        raise InputError(
          f"the verb {verb!r} is there twice", "give each word once"
        )
      found[verb] = wanted
  return found or None


def nouns_of(given: str) -> list[str] | None:
  """Words of the box for nouns, by commas or lines; None if it is empty."""
  return _listed(given.replace("\n", ",")) or None


def look(
  predictor: Predictor, path: str | None, verbs: str, nouns: str
) -> Shown:
  """What the page shows for an uploaded file and the two boxes of words."""
  try:
    if not path:
      raise InputError("there is no image yet", "choose or drop one")
    # First by its own name: the upload's path says nothing to a visitor.
    picture = image_lib.open_image(path, os.path.basename(path))
    words = verbs_of(verbs or ""), nouns_of(nouns or "")
    result = predictor.predict(path, *words)
  except InputError as error:
    return Shown(message=_message(error))
  return shown(result, picture)


def shown(result: Prediction, picture: image_lib.Picture) -> Shown:
  """A prediction as the page has it."""
  notes = "; ".join(result.notes)
  remark = f"<br><small>{text(notes)}</small>" if notes else ""
  return Shown(
    picture=annotated.draw(as_annotated(result, picture)).image,
    sentence=f'<div class="sentence">{text(result.sentence)}{remark}</div>',
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
    found = look(predictor, path, verbs, nouns)
    return (
      found.message or found.sentence,
      found.picture,
      found.verbs,
      [list(row) for row in found.rows],
    )

  about = _ABOUT.format(
    step=predictor.step,
    verbs=len(predictor.vocabulary.verbs),
    nouns=len(predictor.vocabulary.nouns),
  )
  with gr.Blocks(title="MIPD", analytics_enabled=False) as blocks:
    gr.Markdown(f"# What is going on, who takes part, and where\n\n{about}")
    with gr.Row():
      with gr.Column(scale=2):
        upload = gr.Image(
          label="Image", type="filepath", sources=["upload"], image_mode=None
        )
        # The file as it is: what is wrong with it, our reader tells.
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
        headline = gr.HTML()  # the sentence, or what is wrong
        picture = gr.Image(
          label="Result",
          interactive=False,
          format="jpeg",
          buttons=["download", "fullscreen"],  # "share" would send it away
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


def launch(blocks: "gradio.Blocks", port: int, *, wait: bool = True) -> str:
  """Opens the page to this machine alone, without a look at the network.

  Args:
    blocks: of `page`.
    port: 0 takes one that is free.
    wait: whether to return only when it is stopped.

  Returns:
    Its address.

  Raises:
    InputError: the port is taken.
  """
  gr = _gradio()
  try:
    _, url, _ = blocks.launch(
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
  parser.add_argument("--port", type=int, default=7860)
  given = parser.parse_args(arguments)
  try:
    _gradio()  # before the slow part
    predictor = Predictor.from_workdir(given.workdir, batch_size=1)
    # Compiles, so that the first visitor need not wait.
    predictor.predict(np.full((8, 8, 3), 127, np.uint8))
    launch(page(predictor), given.port)
  except InputError as error:
    print(f"error: {error}", file=sys.stderr)
    return 2
  return 0


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
  problem, remedy = text(error.problem), text(error.remedy)
  return (
    f'<div class="problem" role="alert">{problem}<br>'
    f"<small>What helps: {remedy}</small></div>"
  )


def _listed(given: str) -> list[str]:
  return [word.strip() for word in given.split(",") if word.strip()]
