"""Chats, buffered and streamed, sync and async."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from openai import Omit

from conftest import ALL, BASE, LIMITED, REQUEST_ID, make, text_of, user

UNICODE = "Grüße 世界 👩‍👩‍👧 e\u0301 \u200f\u05e9\u05dc\u05d5\u05dd \"quoted\" \\ back\nline\ttab"


def test_list_models(client):
    names = [model.id for model in client.models.list()]
    assert {"echo", "impatient", "unreachable"} <= set(names)
    assert names == sorted(names)
    assert not any("*" in name for name in names)


def test_list_models_shows_only_what_the_key_may_call():
    assert [model.id for model in make(LIMITED).models.list()] == ["echo"]


def test_buffered(client):
    reply = client.chat.completions.create(model="echo", messages=user("hello there"))
    choice = reply.choices[0]
    assert (choice.message.role, choice.message.content, choice.finish_reason) == ("assistant", "hello there", "stop")
    assert reply.model == "echo" and reply.id == "chatcmpl-fake" and reply.object == "chat.completion"
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens, reply.usage.total_tokens) == (2, 2, 4)
    assert reply.usage.completion_tokens_details.reasoning_tokens == 3


def test_fields_of_the_upstream_survive(client):
    reply = client.chat.completions.create(model="echo", messages=user("x"))
    assert reply.system_fingerprint == "fp_fake"
    assert reply.model_extra["x_vendor_extra"] == {"kept": [1, 2.5]}


def test_wildcard_model_answers_under_the_name_that_was_asked(client):
    reply = client.chat.completions.create(model="fake/echo", messages=user("x"))
    assert reply.model == "fake/echo"
    for chunk in client.chat.completions.create(model="fake/echo", messages=user("a b"), stream=True):
        assert chunk.model == "fake/echo"


def test_streamed(client):
    stream = list(client.chat.completions.create(model="echo", messages=user("one two three"), stream=True))
    assert text_of(stream) == "one two three"
    assert stream[0].choices[0].delta.role == "assistant"
    assert stream[-1].choices[0].finish_reason == "stop"
    assert {chunk.model for chunk in stream} == {"echo"} and len({chunk.id for chunk in stream}) == 1
    assert all(chunk.choices for chunk in stream), "a usage chunk nobody asked for"


def test_stream_usage_when_asked_for(client):
    stream = list(client.chat.completions.create(
        model="echo", messages=user("one two three"), stream=True, stream_options={"include_usage": True}))
    assert [chunk.usage.total_tokens for chunk in stream if chunk.usage] == [6]
    assert stream[-1].choices == []


def test_stream_helper_folds_to_the_buffered_reply(client):
    with client.chat.completions.stream(model="echo", messages=user("one two three")) as stream:
        events = [event.type for event in stream]
        folded = stream.get_final_completion()
    buffered = client.chat.completions.create(model="echo", messages=user("one two three"))
    assert folded.choices[0].message.content == buffered.choices[0].message.content
    assert events.count("content.done") == 1


@pytest.mark.anyio
async def test_async_buffered_and_streamed(async_client):
    reply = await async_client.chat.completions.create(model="echo", messages=user("hello"))
    assert reply.choices[0].message.content == "hello"
    stream = await async_client.chat.completions.create(model="echo", messages=user("a b c"), stream=True)
    assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == "a b c"


@pytest.mark.parametrize("model", ["echo", "fake/split"])
def test_unicode_survives(client, model):
    assert client.chat.completions.create(model=model, messages=user(UNICODE)).choices[0].message.content == UNICODE
    assert text_of(client.chat.completions.create(model=model, messages=user(UNICODE), stream=True)) == UNICODE


def test_raw_response_headers(client):
    raw = client.chat.completions.with_raw_response.create(model="echo", messages=user("x"))
    assert raw.headers[REQUEST_ID] and raw.headers["x-aisix-call-id"] == raw.headers[REQUEST_ID]
    assert raw.headers["server"].startswith("AISIX/")
    assert raw.parse().choices[0].message.content == "x"


def test_streamed_response_headers(client):
    with client.chat.completions.with_streaming_response.create(model="echo", messages=user("x"), stream=True) as raw:
        assert raw.headers["content-type"].startswith("text/event-stream")
        assert raw.headers[REQUEST_ID]
        lines = [line for line in raw.iter_lines() if line]
    assert lines[-1] == "data: [DONE]" and lines.count("data: [DONE]") == 1


def test_request_id_of_the_caller_is_kept_and_reaches_the_upstream(client, journal):
    raw = client.chat.completions.with_raw_response.create(
        model="echo", messages=user("x"), extra_headers={REQUEST_ID: "my-own-id-1"})
    assert raw.headers[REQUEST_ID] == "my-own-id-1"
    assert journal("my-own-id-1")["ended"] == "complete"


def test_caller_credentials_never_reach_the_upstream(client, journal):
    raw = client.chat.completions.with_raw_response.create(
        model="echo", messages=user("x"), extra_headers={"x-api-key": ALL, "cookie": "session=secret"})
    seen = journal(raw.headers[REQUEST_ID])
    assert seen["headers"]["authorization"] == "Bearer upstream-secret"
    assert seen["path"] == "/v1/chat/completions"
    assert ALL not in json.dumps(seen) and "session=secret" not in json.dumps(seen)


def test_x_api_key_header():
    headers = {"Authorization": Omit(), "x-api-key": ALL}
    with make("unused") as client:
        reply = client.chat.completions.create(model="echo", messages=user("x"), extra_headers=headers)
    assert reply.choices[0].message.content == "x"


def test_every_parameter_reaches_the_upstream_as_it_was_sent(client):
    sent = {
        "temperature": 0.7, "top_p": 0.95, "max_completion_tokens": 50, "stop": ["\n", "END"], "seed": 9007199254740993,
        "user": "someone", "metadata": {"a": "b"}, "frequency_penalty": -0.5, "logit_bias": {"50256": -100},
    }
    extra = {"vendor_option": {"deep": [1, None, {"x": 1e-7}]}, "top_k": 40}
    reply = client.chat.completions.create(model="fake/body", messages=user("x"), **sent, extra_body=extra)
    seen = json.loads(reply.choices[0].message.content)
    assert seen.pop("stream") is False and seen.pop("model") == "body" and seen.pop("messages") == user("x")
    assert seen == {**sent, **extra}


def test_every_role_is_relayed(client):
    messages = [
        {"role": "system", "content": "s"}, {"role": "developer", "content": "d"}, *user("u"),
        {"role": "assistant", "content": "a"}, *user([{"type": "text", "text": "part"}]),
    ]
    reply = client.chat.completions.create(model="fake/body", messages=messages)
    assert json.loads(reply.choices[0].message.content)["messages"] == messages


def test_two_choices(client):
    reply = client.chat.completions.create(model="echo", messages=user("a b"), n=2)
    assert [(choice.index, choice.message.content) for choice in reply.choices] == [(0, "a b"), (1, "a b")]
    texts = {0: "", 1: ""}
    for chunk in client.chat.completions.create(model="echo", messages=user("a b"), n=2, stream=True):
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == {0: "a b", 1: "a b"}


def test_logprobs(client):
    reply = client.chat.completions.create(model="echo", messages=user("a b"), logprobs=True)
    assert [(one.token, one.logprob) for one in reply.choices[0].logprobs.content] == [("a", -0.125), (" b", -0.125)]
    stream = client.chat.completions.create(model="echo", messages=user("a b"), logprobs=True, stream=True)
    assert [one.token for chunk in stream for choice in chunk.choices if choice.logprobs
            for one in choice.logprobs.content] == ["a", " b"]


@pytest.mark.parametrize("model", ["fake/reasoning", "fake/reasoning-short"])
def test_reasoning_content(client, model):
    message = client.chat.completions.create(model=model, messages=user("answer")).choices[0].message
    assert message.reasoning_content == "Let me think about this" and message.content == "answer"
    assert "reasoning" not in message.model_extra
    thought = ""
    for chunk in client.chat.completions.create(model=model, messages=user("answer"), stream=True):
        assert "reasoning" not in chunk.choices[0].delta.model_extra
        thought += getattr(chunk.choices[0].delta, "reasoning_content", None) or ""
    assert thought == "Let me think about this"


def test_refusal(client):
    message = client.chat.completions.create(model="fake/refusal", messages=user("x")).choices[0].message
    assert message.refusal == "I cannot help with that" and message.content is None


def test_a_stream_left_early_closes_the_upstream_and_the_client_goes_on(client, journal):
    with client.chat.completions.with_streaming_response.create(
            model="fake/slow-stream", messages=user("x"), stream=True) as raw:
        request_id = raw.headers[REQUEST_ID]
        seen = [line for line, _ in zip(raw.iter_lines(), range(6))]
    assert any("word" in line for line in seen)
    assert journal(request_id)["ended"] == "hung up"
    assert client.chat.completions.create(model="echo", messages=user("next")).choices[0].message.content == "next"


def test_a_megabyte_goes_both_ways(client):
    text = "0123456789abcdef" * 65536
    assert client.chat.completions.create(model="echo", messages=user(text)).choices[0].message.content == text


def test_many_at_once_do_not_mix(client):
    def one(number):
        if number % 2:
            return text_of(client.chat.completions.create(model="echo", messages=user(f"n {number}"), stream=True))
        return client.chat.completions.create(model="echo", messages=user(f"n {number}")).choices[0].message.content

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(one, range(128))) == [f"n {number}" for number in range(128)]


def test_base_url_with_a_trailing_slash():
    with make(base_url=BASE + "/") as client:
        assert client.chat.completions.create(model="echo", messages=user("x")).choices[0].message.content == "x"
