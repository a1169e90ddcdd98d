"""Every failure arrives as the exception class the SDK has for it."""

import os

import openai
import pytest

from conftest import LIMITED, REQUEST_ID, make, user


def fail(kind, client, **request):
    with pytest.raises(kind) as caught:
        client.chat.completions.create(**{"messages": user("x"), **request})
    error = caught.value
    if isinstance(error, openai.APIStatusError):
        assert type(error) is kind, f"{type(error)} is not exactly {kind}"
        assert error.response.headers[REQUEST_ID]
        assert error.response.headers["content-type"].startswith("application/json")
        assert isinstance(error.body, dict) and error.body["message"]
    return error


@pytest.mark.parametrize("key, code", [
    ("sk-wrong", None), (os.environ["KEY_EXPIRED"], "api_key_expired"), (os.environ["KEY_DISABLED"], "api_key_disabled")])
def test_keys_that_do_not_open(key, code):
    error = fail(openai.AuthenticationError, make(key), model="echo")
    assert (error.type, error.code) == ("invalid_api_key", code)
    with pytest.raises(openai.AuthenticationError):
        make(key).models.list()


def test_forbidden_and_unknown_models(client):
    forbidden = fail(openai.PermissionDeniedError, make(LIMITED), model="impatient")
    assert forbidden.type == "permission_denied" and '"impatient"' in forbidden.message
    unknown = fail(openai.NotFoundError, client, model="no-such-model")
    assert unknown.type == "model_not_found" and '"no-such-model"' in unknown.message


def test_requests_the_gateway_refuses(client):
    assert "messages" in fail(openai.BadRequestError, client, model="echo", messages=[]).message
    assert fail(openai.BadRequestError, client, model="echo", messages=[{"role": "wizard", "content": "x"}]).type == "invalid_request_error"


@pytest.mark.parametrize("status, kind", [
    (400, openai.BadRequestError), (401, openai.AuthenticationError), (403, openai.PermissionDeniedError),
    (404, openai.NotFoundError), (409, openai.ConflictError), (422, openai.UnprocessableEntityError),
    (429, openai.RateLimitError)])
@pytest.mark.parametrize("stream", [False, True])
def test_client_errors_of_the_upstream(client, status, kind, stream):
    error = fail(kind, client, model=f"broken/error-{status}", stream=stream)
    assert error.status_code == status and error.type == "upstream_error"
    assert error.body["message"] == f"the fake fails with error-{status}"
    assert (error.code, error.param) == (f"fake_{status}", "fake_param")
    assert error.response.headers.get("retry-after") == ("7" if status == 429 else None)


@pytest.mark.parametrize("status", [500, 503])
def test_server_errors_of_the_upstream_do_not_show_its_text(client, status):
    error = fail(openai.InternalServerError, client, model=f"broken/error-{status}")
    assert error.status_code == 502 and error.type == "upstream_error"
    assert error.body["message"] == f"upstream returned {status}"


def test_upstream_that_refuses_connections(client):
    error = fail(openai.InternalServerError, client, model="unreachable")
    assert error.status_code == 502 and error.type == "transport_error"


def test_deadline_of_the_gateway(client):
    error = fail(openai.InternalServerError, client, model="impatient")
    assert error.status_code == 504 and error.type == "timeout"


def test_deadline_of_the_client():
    with make(timeout=0.3) as client:
        fail(openai.APITimeoutError, client, model="fake/slow")
        assert client.chat.completions.create(model="echo", messages=user("x")).choices[0].message.content == "x"


@pytest.mark.parametrize("model", ["broken/cut", "broken/cut-clean"])
def test_a_cut_stream_is_an_error_not_a_short_answer(client, model):
    got = []
    with pytest.raises(openai.APIError):
        for chunk in client.chat.completions.create(model=model, messages=user("a b c d e f g"), stream=True):
            got += [choice.delta.content or "" for choice in chunk.choices]
    assert "".join(got).startswith("a")


def test_unknown_path_and_wrong_method_have_an_envelope(client):
    with pytest.raises(openai.NotFoundError) as missing:
        client.post("/no/such/path", cast_to=object, body={})
    assert missing.value.code == "not_found"
    with pytest.raises(openai.APIStatusError) as wrong:
        client.get("/chat/completions", cast_to=object)
    assert (wrong.value.status_code, wrong.value.code) == (405, "method_not_allowed")
    assert "POST" in wrong.value.response.headers["allow"]


def test_the_sdk_retries_what_the_gateway_reports_as_a_server_error(client):
    assert fail(openai.InternalServerError, client, model="broken/flaky", messages=user("once")).status_code == 502
    with make(max_retries=1) as patient:
        reply = patient.chat.completions.create(model="broken/flaky", messages=user("twice"))
    assert reply.choices[0].message.content == "twice"
