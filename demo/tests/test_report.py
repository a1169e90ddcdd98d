"""What is said, and when the answers are believed."""

import dataclasses
import json
import shlex
import unittest

from aisix_demo import chat, report

GOOD = chat.Answer(
    text="Hello there", model="m", finish_reason="stop", prompt_tokens=5, completion_tokens=2, seconds=0.5, chunks=4, done=True
)


class Problems(unittest.TestCase):
    def check(self, expected, buffered=None, streamed=None, generated=4):
        found = report.problems(
            dataclasses.replace(GOOD, **(buffered or {})), dataclasses.replace(GOOD, **(streamed or {})), "m", generated
        )
        self.assertEqual(len(found), 1 if expected else 0, found)
        if expected:
            self.assertIn(expected, found[0])

    def test_good_answers_pass(self):
        self.check(None)
        self.check(None, generated=None)

    def test_each_flaw_is_found(self):
        self.check("buffered: the answer is empty", buffered={"text": " \n"})
        self.check("streamed: the answer is empty", streamed={"text": ""})
        self.check("no token usage", buffered={"prompt_tokens": 0})
        self.check("finish_reason is 'missing'", streamed={"finish_reason": ""})
        self.check("names model 'other'", buffered={"model": "other"})
        self.check("[DONE] is missing", streamed={"done": False})
        self.check("streamed: cut", streamed={"errors": ["cut"]})
        self.check("not as a stream", streamed={"chunks": 1})
        self.check("not its answers", generated=3)


class Text(unittest.TestCase):
    def test_curl_lines_are_valid_shell_and_json(self):
        plain, streamed, sdk = report.snippets("http://127.0.0.1:1", "sk-1", "m", "What is 'this'?".replace("'", ""))
        for line, stream in ((plain, None), (streamed, True)):
            words = shlex.split(line.replace("\\\n", " "))
            body = json.loads(words[words.index("-d") + 1])
            self.assertEqual(body["model"], "m")
            self.assertEqual(body.get("stream"), stream)
            self.assertIn("http://127.0.0.1:1/v1/chat/completions", words)
            self.assertIn("Authorization: Bearer sk-1", words)
        compile(sdk, "sdk", "exec")

    def test_latency_says_when_it_is_only_noise(self):
        self.assertEqual(len(report.latency_lines(chat.Latency(10.0, 10.1, 0.2, 80))), 3)
        clear = report.latency_lines(chat.Latency(10.0, 11.0, 0.2, 80))
        self.assertEqual(len(clear), 2)
        self.assertIn("1.00 ms", clear[0])

    def test_flow_breaks_lines_and_keeps_every_word(self):
        words = [f"word{number}" for number in range(60)]
        text, out = " ".join(words), []
        flow = report.Flow(out.append)
        for start in range(0, len(text), 3):
            flow.feed(text[start:start + 3])
        flow.end()
        shown = "".join(out)
        self.assertEqual(shown.split(), words)
        self.assertTrue(all(len(line) <= report.WIDTH for line in shown.splitlines()))


if __name__ == "__main__":
    unittest.main()
