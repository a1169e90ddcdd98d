"""The real small model through the gateway."""

import json
import os
import time
import urllib.request

import pytest
from pydantic import BaseModel

from conftest import REQUEST_ID, text_of, user

ASK = {
    "model": "real", "messages": user("Tell me in one sentence what an API gateway does."), "max_tokens": 40,
    "temperature": 0, "extra_body": {"cache_prompt": False},
}


def model_counter(name):
    with urllib.request.urlopen(os.environ["MODEL_URL"] + "/metrics", timeout=10) as reply:
        values = dict(line.rsplit(" ", 1) for line in reply.read().decode().splitlines() if not line.startswith("#"))
    return float(values[f"llamacpp:{name}"])


def test_buffered_and_streamed_say_the_same(client):
    before = model_counter("tokens_predicted_total")
    buffered = client.chat.completions.create(**ASK)
    with client.chat.completions.stream(**ASK, stream_options={"include_usage": True}) as stream:
        for _ in stream:
            pass
        streamed = stream.get_final_completion()
    assert buffered.model == streamed.model == "real"
    assert len(buffered.choices[0].message.content) > 20
    assert streamed.choices[0].message.content == buffered.choices[0].message.content
    assert streamed.choices[0].finish_reason == buffered.choices[0].finish_reason
    assert streamed.usage.completion_tokens == buffered.usage.completion_tokens > 5
    assert streamed.usage.prompt_tokens == buffered.usage.prompt_tokens > 5
    generated = model_counter("tokens_predicted_total") - before
    assert generated == 2 * buffered.usage.completion_tokens, "the answers did not come from the model"


def test_the_stream_arrives_piece_by_piece(client):
    stream = client.chat.completions.create(**ASK, stream=True)
    pieces = [chunk for chunk in stream if chunk.choices and chunk.choices[0].delta.content]
    assert len(pieces) > 5


@pytest.mark.anyio
async def test_async_stream(async_client):
    stream = await async_client.chat.completions.create(**ASK, stream=True)
    assert len("".join([chunk.choices[0].delta.content or "" async for chunk in stream])) > 20


class Person(BaseModel):
    name: str
    age: int


def test_structured_output(client):
    reply = client.chat.completions.parse(
        model="real", messages=user("A person: Ann, 31"), max_tokens=80, temperature=0, response_format=Person)
    assert isinstance(reply.choices[0].message.parsed, Person)


def test_logprobs_and_choices(client):
    reply = client.chat.completions.create(
        model="real", messages=user("Hi"), max_tokens=3, temperature=0, n=2, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in reply.choices] == [0, 1]
    tokens = reply.choices[0].logprobs.content
    assert len(tokens) == 3 and all(token.logprob <= 0 and len(token.top_logprobs) == 2 for token in tokens)


def test_length_is_the_reason_when_it_is_cut(client):
    reply = client.chat.completions.create(**{**ASK, "max_tokens": 2})
    assert (reply.choices[0].finish_reason, reply.usage.completion_tokens) == ("length", 2)


def test_leaving_a_stream_frees_the_model(client):
    long = {**ASK, "max_tokens": 1500, "extra_body": {"ignore_eos": True}}
    with client.chat.completions.with_streaming_response.create(**long, stream=True) as raw:
        assert raw.headers[REQUEST_ID]
        before = [line for line, _ in zip(raw.iter_lines(), range(10)) if line]
    assert json.loads(before[0].removeprefix("data: "))["model"] == "real"
    # A model still busy with the abandoned 1,500 tokens would take some fifteen seconds to come to rest.
    deadline = time.monotonic() + 5
    while model_counter("requests_processing") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert model_counter("requests_processing") == 0
    assert len(text_of(client.chat.completions.create(**ASK, stream=True))) > 20
