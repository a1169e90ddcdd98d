"""Reading streams, folding them, and the latency figures."""

import unittest

from aisix_demo import chat


def fold_all(raw):
    answer = chat.Answer()
    for event, data in chat.events(raw.encode().splitlines(keepends=True)):
        chat.fold(answer, event, data)
    return answer


class Streams(unittest.TestCase):
    def test_chunks_join_to_the_text(self):
        answer = fold_all(
            'data: {"model":"m","choices":[{"delta":{"role":"assistant","content":null}}]}\n\n'
            ": keep-alive\n\n"
            'data: {"model":"m","choices":[{"delta":{"content":"Grüß "}}]}\r\n\r\n'
            'data: {"model":"m","choices":[{"delta":{"content":"Gott"},"finish_reason":"stop"}]}\n\n'
            'data: {"model":"m","choices":[],"usage":{"prompt_tokens":4,"completion_tokens":2}}\n\n'
            "data: [DONE]\n\n"
        )
        self.assertEqual(answer.text, "Grüß Gott")
        self.assertEqual((answer.finish_reason, answer.prompt_tokens, answer.completion_tokens), ("stop", 4, 2))
        self.assertEqual((answer.chunks, answer.done, answer.errors), (4, True, []))

    def test_an_error_event_is_kept_and_is_not_text(self):
        answer = fold_all('data: {"choices":[{"delta":{"content":"a"}}]}\n\nevent: error\ndata: {"error":{}}\n\n')
        self.assertEqual(answer.text, "a")
        self.assertFalse(answer.done)
        self.assertEqual(len(answer.errors), 1)

    def test_an_event_without_its_blank_line_is_incomplete(self):
        self.assertEqual(list(chat.events([b"data: x\n"])), [])

    def test_several_data_lines_are_one_event(self):
        self.assertEqual(list(chat.events([b"data: a\n", b"data:b\n", b"\n"])), [("message", "a\nb")])


class Replies(unittest.TestCase):
    def test_the_model_s_own_time_is_read_when_it_is_told(self):
        answer = chat.Answer()
        chat.take(answer, {"timings": {"prompt_ms": 3.0, "predicted_ms": 7.0}}, "message")
        self.assertAlmostEqual(answer.model_seconds, 0.010)
        chat.take(answer, {}, "message")
        self.assertEqual(answer.model_seconds, 0)

    def test_a_reply_without_choices_or_content_is_empty_not_an_error(self):
        for reply in ({}, {"choices": []}, {"choices": [{"message": {"content": None}}]}, {"usage": None}):
            answer = chat.Answer()
            chat.take(answer, reply, "message")
            self.assertEqual((answer.text, answer.completion_tokens), ("", 0))


class LatencyFigures(unittest.TestCase):
    def test_difference_of_medians_ignores_outliers(self):
        direct, through = [10.0, 10.2, 9.8] * 20 + [500.0], [10.5, 10.7, 10.3] * 20 + [900.0]
        latency = chat.summarise(direct, through)
        self.assertAlmostEqual(latency.added, 0.5)
        self.assertLess(latency.error, 0.2)

    def test_error_shrinks_with_the_number_of_rounds(self):
        few, many = [9.0, 10.0, 11.0] * 4, [9.0, 10.0, 11.0] * 64
        self.assertAlmostEqual(chat.median_error(few) / chat.median_error(many), 4.0, delta=0.3)

    def test_rounds_alternate_and_warm_up_is_not_counted(self):
        order = []

        class Fake:
            def __init__(self, name, seconds):
                self.name, self.seconds = name, seconds

            def buffered(self, body):
                order.append(self.name)
                thinking = 0.1 * len(order)
                seconds = thinking + self.seconds if len(order) > 4 else 99
                return chat.Answer(seconds=seconds, model_seconds=thinking)

        latency = chat.compare(Fake("d", 0.010), Fake("t", 0.012), {}, rounds=6, warm_up=2)
        self.assertEqual("".join(order[4:]), "tddt" * 3)
        self.assertAlmostEqual(latency.added, 2.0)
        self.assertEqual(latency.rounds, 6)


if __name__ == "__main__":
    unittest.main()
