"""The official Python client against a running server: what it sends is understood, what it gets it can read."""

import base64
import json
import os
import re
import urllib.request
from pathlib import Path
from typing import Annotated, Literal

import openai
import pytest
from pydantic import BaseModel, Field

URL = os.environ["PYREX_URL"]
KEYED_URL = os.environ["PYREX_KEYED_URL"]
TOOLS_URL = os.environ["PYREX_TOOLS_URL"]
EXAMPLES = Path(__file__).parents[2] / "models/shapes/examples"
MODEL = "shapes"
ANSWER = "This is a simple image of a solid red circle on a white background."
# Of an answer that the model is sure of.
WILD = {"temperature": 5, "top_p": 1, "extra_body": {"top_k": -1}}
WHO = [{"role": "user", "content": "Who are you?"}]


def client(url=URL, key="none"):
    return openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0, timeout=60)


CLIENT = client()


def picture(name):
    data = base64.b64encode((EXAMPLES / name).read_bytes()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def describe(*names, question="Describe this image."):
    return [{"role": "user", "content": [*map(picture, names), {"type": "text", "text": question}]}]


def chat(messages, **more):
    return CLIENT.chat.completions.create(**{"model": MODEL, "messages": messages, "temperature": 0, **more})


def metric(name):
    """The sum of a metric over its labels."""
    text = urllib.request.urlopen(URL + "/metrics").read().decode()
    values = re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE)
    assert values, f"no {name} in the metrics"
    return sum(map(float, values))


def test_a_chat_is_answered_in_every_field():
    reply = chat(WHO)
    assert reply.object == "chat.completion" and reply.id.startswith("chatcmpl-") and reply.model == MODEL
    choice = reply.choices[0]
    assert choice.index == 0 and choice.finish_reason == "stop"
    assert choice.message.role == "assistant" and choice.message.content
    usage = reply.usage
    assert usage.prompt_tokens > 0 and usage.completion_tokens > 1
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_a_picture_is_described_to_the_letter():
    assert chat(describe("red_circle.png")).choices[0].message.content == ANSWER


def test_a_stream_says_what_the_whole_answer_says():
    chunks = list(chat(describe("red_circle.png"), stream=True, stream_options={"include_usage": True}))
    assert len({chunk.id for chunk in chunks}) == 1
    deltas = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert deltas[0].delta.role == "assistant" and deltas[-1].finish_reason == "stop"
    pieces = [choice.delta.content for choice in deltas if choice.delta.content]
    assert len(pieces) > 5 and "".join(pieces) == ANSWER
    assert chunks[-1].choices == [] and chunks[-1].usage.completion_tokens > 5
    assert all(chunk.usage is None for chunk in chunks[:-1])


def test_a_stream_without_options_has_no_usage():
    assert all(chunk.usage is None and chunk.choices for chunk in chat(WHO, stream=True))


def test_the_stream_helper_gathers_the_whole_answer():
    with CLIENT.chat.completions.stream(model=MODEL, messages=describe("red_circle.png"), temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "content.delta")
        whole = stream.get_final_completion()
    assert text == whole.choices[0].message.content == ANSWER


def test_a_conversation_of_several_turns_with_two_pictures_is_read():
    first = describe("red_circle.png", "pink_cross.png")
    turns = [{"role": "system", "content": "Answer briefly."}, *first, {"role": "assistant", "content": ANSWER}, *WHO]
    assert chat(turns, max_tokens=8).choices[0].message.content


def test_n_answers_differ_and_come_in_order():
    reply = chat(WHO, n=3, seed=7, max_tokens=12, **WILD)
    assert [choice.index for choice in reply.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in reply.choices}) > 1


def test_a_seed_repeats_an_answer():
    def drawn(seed):
        return chat(WHO, seed=seed, max_tokens=16, **WILD).choices[0].message.content

    assert drawn(7) == drawn(7)
    assert len({drawn(seed) for seed in range(4)}) > 1


def test_a_stop_ends_before_itself():
    choice = chat(describe("red_circle.png"), stop=["solid"]).choices[0]
    assert choice.message.content == ANSWER[: ANSWER.index("solid")] and choice.finish_reason == "stop"


def test_most_tokens_cut_an_answer():
    reply = chat(describe("red_circle.png"), max_completion_tokens=3)
    assert reply.choices[0].finish_reason == "length" and reply.usage.completion_tokens == 3


