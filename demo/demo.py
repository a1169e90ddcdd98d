#!/usr/bin/env python3
"""Starts the gateway in front of a real small language model, chats through it, and stays up until Ctrl-C.

`--check` exits after the chats: 0 only if the answers came from the model.
"""

import argparse
import contextlib
import os
import secrets
import sys
import tempfile
import threading

from aisix_demo import ROOT, DemoError, chat, gateway, model, report
from aisix_demo.process import Stopped, pick_ports, stop_on_signals

QUESTION = "Tell me in one sentence what an API gateway does."
# SmolLM2 repeats itself on some prompts when it always takes the likeliest token; this one it answers well.
CHAT = {"messages": [{"role": "user", "content": QUESTION}], "max_tokens": 80, "temperature": 0}


def say(text=""):
    print(text, flush=True)


def step(number, text):
    say(f"\n[{number}/4] {text}")


def note(text):
    say(f"      {text}")


def start_model(stack, folder, wanted):
    """The running model, or the reason why there is none."""
    step(2, f"Small language model {model.NAME}")
    try:
        if not wanted:
            raise DemoError("--no-model was given")
        python, made = model.install()
        note("installed" if made else "already installed")
        server = model.start(stack, python, folder)
        note(f"answers on {server.url}")
        return server, None
    except DemoError as error:
        reason = str(error)
        note(f"not available: {reason}")
        note("The gateway's built-in echo provider answers instead.")
        return None, reason


def run_chats(url, key, alias):
    """One buffered and one streamed chat, shown as they go."""
    client = chat.Client(url, key)
    with contextlib.closing(client):
        body = {"model": alias, **CHAT}
        say(f"\n  You:  {QUESTION}")
        buffered = client.buffered(body)
        say(f"\n  {alias}, buffered:")
        say(report.wrap(buffered.text.strip() or "(empty)", "    "))
        say(f"    -- {report.figures(buffered)}")
        say(f"\n  {alias}, streamed:")
        flow = report.Flow(lambda text: print(text, end="", flush=True))
        streamed = client.streamed(body, flow.feed)
        flow.end()
        say(f"\n    -- {report.figures(streamed)}")
        return buffered, streamed


def measure(server, target, alias):
    """Added latency against the model asked directly."""
    body = {"model": alias, **CHAT, "max_tokens": 1}
    with contextlib.closing(chat.Client(server.url)) as direct, contextlib.closing(
        chat.Client(target.url, target.key)
    ) as through:
        latency = chat.compare(direct, through, body)
    say()
    for line in report.latency_lines(latency):
        say(report.wrap(line, "  "))


def verdict(found, echo_reason, allow_echo):
    """The exit code of `--check`, and the line that explains it."""
    if echo_reason and not allow_echo:
        found = [*found, f"the answers came from the built-in echo provider, not from a model: {echo_reason}"]
    for problem in found:
        say(f"  demo-check: {problem}")
    say(f"demo-check: {'failed' if found else 'passed'}")
    return 1 if found else 0


def show_usage(target, alias, folder):
    plain, streamed, sdk = report.snippets(target.url, target.key, alias, QUESTION)
    for title, text in (("curl", plain), ("curl, streamed", streamed), ("OpenAI Python SDK", sdk)):
        say(f"\n  {title}:\n")
        say(text)
    say(f"\n  Callers   {target.url}/v1      key {target.key}")
    say(f"  Admin     {target.admin_url}/admin/v1/health      key {target.admin_key}")
    say(f"  Metrics   {target.metrics_url}/metrics")
    say(f"  Config    {folder}/config.yaml, resources.yaml, gateway.log")


def demo(options, stack):
    """The whole run; returns the exit code."""
    say("AISIX AI gateway: demo")
    step(1, "Building the gateway (the first time takes some minutes)")
    binary = gateway.build()
    note(f"built: {os.path.relpath(binary, ROOT)}")

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aisix-demo-"))
    server, echo_reason = start_model(stack, folder, not options.no_model)
    alias = "smollm2" if server else "echo"

    step(3, "Starting the gateway")
    ports = pick_ports(gateway.DEFAULT_PORTS)
    keys = f"sk-demo-{secrets.token_hex(12)}", f"admin-demo-{secrets.token_hex(12)}"
    target = gateway.start_demo(stack, binary, folder, ports, alias, keys, server and server.api_base)
    note(f"answers on {target.url}")

    step(4, "Two chats through the gateway")
    before = server.tokens_predicted() if server else None
    buffered, streamed = run_chats(target.url, target.key, alias)
    generated = server.tokens_predicted() - before if server else None
    found = report.problems(buffered, streamed, alias, generated)
    if server:
        measure(server, target, alias)
    if options.check:
        say()
        return verdict(found, echo_reason, options.allow_echo)

    for problem in found:
        say(f"\n  Not as it should be: {problem}")
    show_usage(target, alias, folder)
    say("\nRunning. Ctrl-C stops everything and removes the files.")
    while not threading.Event().wait(0.5):
        target.child.must_run()
        if server:
            server.child.must_run()
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="exit after the chats; 0 only if they came from the model")
    parser.add_argument("--allow-echo", action="store_true", help="let --check pass with the built-in echo provider")
    parser.add_argument("--no-model", action="store_true", help="use the built-in echo provider straight away")
    options = parser.parse_args()
    stop_on_signals()
    try:
        with contextlib.ExitStack() as stack:
            return demo(options, stack)
    except DemoError as error:
        say(f"\ndemo: {error}")
        return 1
    except KeyboardInterrupt:
        say("\nStopped.")
        return 130 if options.check else 0
    except BrokenPipeError:
        # Whoever read the output has gone; nothing can be said any more, not even by the interpreter on its way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Stopped as signal:
        say(f"\nStopped by {signal}.")
        return 143


if __name__ == "__main__":
    sys.exit(main())
