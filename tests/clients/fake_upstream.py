"""A small, deterministic OpenAI-compatible server. The model name in the request chooses what it does.

    echo            the last user message; `n` choices; logprobs when asked for
    split           as echo, streamed a few bytes at a time, so that characters and events are cut anywhere
    body            the request body exactly as it arrived
    tools           calls the first tool; answers once the tool's result is in the conversation
    parallel-tools  two tool calls at once, streamed in fragments one after the other
    json            an instance of the JSON schema in `response_format`, or an object for `json_object`
    vision          what image parts arrived: type, detail and a digest of each address
    reasoning       `reasoning_content` before the answer; `reasoning-short` names it `reasoning`
    refusal         a refusal in place of content
    flaky           fails with 500 the first time it reads a text, then as echo
    slow            the answer of echo after three seconds
    slow-stream     one word every 20 ms, 500 times
    cut             a stream that breaks off in the middle; `cut-clean` ends its body properly, but without a finish
    error-NNN       that status with an OpenAI error; 429 carries Retry-After

`GET /_journal/<x-aisix-request-id>` tells what arrived under that id and how it ended.
"""

import hashlib
import json
import re
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

JOURNAL = {}
JOURNAL_CHANGED = threading.Condition()
FLAKY_SEEN = set()
USAGE_DETAILS = {"completion_tokens_details": {"reasoning_tokens": 3}}
ERROR_TYPES = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error"}


def last_text(request):
    """The text of the last user message, strings and parts alike."""
    for message in reversed(request["messages"]):
        if message["role"] == "user":
            content = message["content"]
            if isinstance(content, str):
                return content
            return "".join(part["text"] for part in content if part["type"] == "text")
    return ""


def instance(schema):
    """A value that satisfies a JSON schema of the plain kinds."""
    if "enum" in schema:
        return schema["enum"][0]
    if "$ref" in schema or "anyOf" in schema:
        raise ValueError("only plain schemas")
    kind = schema["type"]
    if kind == "object":
        return {name: instance(part) for name, part in schema["properties"].items()}
    if kind == "array":
        return [instance(schema["items"])]
    return {"string": "Zoë", "integer": 7, "number": 1.50, "boolean": True, "null": None}[kind]


def tool_call(index, request, city):
    name = request["tools"][index % len(request["tools"])]["function"]["name"]
    arguments = json.dumps({"city": city}, ensure_ascii=False)
    return {"id": f"call_{index}", "type": "function", "function": {"name": name, "arguments": arguments}}


def tools_message(request):
    """A call, or the answer once the result of that very call has arrived."""
    last = request["messages"][-1]
    if last["role"] != "tool":
        return {"role": "assistant", "content": None, "tool_calls": [tool_call(0, request, "Zürich")]}, "tool_calls"
    asked = [call["id"] for message in request["messages"] for call in message.get("tool_calls") or []]
    if last["tool_call_id"] not in asked:
        raise ValueError("tool result without its call")
    return {"role": "assistant", "content": f"The tool says: {last['content']}"}, "stop"


def parallel_message(request):
    calls = [tool_call(0, request, "Zürich"), tool_call(1, request, "Kraków")]
    return {"role": "assistant", "content": None, "tool_calls": calls}, "tool_calls"


def json_message(request):
    wanted = request["response_format"]
    value = instance(wanted["json_schema"]["schema"]) if wanted["type"] == "json_schema" else {"ok": True}
    return {"role": "assistant", "content": json.dumps(value, ensure_ascii=False)}, "stop"


def vision_message(request):
    seen = []
    for part in request["messages"][-1]["content"]:
        if part["type"] == "image_url":
            image = part["image_url"]
            digest = hashlib.sha256(image["url"].encode()).hexdigest()
            seen.append({"type": "image_url", "detail": image.get("detail"), "sha256": digest})
        else:
            seen.append(part)
    return {"role": "assistant", "content": json.dumps(seen, ensure_ascii=False)}, "stop"


def reasoning_message(field):
    return lambda request: (
        {"role": "assistant", "content": last_text(request), field: "Let me think about this"},
        "stop",
    )


MESSAGES = {
    "tools": tools_message,
    "parallel-tools": parallel_message,
    "json": json_message,
    "vision": vision_message,
    "reasoning": reasoning_message("reasoning_content"),
    "reasoning-short": reasoning_message("reasoning"),
    "refusal": lambda _: ({"role": "assistant", "content": None, "refusal": "I cannot help with that"}, "stop"),
}


def echo_message(request):
    return {"role": "assistant", "content": last_text(request)}, "stop"


def words(text):
    """Pieces that join to the text again."""
    return re.findall(r"\s*\S+\s*$|\s*\S+|\s+", text)


def logprobs_of(text):
    return {"content": [
        {"token": piece, "bytes": list(piece.encode()), "logprob": -0.125, "top_logprobs": []} for piece in words(text)
    ]}


def usage_of(request, message):
    prompt = sum(len(str(one.get("content") or "").split()) for one in request["messages"])
    completion = max(1, len((message.get("content") or "").split()))
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion, **USAGE_DETAILS}


def head(request, kind):
    return {
        "id": "chatcmpl-fake", "object": kind, "created": 1700000000, "model": request["model"] + "-2024-01-01",
        "system_fingerprint": "fp_fake", "x_vendor_extra": {"kept": [1, 2.50]},
    }


