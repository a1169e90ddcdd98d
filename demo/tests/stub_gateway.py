#!/usr/bin/env python3
"""Stands in for the gateway binary where the demo itself is tested: echoes, or dies when STUB_DIES is set."""

import json
import os
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def reply(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        known = self.headers["Authorization"] == f"Bearer {os.environ['DEMO_CALLER_KEY']}"
        self.reply(json.dumps({"data": [{"id": "echo"}] if known else []}).encode())

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        words, usage = request["messages"][-1]["content"].split(), {"prompt_tokens": 3, "completion_tokens": 3}
        if not request.get("stream"):
            choice = {"message": {"content": " ".join(words)}, "finish_reason": "stop"}
            return self.reply(json.dumps({"model": "echo", "choices": [choice], "usage": usage}).encode())
        parts = [{"choices": [{"delta": {"content": word + " "}}]} for word in words]
        parts.append({"model": "echo", "choices": [{"delta": {}, "finish_reason": "stop"}], "usage": usage})
        return self.reply(b"".join(b"data: %s\n\n" % json.dumps(part).encode() for part in parts) + b"data: [DONE]\n\n")


def main():
    if os.environ.get("STUB_DIES"):
        sys.exit("Error: the stub will not start")
    with open(sys.argv[sys.argv.index("--config") + 1], encoding="utf-8") as file:
        port = int(re.search(r"proxy:\n  addr: 127\.0\.0\.1:(\d+)", file.read())[1])
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