def test_logprobs_are_of_each_token_and_its_rivals():
    choice = chat(describe("red_circle.png"), logprobs=True, top_logprobs=3).choices[0]
    tokens = choice.logprobs.content
    said = b"".join(bytes(token.bytes) for token in tokens if token.token in [t.token for t in token.top_logprobs])
    assert said.decode().startswith("This is a simple image")
    for token in tokens:
        assert token.logprob <= 0 and len(token.top_logprobs) == 3
        assert token.top_logprobs[0].logprob == max(rival.logprob for rival in token.top_logprobs)


def post(path, body, url=URL):
    request = urllib.request.Request(url + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=60))


def token_ids(text, url=URL):
    return post("/tokenize", {"prompt": text, "add_special_tokens": False}, url)["tokens"]


def test_what_is_tokenized_is_detokenized():
    ids = token_ids("a red circle")
    assert len(ids) > 2
    assert post("/detokenize", {"model": MODEL, "tokens": ids}) == {"prompt": "a red circle"}


def test_a_bias_forbids_a_word():
    bias = {str(id): -100 for id in token_ids(" solid")}
    assert "solid" not in chat(describe("red_circle.png"), logit_bias=bias).choices[0].message.content


class Shape(BaseModel):
    colour: Literal["red", "blue"]
    corners: Annotated[int, Field(ge=0, le=9)]


def test_parse_gets_the_shape_it_asked_for():
    reply = CLIENT.chat.completions.parse(
        model=MODEL, messages=describe("red_circle.png"), response_format=Shape, temperature=0, max_tokens=128
    )
    shape = reply.choices[0].message.parsed
    assert isinstance(shape, Shape), reply


def test_a_json_object_is_json():
    text = chat(WHO, response_format={"type": "json_object"}, max_tokens=200).choices[0]
    assert text.finish_reason == "length" or isinstance(json.loads(text.message.content), dict)


PAINT = {
    "type": "function",
    "function": {
        "name": "paint",
        "description": "Paints a shape.",
        "parameters": {"type": "object", "properties": {"color": {"type": "string"}}},
    },
}
QUOTE_ID = 11


def call(**more):
    """What a larger model would choose: the bundled one must call, and is led from mark to mark of its format."""
    (color,), (colon,), (brace,) = (token_ids(text, TOOLS_URL) for text in ("color", ":", "}"))
    bias = {QUOTE_ID: 100, colon: 80, color: 60, brace: 40}
    return client(TOOLS_URL).chat.completions.create(
        model="tools",
        messages=[{"role": "user", "content": "Paint it."}],
        tools=[PAINT],
        tool_choice="required",
        parallel_tool_calls=False,
        logit_bias={str(id): value for id, value in bias.items()},
        temperature=0,
        max_tokens=40,
        **more,
    )


def test_a_tool_call_is_read_out_of_the_models_format():
    choice = call().choices[0]
    assert choice.finish_reason == "tool_calls" and choice.message.content is None
    (tool_call,) = choice.message.tool_calls
    assert tool_call.type == "function" and tool_call.id and tool_call.function.name == "paint"
    assert json.loads(tool_call.function.arguments) == {"color": ""}


def test_a_streamed_tool_call_adds_up():
    chunks = [chunk.choices[0] for chunk in call(stream=True) if chunk.choices]
    deltas = [delta for choice in chunks for delta in choice.delta.tool_calls or []]
    assert chunks[-1].finish_reason == "tool_calls"
    assert {delta.index for delta in deltas} == {0} and deltas[0].id and deltas[0].function.name == "paint"
    arguments = "".join(delta.function.arguments or "" for delta in deltas)
    assert json.loads(arguments) == {"color": ""}


def test_a_tools_result_is_read():
    message = call().choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"}
    messages = [*WHO, message.model_dump(exclude_none=True), result]
    reply = client(TOOLS_URL).chat.completions.create(model="tools", messages=messages, tools=[PAINT], max_tokens=8)
    assert reply.choices[0].message.role == "assistant"


def test_tools_are_refused_by_a_model_that_is_not_shown_them():
    with pytest.raises(openai.BadRequestError) as told:
        chat(WHO, tools=[PAINT])
    assert told.value.param == "tools"


