"""Configuration text, ports, processes, and reading what other programs print."""

import io
import json
import os
import socket
import sys
import tempfile
import time
import unittest
from unittest import mock

from aisix_demo import DemoError, gateway, model, process


class Config(unittest.TestCase):
    def test_every_listener_has_its_port_and_the_admin_its_key(self):
        text = gateway.config_yaml("/tmp/r.yaml", (1, 2, 3), "adm")
        for line in ('resources_file: "/tmp/r.yaml"', "addr: 127.0.0.1:1\n", "addr: 127.0.0.1:2\n", "addr: 127.0.0.1:3\n", '["adm"]'):
            self.assertIn(line, text)

    def test_resources_name_the_model_or_the_echo_provider(self):
        self.assertIn('api_base: "http://h/v1"', gateway.resources_yaml("m", "http://h/v1"))
        echo = gateway.resources_yaml("echo")
        self.assertNotIn("api_base", echo)
        self.assertEqual(echo.count("provider: echo"), 2)

    def test_settings_in_the_environment_do_not_reach_the_gateway(self):
        with mock.patch.dict(os.environ, {"AISIX_CONFIG": "x", "HOME": "/h"}):
            env = gateway.clean_environment({"A": "1"})
        self.assertNotIn("AISIX_CONFIG", env)
        self.assertEqual((env["HOME"], env["A"]), ("/h", "1"))

    def test_files_with_keys_are_private(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "f")
            gateway.write_private(path, "key")
            self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)


class Build(unittest.TestCase):
    @staticmethod
    def line(**fields):
        return json.dumps(fields) + "\n"

    def test_the_binary_is_taken_from_cargo(self):
        lines = [
            self.line(reason="compiler-artifact", target={"name": "other"}, executable="/no"),
            self.line(reason="compiler-artifact", target={"name": "aisix"}, executable=None),
            self.line(reason="compiler-artifact", target={"name": "aisix"}, executable="/t/aisix"),
            self.line(reason="build-finished", success=True),
        ]
        self.assertEqual(gateway.executable(lines), "/t/aisix")

    def test_a_failed_build_has_none(self):
        self.assertIsNone(gateway.executable([self.line(reason="build-finished", success=False)]))

    def test_a_given_binary_is_taken_as_it_is_and_must_be_one(self):
        with mock.patch.dict(os.environ, {"GATEWAY_BIN": os.path.relpath(sys.executable)}):
            self.assertEqual(gateway.build(), os.path.abspath(os.path.relpath(sys.executable)))
        with mock.patch.dict(os.environ, {"GATEWAY_BIN": "/no/such/file"}), self.assertRaisesRegex(DemoError, "/no/such/file"):
            gateway.build()

    def test_without_rust_it_says_so(self):
        with mock.patch.dict(os.environ, {"PATH": ""}), self.assertRaisesRegex(DemoError, "Rust is missing"):
            os.environ.pop("GATEWAY_BIN", None)
            gateway.build()


class Ports(unittest.TestCase):
    def test_taken_ports_are_replaced_and_all_differ(self):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            busy = taken.getsockname()[1]
            ports = process.pick_ports((busy, 0, 0))
        self.assertNotIn(busy, ports)
        self.assertEqual(len(set(ports)), 3)

    def test_a_free_port_is_kept(self):
        (free,) = process.pick_ports((0,))
        self.assertEqual(process.pick_ports((free,)), [free])


class Processes(unittest.TestCase):
    def test_leaving_the_block_ends_the_whole_session(self):
        with tempfile.TemporaryDirectory() as folder:
            log = os.path.join(folder, "log")
            script = "import subprocess,time; print(subprocess.Popen(['sleep','60']).pid, flush=True); time.sleep(60)"
            with process.Child("it", [sys.executable, "-c", script], log) as child:
                grandchild = int(process.wait_until("it", lambda: child.log().strip(), child, 20))
            self.assertFalse(child.running())
            deadline = time.monotonic() + 10
            while is_alive(grandchild) and time.monotonic() < deadline:
                time.sleep(0.02)
            self.assertFalse(is_alive(grandchild))

    def test_a_process_that_ignores_the_request_is_forced(self):
        with tempfile.TemporaryDirectory() as folder:
            log = os.path.join(folder, "log")
            script = "import signal,time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
            child = process.Child("it", [sys.executable, "-c", script], log)
            process.wait_until("it", child.log, child, 20)
            child.stop(grace=0.2)
            self.assertEqual(child.process.returncode, -9)

    def test_a_death_while_waiting_is_told_with_its_last_words(self):
        with tempfile.TemporaryDirectory() as folder:
            log = os.path.join(folder, "log")
            with process.Child("it", ["sh", "-c", "echo Error: no such port; exit 3"], log) as child:
                with self.assertRaisesRegex(DemoError, "it ended with code 3(.|\n)*no such port"):
                    process.wait_until("it", lambda: False, child, 20)

    def test_the_ticker_says_what_goes_on(self):
        out = io.StringIO()
        with mock.patch.object(process, "TICK_LOG", 0.01), process.Ticker("downloading", out) as ticker:
            deadline = time.monotonic() + 10
            while out.getvalue().count("\n") < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
        self.assertIn("downloading ...", out.getvalue())
        self.assertGreater(out.getvalue().count("\n"), 1)
        self.assertGreater(ticker.seconds(), 0)


def is_alive(pid):
    """Running, not merely waiting for its parent to notice its end."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return sys.platform != "linux"
    except ProcessLookupError:
        return False


class ModelServer(unittest.TestCase):
    def test_pip_output_becomes_one_reason(self):
        for output, reason in (
            ("WARNING: Retrying ... NewConnectionError('Temporary failure in name resolution')", "no network"),
            ("ERROR: No matching distribution found for x", "no build"),
            ("OSError: [Errno 28] No space left on device", "disk is full"),
            ("ERROR: something else\n", "pip failed: something else"),
        ):
            self.assertIn(reason, model.why_pip_failed(output))

    def test_counter_is_read_exactly(self):
        text = "# TYPE a counter\na_total 12\nab_total 3e2\n"
        self.assertEqual(model.counter(text, "ab_total"), 300)
        with self.assertRaises(DemoError):
            model.counter(text, "b_total")

    def test_old_python_is_told(self):
        with mock.patch.object(model.sys, "version_info", (3, 9, 1)), self.assertRaisesRegex(
            model.ModelUnavailable, "needs Python 3.10, this is 3.9"
        ):
            model.install()

    def test_the_environment_is_made_anew_when_the_list_changes(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "requirements.txt")
            stamps = []
            for text in ("a==1", "a==2"):
                with open(path, "w", encoding="utf-8") as file:
                    file.write(text)
                stamps.append(model.stamp(path))
            self.assertNotEqual(*stamps)


if __name__ == "__main__":
    unittest.main()
