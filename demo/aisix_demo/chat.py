"""A small OpenAI-style client: one buffered chat, one streamed chat, and the latency comparison."""

import http.client
import json
import math
import statistics
import time
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from . import DemoError

TIMEOUT = 120
PATH = "/v1/chat/completions"


@dataclass
class Answer:
    """What one chat brought, buffered or streamed alike."""

    text: str = ""
    model: str = ""
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0
    model_seconds: float = 0.0
    first_text: float = 0.0
    chunks: int = 0
    done: bool = False
    errors: list = field(default_factory=list)


class Client:
    """One kept-open connection to one address."""

    def __init__(self, url, key=None):
        address = urlsplit(url)
        self._connection = http.client.HTTPConnection(address.hostname, address.port, timeout=TIMEOUT)
        self._headers = {"Content-Type": "application/json"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    def close(self):
        self._connection.close()

    def _post(self, body):
        try:
            self._connection.request("POST", PATH, json.dumps(body), self._headers)
            reply = self._connection.getresponse()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise DemoError(f"no answer from port {self._connection.port}: {error or type(error).__name__}") from None
        if reply.status != 200:
            text = reply.read(2000).decode(errors="replace")
            raise DemoError(f"port {self._connection.port} answered {reply.status}: {text}")
        return reply

    def buffered(self, body):
        started = time.perf_counter()
        reply = json.loads(self._post(body).read())
        answer = Answer(seconds=time.perf_counter() - started, done=True, chunks=1)
        take(answer, reply, "message")
        return answer

    def streamed(self, body, show=lambda text: None):
        started = time.perf_counter()
        reply = self._post({**body, "stream": True, "stream_options": {"include_usage": True}})
        answer = Answer()
        try:
            for event, data in events(reply):
                before = answer.text
                fold(answer, event, data)
                new = answer.text[len(before):]
                if new and not answer.first_text:
                    answer.first_text = time.perf_counter() - started
                show(new)
        except (OSError, http.client.HTTPException) as error:
            answer.errors.append(f"the stream was cut: {error or type(error).__name__}")
        answer.seconds = time.perf_counter() - started
        return answer


def events(lines):
    """(event name, data) of each server-sent event in an iterable of byte lines."""
    name, data = "message", []
    for raw in lines:
        line = raw.decode("utf-8").rstrip("\r\n")
        if not line:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
        elif line.startswith("data:"):
            data.append(line[5:].removeprefix(" "))
        elif line.startswith("event:"):
            name = line[6:].strip()


def fold(answer, event, data):
    """Add one event of a stream to the answer."""
    if event == "error":
        answer.errors.append(f"error in the stream: {data}")
    elif data == "[DONE]":
        answer.done = True
    else:
        answer.chunks += 1
        take(answer, json.loads(data), "delta")


def take(answer, reply, part):
    """Add a reply or a chunk to the answer."""
    answer.model = reply.get("model") or answer.model
    for choice in reply.get("choices", [])[:1]:
        answer.text += (choice.get(part) or {}).get("content") or ""
        answer.finish_reason = choice.get("finish_reason") or answer.finish_reason
    timings = reply.get("timings") or {}
    answer.model_seconds = (timings.get("prompt_ms", 0.0) + timings.get("predicted_ms", 0.0)) / 1000
    usage = reply.get("usage") or {}
    answer.prompt_tokens = usage.get("prompt_tokens", answer.prompt_tokens)
    answer.completion_tokens = usage.get("completion_tokens", answer.completion_tokens)


@dataclass
class Latency:
    """Medians in milliseconds outside the model, and the standard error of their difference."""

    direct: float
    through: float
    error: float
    rounds: int

    @property
    def added(self):
        return self.through - self.direct


def median_error(times):
    """Standard error of a median: 1.25 sigma / sqrt(n), sigma taken from the quartiles, so that outliers do not count."""
    low, _, high = statistics.quantiles(times, n=4)
    return 1.25 * (high - low) / 1.35 / math.sqrt(len(times))


def summarise(direct, through):
    error = math.hypot(median_error(direct), median_error(through))
    return Latency(statistics.median(direct), statistics.median(through), error, len(direct))


def compare(direct, through, body, rounds=80, warm_up=8):
    """The same one-token request, alternating between both; each goes first every other time.

    The model's own computing time, which it reports with each reply, is taken off on both ways: it differs from request
    to request by far more than a gateway adds.
    """
    times = {direct: [], through: []}
    for turn in range(-warm_up, rounds):
        for client in (direct, through) if turn % 2 else (through, direct):
            answer = client.buffered(body)
            if turn >= 0:
                times[client].append((answer.seconds - answer.model_seconds) * 1000)
    return summarise(times[direct], times[through])