def completion(request):
    """The buffered reply."""
    message, finish = MESSAGES.get(request["model"], echo_message)(request)
    choices = []
    for index in range(request.get("n") or 1):
        choice = {"index": index, "message": message, "finish_reason": finish}
        if request.get("logprobs"):
            choice["logprobs"] = logprobs_of(message["content"])
        choices.append(choice)
    return {**head(request, "chat.completion"), "choices": choices, "usage": usage_of(request, message)}


def deltas(message, with_logprobs):
    """(delta, logprobs) in the order a provider sends them."""
    yield {"role": "assistant", "content": ""}, None
    for name in ("reasoning_content", "reasoning", "refusal"):
        for piece in words(message.get(name) or ""):
            yield {name: piece}, None
    for piece in words(message.get("content") or ""):
        yield {"content": piece}, logprobs_of(piece) if with_logprobs else None
    for index, call in enumerate(message.get("tool_calls") or []):
        arguments = call["function"]["arguments"]
        opened = {**call, "function": {"name": call["function"]["name"], "arguments": ""}}
        yield {"tool_calls": [{"index": index, **opened}]}, None
        for start in range(0, len(arguments), 5):
            yield {"tool_calls": [{"index": index, "function": {"arguments": arguments[start:start + 5]}}]}, None


def chunks(request):
    """The streamed reply, as chunk objects."""
    message, finish = MESSAGES.get(request["model"], echo_message)(request)
    base = head(request, "chat.completion.chunk")
    indexes = range(request.get("n") or 1)
    for delta, logprobs in deltas(message, request.get("logprobs")):
        for index in indexes:
            choice = {"index": index, "delta": delta, "finish_reason": None}
            if logprobs:
                choice["logprobs"] = logprobs
            yield {**base, "choices": [choice]}
    for index in indexes:
        yield {**base, "choices": [{"index": index, "delta": {}, "finish_reason": finish}]}
    if (request.get("stream_options") or {}).get("include_usage"):
        yield {**base, "choices": [], "usage": usage_of(request, message)}


def encode(value):
    return json.dumps(value, ensure_ascii=False).encode()


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY: small pieces leave at once

    def log_message(self, *_):
        pass

    def do_GET(self):
        if not self.path.startswith("/_journal/"):
            return self.reply(404, {"error": {"message": "no such path"}})
        wanted = self.path.removeprefix("/_journal/")
        with JOURNAL_CHANGED:
            JOURNAL_CHANGED.wait_for(lambda: JOURNAL.get(wanted, {}).get("ended"), timeout=10)
            entry = JOURNAL.get(wanted)
        return self.reply(200 if entry else 404, entry)

    def do_POST(self):
        raw = self.rfile.read(int(self.headers.get("content-length") or 0)).decode()
        request = json.loads(raw)
        entry = {"path": self.path, "headers": {name.lower(): value for name, value in self.headers.items()}, "body": raw}
        with JOURNAL_CHANGED:
            JOURNAL[self.headers.get("x-aisix-request-id")] = entry
        try:
            self.answer(request, raw)
            ended = "complete"
        except OSError:
            ended, self.close_connection = "hung up", True
        except (KeyError, ValueError, TypeError) as error:
            ended = "refused"
            self.error(400, f"fake upstream: {type(error).__name__}: {error}")
        with JOURNAL_CHANGED:
            entry["ended"] = ended
            JOURNAL_CHANGED.notify_all()

    def answer(self, request, raw):
        model = request["model"]
        if self.headers.get("authorization") != "Bearer upstream-secret":
            return self.error(401, "fake upstream: wrong credential")
        if model.startswith("error-"):
            return self.error(int(model.removeprefix("error-")), f"the fake fails with {model}")
        if model == "body":
            return self.reply(200, {**completion(request), "choices": [
                {"index": 0, "message": {"role": "assistant", "content": raw}, "finish_reason": "stop"}]})
        if model == "flaky" and last_text(request) not in FLAKY_SEEN:
            FLAKY_SEEN.add(last_text(request))
            return self.error(500, "only the first time")
        if model == "slow":
            time.sleep(3)
        if not request["stream"]:
            return self.reply(200, completion(request))
        if model == "slow-stream":
            request["messages"] = [{"role": "user", "content": "word " * 500}]
        return self.stream(request)

    def stream(self, request):
        model = request["model"]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if model == "split":
            whole = b"".join(b"data: " + encode(one) + b"\r\n\r\n" for one in chunks(request)) + b"data: [DONE]\n\n"
            for start in range(0, len(whole), 7):
                self.piece(whole[start:start + 7])
        else:
            for number, one in enumerate(chunks(request)):
                if model.startswith("cut") and number == 4:
                    break
                if model == "slow-stream":
                    time.sleep(0.02)
                self.piece(b"data: " + encode(one) + b"\n\n")
            else:
                self.piece(b"data: [DONE]\n\n")
        if model == "cut":
            self.close_connection = True
        else:
            self.piece(b"")

    def piece(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def error(self, status, message):
        body = {"error": {"message": message, "type": ERROR_TYPES.get(status, "api_error"), "param": "fake_param", "code": f"fake_{status}"}}
        self.reply(status, body, {"Retry-After": "7"} if status == 429 else {})

    def reply(self, status, body, headers=None):
        data = encode(body)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request, client_address):
        pass  # a caller that hangs up is one of the things tried


def main():
    server = Server(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"listening http://127.0.0.1:{server.server_address[1]}", flush=True)
    sys.stdin.buffer.read()


if __name__ == "__main__":
    main()
