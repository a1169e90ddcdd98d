#!/usr/bin/env python3
"""Runs the official clients through the real gateway, in front of a deterministic fake and of the real small model.

    run.py [--bin PATH] [--only python|node] [--fake-only] [-- arguments for pytest or node]

What it needs is installed into .cache/ (Python) and node_modules/ (Node.js); everything it starts ends with it.
"""

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "demo"))

from aisix_demo import CACHE, ROOT, DemoError, gateway, model  # noqa: E402
from aisix_demo.process import Child, Stopped, pick_ports, run_logged, stop_on_signals, wait_until  # noqa: E402

KEYS = {"KEY_ALL": "sk-all-models", "KEY_LIMITED": "sk-only-echo", "KEY_EXPIRED": "sk-expired", "KEY_DISABLED": "sk-disabled"}
OLDEST_NODE = 18


def resources(fake, dead, real):
    """Every kind of upstream the suites talk to. `retries: 0`: what is tested is the first failure."""
    real_model = f"""
  - display_name: real
    provider: openai
    model_name: smollm2
    provider_key: real""" if real else ""
    return f"""\
_format_version: "1"
provider_keys:
  - {{display_name: fake, provider: openai, api_key: upstream-secret, api_base: "{fake}/v1"}}
  - {{display_name: dead, provider: openai, api_key: upstream-secret, api_base: "{dead}/v1"}}
  - {{display_name: real, provider: openai, api_key: not-needed, api_base: "{real or dead}/v1"}}
models:
  - {{display_name: echo, provider: openai, model_name: echo, provider_key: fake}}
  - {{display_name: "fake/*", provider: openai, model_name: "*", provider_key: fake}}
  - {{display_name: "broken/*", provider: openai, model_name: "*", provider_key: fake, retries: 0}}
  - {{display_name: impatient, provider: openai, model_name: slow, provider_key: fake, timeout: 200, retries: 0}}
  - {{display_name: unreachable, provider: openai, model_name: any, provider_key: dead, retries: 0}}{real_model}
api_keys:
  - {{display_name: all, key_env: KEY_ALL, allowed_models: ["*"]}}
  - {{display_name: limited, key_env: KEY_LIMITED, allowed_models: [echo]}}
  - {{display_name: expired, key_env: KEY_EXPIRED, allowed_models: ["*"], expires_at: "2020-01-01T00:00:00Z"}}
  - {{display_name: disabled, key_env: KEY_DISABLED, allowed_models: ["*"], disabled: true}}
"""


def start_fake(stack, folder):
    argv = [sys.executable, os.path.join(HERE, "fake_upstream.py")]
    child = stack.enter_context(Child("the fake upstream", argv, os.path.join(folder, "fake.log"), pipe_stdin=True))
    found = wait_until("the fake upstream", lambda: re.search(r"^listening (\S+)$", child.log(), re.M), child, 30)
    return found.group(1)


def start_gateway(stack, binary, folder, fake, real):
    """The gateway in front of both; an address where nothing listens stands for an upstream that is down."""
    *ports, dead = pick_ports((0, 0, 0, 0))
    resources_file, config = os.path.join(folder, "resources.yaml"), os.path.join(folder, "config.yaml")
    gateway.write_private(resources_file, resources(fake, f"http://127.0.0.1:{dead}", real))
    gateway.write_private(config, gateway.config_yaml(resources_file, ports, "admin-of-the-client-tests"))
    child = gateway.start(stack, binary, folder, config, KEYS)
    url = f"http://127.0.0.1:{ports[0]}"
    wait_until("the gateway", lambda: "echo" in gateway.models(url, KEYS["KEY_ALL"]), child, 30)
    return child, url


def node_version():
    """The major version of Node.js."""
    if not shutil.which("node") or not shutil.which("npm"):
        raise DemoError("Node.js and npm are missing (Debian: apt-get install nodejs npm)")
    version = int(re.match(r"v(\d+)", subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout)[1])
    if version < OLDEST_NODE:
        raise DemoError(f"Node.js {OLDEST_NODE} or newer is needed, this is {version}")
    return version


def python_command(arguments, _fake_only):
    folder = os.path.join(CACHE, "clients-venv")
    python, _ = model.ensure_venv(folder, os.path.join(HERE, "python", "requirements.txt"), "installing the Python clients")
    return [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments], os.path.join(HERE, "python")


def node_command(arguments, fake_only):
    node_version()
    folder = os.path.join(HERE, "node")
    marker, wanted = os.path.join(folder, "node_modules", ".complete"), model.stamp(os.path.join(folder, "package-lock.json"))
    if not os.path.exists(marker) or open(marker, encoding="utf-8").read() != wanted:
        os.makedirs(CACHE, exist_ok=True)
        code, output = run_logged("npm", ["npm", "ci"], os.path.join(CACHE, "npm.log"), "installing the Node.js clients", cwd=folder)
        if code:
            raise DemoError(f"npm ci failed\n{output[-1500:]}")
        with open(marker, "w", encoding="utf-8") as file:
            file.write(wanted)
    files = sorted(name for name in os.listdir(folder) if name.endswith(".test.mjs"))
    if fake_only:
        files.remove("real.test.mjs")
    return ["node", "--test", "--test-reporter=spec", *arguments, *files], folder


SUITES = {"python": python_command, "node": node_command}


def run(options, stack):
    """Starts everything, runs the suites; returns the exit code."""
    if options.bin:
        os.environ["GATEWAY_BIN"] = options.bin
    binary = gateway.build("debug")
    chosen = [options.only] if options.only else list(SUITES)
    commands = {name: SUITES[name](options.arguments, options.fake_only) for name in chosen}
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aisix-clients-"))
    fake = start_fake(stack, folder)
    server = None if options.fake_only else model.start(stack, model.install()[0], folder)
    child, url = start_gateway(stack, binary, folder, fake, server and server.url)
    env = {**os.environ, **KEYS, "GATEWAY_URL": url, "FAKE_URL": fake, "MODEL_URL": server.url if server else ""}
    failed = []
    for name, (argv, cwd) in commands.items():
        print(f"official clients: {name}", flush=True)
        with Child(name, argv, env=env, cwd=cwd) as suite:
            if suite.process.wait():
                failed.append(name)
        child.must_run()
    if failed:
        kept = os.path.join(CACHE, "clients-gateway.log")
        shutil.copy(os.path.join(folder, "gateway.log"), kept)
        print(f"failed: {', '.join(failed)}; the gateway's log is in {os.path.relpath(kept, ROOT)}")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", help="the gateway binary; without it the debug build is made")
    parser.add_argument("--only", choices=SUITES, help="one suite")
    parser.add_argument("--fake-only", action="store_true", help="without the real model, for a quick turn while developing")
    parser.add_argument("arguments", nargs="*", help="passed on to pytest and node --test")
    options = parser.parse_args()
    stop_on_signals()
    try:
        with contextlib.ExitStack() as stack:
            return run(options, stack)
    except DemoError as error:
        print(f"clients: {error}")
        return 1
    except (KeyboardInterrupt, Stopped):
        print("clients: stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
