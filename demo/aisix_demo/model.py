"""The small language model: a private virtual environment, the server in it, and its own counters."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import urllib.request

from . import CACHE, ROOT, DemoError
from .process import Child, run_logged, wait_until

NAME = "SmolLM2-135M"
REQUIREMENTS = os.path.join(ROOT, "demo", "requirements.txt")
SERVER = os.path.join(ROOT, "demo", "model_server.py")
NEEDS_PYTHON = (3, 10)


class ModelUnavailable(DemoError):
    """No model on this machine; the text says what is missing."""


def why_pip_failed(output):
    """One line for a person out of pip's many."""
    if re.search(r"name resolution|Connection(Error| refused| reset)|NewConnectionError|timed out|ConnectTimeout|ProxyError", output, re.I):
        return "the package index cannot be reached (no network?)"
    if re.search(r"No matching distribution|Could not find a version", output):
        return "the package index has no build of the model server for this machine"
    if "No space left" in output:
        return "the disk is full"
    errors = [line for line in output.splitlines() if line.startswith("ERROR:")]
    return f"pip failed: {errors[-1][6:].strip()}" if errors else "pip failed"


def venv_python(folder):
    return os.path.join(folder, "bin", "python")


def stamp(requirements):
    """Changes whenever the environment has to be made anew."""
    with open(requirements, "rb") as file:
        digest = hashlib.sha256(file.read()).hexdigest()[:16]
    return f"{sys.version_info[0]}.{sys.version_info[1]} {digest}"


def ensure_venv(folder, requirements, text, pip_args=()):
    """A virtual environment with exactly these packages. Returns (its Python, whether it had to be made)."""
    python, marker = venv_python(folder), os.path.join(folder, "complete")
    wanted = stamp(requirements)
    try:
        with open(marker, encoding="utf-8") as file:
            if file.read() == wanted and subprocess.run([python, "-c", ""], check=False).returncode == 0:
                return python, False
    except OSError:
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(CACHE, exist_ok=True)
    log = folder + ".log"
    code, output = run_logged("venv", [sys.executable, "-m", "venv", folder], log, "making a virtual environment")
    if code:
        shutil.rmtree(folder, ignore_errors=True)
        hint = "Python's venv module is missing (Debian: apt-get install python3-venv)"
        raise ModelUnavailable(hint if "ensurepip" in output or "No module named" in output else "python -m venv failed")
    pip = [python, "-m", "pip", "install", "--disable-pip-version-check", "--retries", "2", "--timeout", "60"]
    code, output = run_logged("pip", [*pip, *pip_args, "-r", requirements], log, text)
    if code:
        shutil.rmtree(folder, ignore_errors=True)
        raise ModelUnavailable(f"{why_pip_failed(output)}; see {os.path.relpath(log, ROOT)}")
    with open(marker, "w", encoding="utf-8") as file:
        file.write(wanted)
    return python, True


def install():
    """The environment the model server runs in."""
    if sys.version_info < NEEDS_PYTHON:
        have = ".".join(map(str, sys.version_info[:2]))
        raise ModelUnavailable(f"the model server needs Python {'.'.join(map(str, NEEDS_PYTHON))}, this is {have}")
    folder = os.path.join(CACHE, "demo-venv")
    return ensure_venv(folder, REQUIREMENTS, f"installing {NAME} (about 130 MB to download)", ("--no-deps",))


class Model:
    """A running model server."""

    def __init__(self, child, url):
        self.child, self.url = child, url
        self.api_base = url + "/v1"

    def tokens_predicted(self):
        """Tokens this server has generated since it started, by its own count."""
        with urllib.request.urlopen(self.url + "/metrics", timeout=10) as reply:
            return counter(reply.read().decode(), "llamacpp:tokens_predicted_total")


def counter(exposition, name):
    """One value of a Prometheus text exposition."""
    found = re.search(rf"^{re.escape(name)} ([0-9.eE+]+)$", exposition, re.M)
    if not found:
        raise DemoError(f"the model server does not report {name}")
    return float(found.group(1))


def start(stack, python, folder):
    """Start the server and wait until it answers."""
    log = os.path.join(folder, "model.log")
    child = stack.enter_context(Child("the model server", [python, SERVER], log, pipe_stdin=True))

    def listening():
        # The server's own log may stand on the same line.
        found = re.search(r"listening (?:on )?(http://127\.0\.0\.1:\d+)(?=\D)", child.log())
        return found and found.group(1)

    url = wait_until("the model server", listening, child, 120)

    def healthy():
        try:
            with urllib.request.urlopen(url + "/health", timeout=5) as reply:
                return reply.status == 200
        except OSError:
            return False

    wait_until("the model server", healthy, child, 120)
    return Model(child, url)
