"""An OpenAI-compatible server in a thread that can also misbehave."""

import collections
import contextlib
import hashlib
import http.server
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

# Forms of log-probabilities in an answer; "" has none.
CONTENT, TOP, EMPTY = "content", "top", "empty"
MODEL = {"id": "stub", "owned_by": "tests", "created": 1, "meta": {"size": 3}}
_JUDGED = ("true?", "yes or no.\nAnswer:")
_Judge = Callable[[str], float | Sequence[tuple[str, float]]]


class StubServer:
  """Answers by function.

  Attributes:
    url: its address.
    models: what it lists.
    answered: (prompt, seed) -> times that a right answer was sent.
    requests: bodies of all requests, in their order.
    headers: of all requests.
    most: requests that were under way at the same time, at most.
  """

  def __init__(
    self,
    answer: Callable[[str, int], str],
    judge: _Judge,
    *,
    logprobs: str = CONTENT,
    chat: bool = True,
    fault: Callable[[str, int, int], Any] | None = None,
  ):
    """Begins to listen.

    Args:
      answer: (prompt, seed) -> text.
      judge: question -> the probability of yes, or (token, probability) pairs.
      logprobs: their form.
      chat: whether it takes chats; it always takes plain prompts.
      fault: (prompt, seed, times it was asked before) -> what goes wrong, for
        `_misbehave`; None answers.
    """
    self.models: list[dict[str, Any]] = [MODEL]
    self.answered: collections.Counter = collections.Counter()
    self.requests: list[dict[str, Any]] = []
    self.headers: list[Mapping[str, str]] = []
    self.most = self._now = 0
    self._answer, self._judge, self._form = answer, judge, logprobs
    self._chat, self.fault = chat, fault
    self._asked: collections.Counter = collections.Counter()
    self._lock = threading.Lock()
    stub = self

    class Handler(http.server.BaseHTTPRequestHandler):
      def do_GET(self):
        stub.handle(self, None)

      def do_POST(self):
        length = int(self.headers["Content-Length"])
        stub.handle(self, json.loads(self.rfile.read(length)))

      def log_message(self, *_):
        pass

    class Server(http.server.ThreadingHTTPServer):
      request_queue_size = 128

      def handle_error(self, *_):
        pass  # clients that hang up are part of the tests

    self._server = Server(("127.0.0.1", 0), Handler)
    self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
    self._thread = threading.Thread(
      target=self._server.serve_forever, args=(0.02,)
    )
    self._thread.start()

  def close(self) -> None:
    self._server.shutdown()
    self._server.server_close()
    self._thread.join()

  def handle(self, handler: Any, body: dict[str, Any] | None) -> None:
    with self._lock:
      self.headers.append(handler.headers)
      self._now += 1
      self.most = max(self.most, self._now)
    try:
      if body is None:
        fault = self.fault("models", 0, 0) if self.fault else None
        if fault is None:
          self._send(handler, 200, {"data": self.models})
        else:
          self._misbehave(handler, fault)
      else:
        self._write(handler, body)
    finally:
      with self._lock:
        self._now -= 1

  def _write(self, handler: Any, body: dict[str, Any]) -> None:
    is_chat = handler.path.endswith("/chat/completions")
    if is_chat and not self._chat:
      self._send(handler, 400, {"error": {"message": "no chat template"}})
      return
    prompt = body["messages"][0]["content"] if is_chat else body["prompt"]
    key = prompt, body["seed"]
    with self._lock:
      self.requests.append(body)
      times = self._asked[key]
      self._asked[key] += 1
    fault = self.fault(*key, times) if self.fault else None
    if fault is not None:
      self._misbehave(handler, fault)
      return
    choice = self._choice(prompt, body)
    text = choice.pop("text")
    choice |= {"message": {"content": text}} if is_chat else {"text": text}
    with self._lock:
      self.answered[key] += 1
    self._send(handler, 200, {"choices": [choice]})

  def _choice(self, prompt: str, body: Mapping[str, Any]) -> dict[str, Any]:
    if not prompt.endswith(_JUDGED):
      return {"text": self._answer(prompt, body["seed"])}
    tokens = self._judge(prompt)
    if isinstance(tokens, float):
      tokens = [(" yes", tokens), (" no", 1 - tokens)]
    share = sum(x for token, x in tokens if token.strip().lower() == "yes")
    # As if drawn: of seeds one in a hundred for each percent.
    choice = {"text": "Yes." if body["seed"] % 100 < 100 * share else "No."}
    if "logprobs" in body and self._form:
      choice["logprobs"] = self._logprobs(tokens)
    return choice

  def _logprobs(self, tokens: Sequence[tuple[str, float]]) -> dict[str, Any]:
    logs = [(t, math.log(x) if x else -9999.0) for t, x in tokens]
    if self._form == CONTENT:
      top = [{"token": t, "logprob": x} for t, x in logs]
      return {"content": [{**top[0], "top_logprobs": top}]}
    if self._form == TOP:
      return {
        "tokens": [logs[0][0]],
        "token_logprobs": [logs[0][1]],
        "top_logprobs": [dict(logs)],
      }
    return {"tokens": [], "token_logprobs": [], "top_logprobs": []}

  def _misbehave(self, handler: Any, fault: Any) -> None:
    """Sends what a fault says.

    Args:
      handler: of the request.
      fault: seconds to stall; None to hang up; a text to send; or (status,
        text or JSON, further headers).
    """
    if isinstance(fault, float):
      time.sleep(fault)
    elif fault == "hang up":
      handler.wfile.write(b"HTTP/1.0 200 OK\r\nContent-Length: 99\r\n\r\n{")
    elif isinstance(fault, str):
      self._send(handler, 200, fault)
    else:
      self._send(handler, *fault)

  def _send(
    self,
    handler: Any,
    status: int,
    content: Any,
    headers: Mapping[str, str] | None = None,
  ) -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    handler.send_response(status)
    for name, value in (headers or {}).items():
      handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(text.encode())


@contextlib.contextmanager
def serving(*arguments: Any, **options: Any) -> Iterator[StubServer]:
  """A `StubServer` that is closed at the end."""
  stub = StubServer(*arguments, **options)
  try:
    yield stub
  finally:
    stub.close()


_FAULTS = (
  (500, {"error": {"message": "out of luck"}}),
  (503, "<html><body>Bad gateway</body></html>"),
  (429, {"error": "slow down"}, {"Retry-After": "0"}),
  "<html>not an answer</html>",
  '{"choices": [{"message": {"content"',
  '{"choices": []}',
  "hang up",
)


def every_fifth(prompt: str, seed: int, times: int) -> Any:
  """A fault for 20 % of requests, of any kind; 1 in 1000 stalls."""
  digest = hashlib.sha256(f"{prompt}/{seed}/{times}".encode()).digest()
  number = int.from_bytes(digest[:4], "little") % 1000
  if number >= 200:
    return None
  return _FAULTS[digest[4] % len(_FAULTS)] if number else 2.5
