"""What the demo says: answers, latency, lines to paste, and whether the answers may be believed."""

import json
import textwrap

WIDTH = 92


def wrap(text, indent):
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent)


class Flow:
    """Breaks text that arrives in pieces into indented lines."""

    def __init__(self, write, indent="    "):
        self._write, self._indent, self._column, self._word = write, indent, 0, ""

    def feed(self, text):
        for char in text:
            if char.isspace():
                self._put_word()
            else:
                self._word += char

    def end(self):
        self._put_word()

    def _put_word(self):
        word, self._word = self._word, ""
        if not word:
            return
        if self._column and self._column + 1 + len(word) <= WIDTH:
            self._write(f" {word}")
            self._column += 1 + len(word)
        else:
            self._write(("\n" if self._column else "") + self._indent + word)
            self._column = len(self._indent) + len(word)


def figures(answer):
    """One line about an answer."""
    line = f"{answer.prompt_tokens} tokens in, {answer.completion_tokens} out, {answer.seconds:.2f} s"
    writing = answer.seconds - answer.first_text
    if answer.first_text and answer.completion_tokens > 1 and writing > 0.01:
        line += f", first text after {answer.first_text:.2f} s, then {answer.completion_tokens / writing:.0f} tokens/s"
    return line


def latency_lines(latency):
    """The comparison, and how much to believe it."""
    lines = [
        f"Added latency: {latency.added:.2f} ms ± {latency.error:.2f}",
        f"(medians of the same one-token request {latency.rounds} times each way, less the computing time that the model "
        f"reports: {latency.direct:.2f} ms direct, {latency.through:.2f} ms through the gateway)",
    ]
    if latency.added < 2 * latency.error:
        lines.append("That is within the scatter of single requests; `make bench` measures the gateway by itself.")
    return lines


def snippets(url, key, alias, question):
    """Ready to paste: curl, streamed curl, the OpenAI SDK."""
    body = {"model": alias, "messages": [{"role": "user", "content": question}]}

    def curl(extra, flag=""):
        return (
            f"curl {flag}{url}/v1/chat/completions \\\n"
            f'  -H "Authorization: Bearer {key}" -H "Content-Type: application/json" \\\n'
            f"  -d '{json.dumps({**body, **extra})}'"
        )

    sdk = (
        "from openai import OpenAI  # pip install openai\n\n"
        f'client = OpenAI(base_url="{url}/v1", api_key="{key}")\n'
        f'reply = client.chat.completions.create(model="{alias}", messages={json.dumps(body["messages"])})\n'
        "print(reply.choices[0].message.content)"
    )
    return curl({}), curl({"stream": True}, "-N "), sdk


def problems(buffered, streamed, alias, generated=None):
    """Everything that speaks against the two answers; `generated` is the model server's own token count for them."""
    found = []
    for kind, answer in (("buffered", buffered), ("streamed", streamed)):
        said = [
            (answer.text.strip(), "the answer is empty"),
            (answer.prompt_tokens > 0 and answer.completion_tokens > 0, "no token usage was reported"),
            (answer.finish_reason in ("stop", "length"), f"finish_reason is {answer.finish_reason or 'missing'!r}"),
            (answer.model == alias, f"the reply names model {answer.model!r}, not {alias!r}"),
            (answer.done, "the end marker [DONE] is missing"),
        ]
        found += [f"{kind}: {text}" for good, text in said if not good]
        found += [f"{kind}: {text}" for text in answer.errors]
    if streamed.chunks < 3:
        found.append(f"streamed: arrived in {streamed.chunks} piece(s), not as a stream")
    told = buffered.completion_tokens + streamed.completion_tokens
    if generated is not None and generated < told:
        found.append(f"the model server generated {generated:.0f} tokens, the gateway reported {told}: not its answers")
    return found
