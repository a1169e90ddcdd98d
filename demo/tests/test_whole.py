"""The demo as a person runs it, with a stub in place of the gateway binary: exit codes, words, cleaning up."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
DEMO = os.path.join(HERE, "..", "demo.py")


class Whole(unittest.TestCase):
    def setUp(self):
        self.temp = tempfile.TemporaryDirectory()
        self.addCleanup(self.temp.cleanup)

    def start(self, *arguments, **environment):
        env = {**os.environ, "GATEWAY_BIN": os.path.join(HERE, "stub_gateway.py"), "TMPDIR": self.temp.name, **environment}
        process = subprocess.Popen(
            [sys.executable, DEMO, *arguments], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.addCleanup(process.stdout.close)
        self.addCleanup(process.kill)
        # Output that never ends is a failure, not a wait.
        watchdog = threading.Timer(60, process.kill)
        watchdog.daemon = True
        watchdog.start()
        self.addCleanup(watchdog.cancel)
        return process

    def run_to_end(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        output = process.stdout.read()
        return process.wait(60), output

    def assert_nothing_left(self):
        self.assertEqual(os.listdir(self.temp.name), [])

    def test_check_fails_without_a_model_and_says_why(self):
        code, output = self.run_to_end("--check", "--no-model")
        self.assertEqual(code, 1, output)
        self.assertIn("came from the built-in echo provider, not from a model", output)
        self.assertTrue(output.endswith("demo-check: failed\n"))
        self.assert_nothing_left()

    def test_check_accepts_echo_when_told_to(self):
        code, output = self.run_to_end("--check", "--no-model", "--allow-echo")
        self.assertEqual(code, 0, output)
        self.assertTrue(output.endswith("demo-check: passed\n"))
        self.assert_nothing_left()

    def test_a_gateway_that_does_not_start_is_told_in_its_own_words(self):
        code, output = self.run_to_end("--check", "--no-model", STUB_DIES="1")
        self.assertEqual(code, 1, output)
        self.assertIn("Error: the stub will not start", output)
        self.assertNotIn("Traceback", output)
        self.assert_nothing_left()

    def test_signals_stop_everything(self):
        for number, expected in ((signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 143)):
            with self.subTest(number):
                process = self.start("--no-model")
                lines = []
                for line in process.stdout:
                    lines.append(line)
                    if line.startswith("Running."):
                        break
                port = int(re.search(r"Callers +http://127\.0\.0\.1:(\d+)", "".join(lines))[1])
                process.send_signal(number)
                rest = process.stdout.read()
                self.assertEqual(process.wait(60), expected, rest)
                self.assertNotIn("Traceback", rest)
                self.assert_nothing_left()
                with socket.socket() as probe:
                    self.assertNotEqual(probe.connect_ex(("127.0.0.1", port)), 0, "the gateway still listens")


if __name__ == "__main__":
    unittest.main()
