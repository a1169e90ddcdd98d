"""Child processes that never outlive the demo, loopback ports, and waiting with progress."""

import ctypes
import os
import signal
import socket
import subprocess
import sys
import threading
import time

from . import DemoError

TICK_TTY, TICK_LOG = 0.5, 15.0


class Stopped(Exception):
    """SIGTERM or SIGHUP arrived."""


def stop_on_signals():
    """Turn termination into an exception, so that every `finally` and ExitStack runs."""

    def handler(number, _frame):
        raise Stopped(signal.Signals(number).name)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, handler)
    # A shell starts background jobs with SIGINT ignored; Ctrl-C handling must not depend on that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _die_with_parent():
    """Linux: ask the kernel to end the child when the demo is killed without a chance to clean up."""
    try:
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)
    except (OSError, AttributeError):
        pass


class Child:
    """A process in a session of its own, so that Ctrl-C reaches only the demo, which then stops it in order."""

    def __init__(self, name, argv, log_path=None, env=None, cwd=None, pipe_stdin=False):
        self.name, self.log_path = name, log_path
        self._log = open(log_path, "wb") if log_path else None
        self.process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE if pipe_stdin else subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env=env,
            cwd=cwd,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform.startswith("linux") else None,
        )

    def running(self):
        return self.process.poll() is None

    def log(self):
        """What it has printed so far."""
        if not self.log_path:
            return ""
        with open(self.log_path, "r", encoding="utf-8", errors="replace") as file:
            return file.read()

    def stop(self, grace=10.0):
        """Ask, wait, then force. Safe to call twice."""
        try:
            if self.running():
                self.process.terminate()
                self.process.wait(grace)
        except subprocess.TimeoutExpired:
            pass
        finally:
            try:
                # The session may hold grandchildren (a compiler, say) even when its leader has gone.
                os.killpg(self.process.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            self.process.wait()
            for stream in (self.process.stdin, self._log):
                if stream:
                    stream.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def must_run(self):
        """Raise with the last lines of its log if it has ended."""
        if not self.running():
            raise DemoError(
                f"{self.name} ended with code {self.process.returncode}\n{tail(self.log())}".rstrip()
            )


class Ticker:
    """Shows that something slow is alive: one changing line on a terminal, a line now and then in a log."""

    def __init__(self, text, out=None):
        self.text, self.out = text, out or sys.stdout
        self.started = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        tty = self.out.isatty()
        while not self._done.wait(TICK_TTY if tty else TICK_LOG):
            if tty:
                self.out.write(f"\r      {self.text} ... {self.seconds():.0f} s ")
            else:
                self.out.write(f"      ... {self.seconds():.0f} s\n")
            self.out.flush()

    def seconds(self):
        return time.monotonic() - self.started

    def __enter__(self):
        if not self.out.isatty():
            self.out.write(f"      {self.text} ...\n")
            self.out.flush()
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._done.set()
        self._thread.join()
        if self.out.isatty():
            self.out.write("\r\033[K")
            self.out.flush()


def run_logged(name, argv, log_path, text, env=None, cwd=None):
    """Run to the end behind a ticker. Returns (code, output)."""
    with Child(name, argv, log_path, env=env, cwd=cwd) as child, Ticker(text):
        code = child.process.wait()
        return code, child.log()


def tail(text, lines=12):
    """The last lines of a log, indented."""
    kept = [line for line in text.splitlines() if line.strip()][-lines:]
    return "\n".join(f"      | {line}" for line in kept)


def is_free(port, host="127.0.0.1"):
    """Whether a listener could be opened there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            return True
        except OSError:
            return False


def pick_ports(preferred):
    """Each preferred port if it is free, else one the system offers; all different."""
    ports, held = [], []
    try:
        for port in preferred:
            if not port or port in ports or not is_free(port):
                probe = socket.socket()
                probe.bind(("127.0.0.1", 0))
                held.append(probe)
                port = probe.getsockname()[1]
            ports.append(port)
        return ports
    finally:
        for probe in held:
            probe.close()


def wait_until(what, ready, child, seconds):
    """Poll `ready()` until it returns something true; the child's death ends the wait at once."""
    deadline = time.monotonic() + seconds
    while True:
        child.must_run()
        result = ready()
        if result:
            return result
        if time.monotonic() > deadline:
            raise DemoError(f"{what} did not come up within {seconds:.0f} s\n{tail(child.log())}".rstrip())
        time.sleep(0.05)
