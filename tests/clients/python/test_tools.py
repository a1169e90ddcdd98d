"""Tools, structured output, images."""

import base64
import hashlib
import json
from typing import List, Literal

from pydantic import BaseModel

from conftest import text_of, user

PIXEL = "data:image/png;base64," + base64.b64encode(b"\x89PNG not really a picture").decode()


def tool(name):
    return {"type": "function", "function": {"name": name, "strict": True, "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"], "additionalProperties": False}}}


def test_tool_call_round_trip(client):
    messages = user("What is the weather in Zürich?")
    first = client.chat.completions.create(model="fake/tools", messages=messages, tools=[tool("get_weather")])
    message = first.choices[0].message
    assert first.choices[0].finish_reason == "tool_calls" and message.content is None
    (call,) = message.tool_calls
    assert call.function.name == "get_weather" and json.loads(call.function.arguments) == {"city": "Zürich"}
    messages += [message, {"role": "tool", "tool_call_id": call.id, "content": "4 °C, fog"}]
    second = client.chat.completions.create(model="fake/tools", messages=messages, tools=[tool("get_weather")])
    assert second.choices[0].message.content == "The tool says: 4 °C, fog"


def test_tool_choice_and_parallel_flag_reach_the_upstream(client):
    choice = {"type": "function", "function": {"name": "get_weather"}}
    reply = client.chat.completions.create(
        model="fake/body", messages=user("x"), tools=[tool("get_weather")], tool_choice=choice, parallel_tool_calls=False)
    seen = json.loads(reply.choices[0].message.content)
    assert seen["tool_choice"] == choice and seen["parallel_tool_calls"] is False
    assert seen["tools"] == [tool("get_weather")]


def test_parallel_tools_streamed(client):
    tools = [tool("get_weather"), tool("get_time")]
    with client.chat.completions.stream(model="fake/parallel-tools", messages=user("x"), tools=tools) as stream:
        for _ in stream:
            pass
        choice = stream.get_final_completion().choices[0]
    assert choice.finish_reason == "tool_calls"
    assert [(call.id, call.function.name, json.loads(call.function.arguments)) for call in choice.message.tool_calls] == [
        ("call_0", "get_weather", {"city": "Zürich"}), ("call_1", "get_time", {"city": "Kraków"})]


class Person(BaseModel):
    name: str
    age: int
    tags: List[str]
    mood: Literal["calm", "angry"]


def test_structured_output_parses_into_the_class(client):
    reply = client.chat.completions.parse(model="fake/json", messages=user("x"), response_format=Person)
    assert reply.choices[0].message.parsed == Person(name="Zoë", age=7, tags=["Zoë"], mood="calm")


def test_structured_output_streamed(client):
    with client.chat.completions.stream(model="fake/json", messages=user("x"), response_format=Person) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed.age == 7


def test_json_mode(client):
    ask = {"model": "fake/json", "messages": user("x"), "response_format": {"type": "json_object"}}
    assert json.loads(client.chat.completions.create(**ask).choices[0].message.content) == {"ok": True}
    assert json.loads(text_of(client.chat.completions.create(**ask, stream=True))) == {"ok": True}


def test_images_arrive_untouched_and_in_order(client):
    parts = [
        {"type": "text", "text": "first"},
        {"type": "image_url", "image_url": {"url": PIXEL, "detail": "low"}},
        {"type": "image_url", "image_url": {"url": "https://example.invalid/cat.png"}},
        {"type": "text", "text": "last"},
    ]
    reply = client.chat.completions.create(model="fake/vision", messages=user(parts))
    seen = json.loads(reply.choices[0].message.content)
    assert [part["type"] for part in seen] == ["text", "image_url", "image_url", "text"]
    assert seen[1] == {"type": "image_url", "detail": "low", "sha256": hashlib.sha256(PIXEL.encode()).hexdigest()}
    assert seen[2]["detail"] is None