def test_completions_answer_whole_and_streamed():
    reply = CLIENT.completions.create(model=MODEL, prompt="the", max_tokens=5, temperature=0, seed=1)
    assert reply.object == "text_completion" and reply.usage.completion_tokens <= 5
    stream = CLIENT.completions.create(model=MODEL, prompt="the", max_tokens=5, temperature=0, seed=1, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == reply.choices[0].text


def responses_input():
    image = {"type": "input_image", "detail": "auto", "image_url": picture("red_circle.png")["image_url"]["url"]}
    return [{"role": "user", "content": [image, {"type": "input_text", "text": "Describe this image."}]}]


def test_a_response_is_whole():
    reply = CLIENT.responses.create(model=MODEL, input=responses_input(), temperature=0)
    assert reply.object == "response" and reply.status == "completed" and reply.output_text == ANSWER
    assert reply.usage.total_tokens == reply.usage.input_tokens + reply.usage.output_tokens


def test_a_response_streams_its_events_in_order():
    events = list(CLIENT.responses.create(model=MODEL, input=responses_input(), temperature=0, stream=True))
    assert [event.sequence_number for event in events] == sorted({event.sequence_number for event in events})
    kinds = [event.type for event in events]
    assert kinds[0] == "response.created" and kinds[-1] == "response.completed"
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert len(deltas) > 5 and "".join(deltas) == ANSWER == events[-1].response.output_text


def test_a_response_helper_streams():
    with CLIENT.responses.stream(model=MODEL, input="Who are you?", temperature=0) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        assert text == stream.get_final_response().output_text != ""


def test_models_are_listed_and_shown():
    assert [model.id for model in CLIENT.models.list()] == [MODEL]
    assert CLIENT.models.retrieve(MODEL).id == MODEL
    with pytest.raises(openai.NotFoundError):
        CLIENT.models.retrieve("gpt-9")


def test_embeddings_are_not_found_and_said_so():
    with pytest.raises(openai.NotFoundError) as told:
        CLIENT.embeddings.create(model=MODEL, input="a red circle")
    assert "embedding" in told.value.message


def test_another_model_is_not_found():
    with pytest.raises(openai.NotFoundError) as told:
        chat(WHO, model="gpt-9")
    assert told.value.param == "model" and "gpt-9" in told.value.message


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 7}, "top_p"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "video_url"}]}]}, "messages[0].content[0].type"),
        ({"extra_body": {"temprature": 1}}, "temprature"),
        ({"extra_body": {"modalities": ["audio"]}}, "modalities"),
    ],
)
def test_a_bad_field_is_refused_by_its_name(fields, param):
    with pytest.raises(openai.BadRequestError) as told:
        chat(**{"messages": WHO, **fields})
    assert told.value.param == param
    assert told.value.body["type"] == "invalid_request_error"


def test_a_picture_that_is_none_is_refused_by_its_name():
    broken = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    with pytest.raises(openai.BadRequestError) as told:
        chat([{"role": "user", "content": [broken]}])
    assert "image" in told.value.message


def test_a_broken_stream_request_fails_before_it_streams():
    with pytest.raises(openai.BadRequestError):
        chat(WHO, stream=True, temperature=-1)


def test_no_key_and_a_wrong_key_are_told_apart_from_a_right_one():
    for key in ["none", "alice-0123456789abcdef-but-longer"]:
        with pytest.raises(openai.AuthenticationError):
            client(KEYED_URL, key).models.list()
    assert list(client(KEYED_URL, "alice-0123456789abcdef").models.list())


def test_who_asks_too_often_is_told_when_to_come_back():
    guest = client(KEYED_URL, "guest-0123456789abcdef")
    with pytest.raises(openai.RateLimitError) as told:
        for _ in range(4):
            guest.chat.completions.create(model=MODEL, messages=WHO, max_tokens=1)
    assert int(told.value.response.headers["retry-after"]) > 0
    alice = client(KEYED_URL, "alice-0123456789abcdef")
    assert alice.chat.completions.create(model=MODEL, messages=WHO, max_tokens=1)


def test_a_stream_that_is_closed_is_cancelled():
    before = metric("pyrex_generation_tokens_total")
    stream = chat(WHO, stream=True, max_tokens=3000, extra_body={"ignore_eos": True})
    assert next(iter(stream))
    stream.close()
    # The server answers on, and the one that nobody reads holds nothing once the next is done.
    assert chat(WHO).choices[0].finish_reason == "stop"
    assert metric("pyrex_generation_tokens_total") - before < 3000
