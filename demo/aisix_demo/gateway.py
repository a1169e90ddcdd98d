"""The gateway: building it, its configuration, starting it."""

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.request

from . import ROOT, DemoError
from .process import Child, wait_until

KEY_VARIABLE = "DEMO_CALLER_KEY"
DEFAULT_PORTS = (3000, 3001, 9090)


def build(profile="release"):
    """Build the binary, cargo's own progress showing, and return its path. `GATEWAY_BIN` names one already built."""
    given = os.environ.get("GATEWAY_BIN")
    if given:
        if not os.access(given, os.X_OK):
            raise DemoError(f"GATEWAY_BIN names {given}, which is not a program")
        return os.path.abspath(given)
    if not shutil.which("cargo"):
        raise DemoError("Rust is missing: install it from https://rustup.rs and run this again")
    flags = ["--release"] if profile == "release" else []
    argv = ["cargo", "build", *flags, "-p", "aisix", "--message-format=json-render-diagnostics"]
    with BuildOutput(argv) as lines:
        path = executable(lines)
    if not path:
        raise DemoError("the build failed: cargo's message is above")
    return path


class BuildOutput:
    """Cargo's machine-readable lines; its progress goes straight to the terminal."""

    def __init__(self, argv):
        self.process = subprocess.Popen(
            argv, cwd=ROOT, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, encoding="utf-8"
        )

    def __enter__(self):
        return self.process.stdout

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait()
        self.process.stdout.close()


def executable(lines):
    """The path of the `aisix` binary out of cargo's messages, or None when the build failed."""
    path = None
    for line in lines:
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["target"]["name"] == "aisix":
            path = message.get("executable") or path
        elif message["reason"] == "build-finished" and not message["success"]:
            return None
    return path


def config_yaml(resources, ports, admin_key):
    """The process settings: three listeners on loopback, and no wait for load balancers at the end."""
    proxy, admin, metrics = ports
    return f"""\
resources_file: {json.dumps(resources)}
proxy:
  addr: 127.0.0.1:{proxy}
admin:
  addr: 127.0.0.1:{admin}
  admin_keys: [{json.dumps(admin_key)}]
observability:
  metrics:
    prometheus:
      addr: 127.0.0.1:{metrics}
shutdown:
  min_drain_secs: 0
"""


def resources_yaml(alias, api_base=None):
    """One provider key, one model, one caller key. Without `api_base` the built-in echo provider answers."""
    provider = "openai" if api_base else "echo"
    base = f"\n    api_base: {json.dumps(api_base)}" if api_base else ""
    return f"""\
_format_version: "1"
provider_keys:
  - display_name: local
    provider: {provider}
    api_key: not-needed{base}
models:
  - display_name: {alias}
    provider: {provider}
    model_name: {alias}
    provider_key: local
api_keys:
  - display_name: demo
    key_env: {KEY_VARIABLE}
    allowed_models: ["*"]
"""


class Gateway:
    """A running gateway."""

    def __init__(self, child, ports, key, admin_key):
        self.child, self.key, self.admin_key = child, key, admin_key
        self.url, self.admin_url, self.metrics_url = (f"http://127.0.0.1:{port}" for port in ports)


def clean_environment(extra):
    """The environment without settings that would override the written configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AISIX_")}
    return {**kept, **extra}


def start(stack, binary, folder, config, environment):
    """Write nothing, start the binary on `config` in `folder`; the caller waits for what it needs."""
    argv = [binary, "--config", config]
    log = os.path.join(folder, "gateway.log")
    return stack.enter_context(Child("the gateway", argv, log, env=clean_environment(environment), cwd=folder))


def start_demo(stack, binary, folder, ports, alias, keys, api_base=None):
    """Write both files, start the gateway and wait until it offers the model."""
    key, admin_key = keys
    resources, config = os.path.join(folder, "resources.yaml"), os.path.join(folder, "config.yaml")
    write_private(resources, resources_yaml(alias, api_base))
    write_private(config, config_yaml(resources, ports, admin_key))
    child = start(stack, binary, folder, config, {KEY_VARIABLE: key})
    gateway = Gateway(child, ports, key, admin_key)
    wait_until("the gateway", lambda: alias in models(gateway.url, key), child, 30)
    return gateway


def write_private(path, text):
    """Keys are in these files."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def models(url, key):
    """The names this key may call; none while the gateway is not up."""
    request = urllib.request.Request(url + "/v1/models", headers={"Authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return [row["id"] for row in json.load(reply)["data"]]
    except urllib.error.HTTPError as error:
        raise DemoError(f"the gateway answered {error.code} on /v1/models: {error.read(300).decode(errors='replace')}") from None
    except OSError:
        return []
