#!/usr/bin/env python3
"""Holds the running admin listener to its own OpenAPI document, with generated requests, good and bad.

    run.py [--bin PATH] [--examples N] [--seed N] [-- arguments for schemathesis]

The gateway has an embedded store of its own. No answer may be a 5xx, lack in the document or differ from its schema, and what
the document forbids must be refused. What it needs is installed into .cache/; everything it starts ends with it.
"""

import argparse
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "..", "demo"))

from aisix_demo import CACHE, ROOT, DemoError, gateway, model  # noqa: E402
from aisix_demo.process import Child, Stopped, pick_ports, stop_on_signals, wait_until  # noqa: E402

ADMIN_KEY = "admin-of-the-api-tests"
# Not `positive_data_acceptance`: a document that fits its schema may still name what does not exist, or a name that is taken.
# Not `use_after_free` and `ensure_resource_availability`: a dry run answers as if it had written.
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,missing_required_header,unsupported_method,"
    "allow_header_conformance,ignored_auth"
)
# Normally a minute or two; this is for a machine that is busy with other things.
LONGEST = 600


def config_yaml(folder, ports):
    """An embedded store and three listeners on loopback."""
    proxy, admin, metrics = ports
    return f"""\
data_dir: {json.dumps(os.path.join(folder, "data"))}
proxy:
  addr: 127.0.0.1:{proxy}
admin:
  addr: 127.0.0.1:{admin}
  admin_keys: [{json.dumps(ADMIN_KEY)}]
observability:
  metrics:
    prometheus:
      addr: 127.0.0.1:{metrics}
shutdown:
  min_drain_secs: 0
"""


def get(url, key=None):
    """The body behind an address; None while nothing answers there."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return reply.read().decode()
    except urllib.error.HTTPError as error:
        raise DemoError(f"{url} answered {error.code}: {error.read(300).decode(errors='replace')}") from None
    except OSError:
        return None


def command(python, admin, options):
    """The command line of schemathesis."""
    argv = [python, "-m", "schemathesis.cli", "run", f"{admin}/admin/openapi.json", "--url", admin]
    argv += ["-H", f"Authorization: Bearer {ADMIN_KEY}", "--checks", CHECKS, "--phases", "examples,coverage,fuzzing,stateful"]
    argv += ["--max-examples", str(options.examples), "--seed", str(options.seed), "--generation-database", "none"]
    return [*argv, "--continue-on-failure", "--request-timeout", "10", "--warnings", "off", *options.arguments]


def aftermath(child, admin, status):
    """What must hold after all of it; a list of what does not."""
    child.must_run()
    wrong = []
    state = json.loads(get(f"{status}/status/config"))
    if state["state"] not in ("synced", "empty") or state["rejected"]:
        wrong.append(f"a document came in that cannot be loaded: {state['state']}, {state['rejected'][:3]}")
    document = json.loads(get(f"{admin}/admin/openapi.json"))
    for path, operations in document["paths"].items():
        collection = path.startswith("/admin/v1/") and path.count("/") == 3 and "post" in operations and "get" in operations
        if collection and get(admin + path, ADMIN_KEY) is None:
            wrong.append(f"{path} does not answer any more")
    if "panicked" in child.log():
        wrong.append("the log tells of a panic")
    return wrong


def run(options, stack):
    """Starts everything, runs the tester; returns the exit code."""
    if options.bin:
        os.environ["GATEWAY_BIN"] = options.bin
    binary = gateway.build("debug")
    requirements = os.path.join(HERE, "requirements.txt")
    python, _ = model.ensure_venv(os.path.join(CACHE, "api-venv"), requirements, "installing the API tester")
    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="aisix-api-"))
    ports, config = pick_ports((0, 0, 0)), os.path.join(folder, "config.yaml")
    gateway.write_private(config, config_yaml(folder, ports))
    child = gateway.start(stack, binary, folder, config, {})
    admin, status = f"http://127.0.0.1:{ports[1]}", f"http://127.0.0.1:{ports[2]}"
    wait_until("the gateway", lambda: get(f"{admin}/readyz"), child, 30)
    with Child("schemathesis", command(python, admin, options), cwd=folder) as tester:
        try:
            code = tester.process.wait(options.longest)
        except subprocess.TimeoutExpired:
            raise DemoError(f"the tester did not end within {options.longest} s") from None
    wrong = aftermath(child, admin, status)
    for line in wrong:
        print(f"api: {line}")
    if code or wrong:
        kept = os.path.join(CACHE, "api-gateway.log")
        shutil.copy(os.path.join(folder, "gateway.log"), kept)
        print(f"api: failed; the gateway's log is in {os.path.relpath(kept, ROOT)}")
        return 1
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--bin", help="the gateway binary; without it the debug build is made")
    parser.add_argument("--examples", type=int, default=15, help="generated requests for each operation")
    parser.add_argument("--seed", type=int, default=1, help="another seed makes other requests")
    parser.add_argument("--longest", type=int, default=LONGEST, help="seconds the tester may take")
    parser.add_argument("arguments", nargs="*", help="passed on to schemathesis")
    options = parser.parse_args()
    stop_on_signals()
    try:
        with contextlib.ExitStack() as stack:
            return run(options, stack)
    except DemoError as error:
        print(f"api: {error}")
        return 1
    except (KeyboardInterrupt, Stopped):
        print("api: stopped")
        return 130


if __name__ == "__main__":
    sys.exit(main())
