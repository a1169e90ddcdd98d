"""Clients for the gateway that run.py has started; the addresses and keys are in the environment."""

import json
import os
import urllib.request

import openai
import pytest

URL = os.environ["GATEWAY_URL"]
BASE = URL + "/v1"
ALL, LIMITED = os.environ["KEY_ALL"], os.environ["KEY_LIMITED"]
REQUEST_ID = "x-aisix-request-id"


def make(key=ALL, **options):
    """An ordinary client; retries off, so that each test sees the first answer."""
    return openai.OpenAI(**{"base_url": BASE, "api_key": key, "max_retries": 0, "timeout": 30, **options})


@pytest.fixture(scope="session")
def client():
    with make() as made:
        yield made


@pytest.fixture
async def async_client():
    async with openai.AsyncOpenAI(base_url=BASE, api_key=ALL, max_retries=0, timeout=30) as made:
        yield made


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"


@pytest.fixture
def journal():
    """What the fake upstream saw of a request, once it has ended."""

    def read(request_id):
        with urllib.request.urlopen(f"{os.environ['FAKE_URL']}/_journal/{request_id}", timeout=15) as reply:
            return json.load(reply)

    return read


def user(content):
    return [{"role": "user", "content": content}]


def text_of(stream):
    """The joined text of the first choice of a stream."""
    return "".join(choice.delta.content or "" for chunk in stream for choice in chunk.choices if choice.index == 0)


def pytest_collection_modifyitems(config, items):
    """Only `run.py --fake-only` goes without the real model."""
    if not os.environ["MODEL_URL"]:
        real = [item for item in items if "test_real" in item.nodeid]
        config.hook.pytest_deselected(items=real)
        items[:] = [item for item in items if item not in real]
