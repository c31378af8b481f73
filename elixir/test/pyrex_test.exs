defmodule PyrexTest do
  use ExUnit.Case, async: true

  import Pyrex.Scripted
  alias Pyrex.{Error, Request, Result}

  setup_all do
    name = PyrexTest.Engine
    start_supervised!({Pyrex, options(name)})
    %{engine: name}
  end

  test "an answer comes whole", %{engine: engine} do
    assert {:ok, %Result{text: "hello", finish_reason: :stop} = result} =
             Pyrex.generate(engine, {:text, "hi"})

    assert result.token_ids == ~c"hello" ++ [256]
    assert result.prompt_token_ids == ~c"hi"
    assert %{prompt_tokens: 2, completion_tokens: 6, image_tokens: 0} = result.usage
    assert result.timings.ttft_ms >= 0
    assert Pyrex.generate!(engine, "hi").text == "hello"
    assert Pyrex.generate!(engine, {:ids, ~c"hi"}).text == "hello"
  end

  test "an answer ends where it is told to", %{engine: engine} do
    assert %{text: "one", finish_reason: :length} = Pyrex.generate!(engine, "word", max_tokens: 3)
    assert %{text: "one ", finish_reason: :stop} = Pyrex.generate!(engine, "word", stop: ["two"])
    assert %{text: "on", finish_reason: :stop} = Pyrex.generate!(engine, "word", stop_token_ids: [?e])
  end

  test "several answers and their probabilities are told", %{engine: engine} do
    result = Pyrex.generate!(engine, "hi", n: 2, logprobs: 1)
    assert [%{text: "hello"}, %{text: "hello"}] = result.choices
    assert [{logprob, [{?h, logprob}]} | _rest] = result.logprobs
    assert logprob < 0

    assert_raise Error, "n is 2, expected 1 unless events are streamed", fn ->
      Pyrex.stream(engine, "hi", n: 2)
    end
  end

  test "a stream gives its text piece by piece, and events if asked", %{engine: engine} do
    assert Enum.join(Pyrex.stream(engine, "hi")) == "hello"
    events = Enum.to_list(Pyrex.stream(engine, "hi", events: true))
    assert {:started, ~c"hi", 0} = hd(events)
    assert {:done, %Result{text: "hello"}} = List.last(events)
    assert length(events) == 8
  end

  test "a stream is a plan: consumed twice it is asked twice", %{engine: engine} do
    stream = Pyrex.stream(engine, "hi")
    assert [Enum.join(stream), Enum.join(stream)] == ["hello", "hello"]
  end

  test "halting a stream cancels", %{engine: engine} do
    assert Enum.take(Pyrex.stream(engine, "long"), 2) == ["l", "a"]
    assert_idle(engine)
  end

  test "a consumer that raises cancels", %{engine: engine} do
    assert_raise RuntimeError, fn ->
      Enum.each(Pyrex.stream(engine, "long"), fn _text -> raise "enough" end)
    end

    assert_idle(engine)
  end

  test "errors come as values, are raised by the bang and by streams", %{engine: engine} do
    assert {:error, %Error{kind: :invalid_request}} = Pyrex.generate(engine, {:text, "a\0b"})
    assert_raise Error, fn -> Pyrex.generate!(engine, {:text, "a\0b"}) end
    assert_raise Error, fn -> Enum.to_list(Pyrex.stream(engine, {:text, "a\0b"})) end

    assert [{:error, %Error{kind: :invalid_request}}] =
             Enum.to_list(Pyrex.stream(engine, {:text, "a\0b"}, events: true))

    assert_raise Error, "top_k is 0, expected an integer from 1 to 4294967295", fn ->
      Pyrex.stream(engine, "a", top_k: 0)
    end

    assert {:error, %Error{kind: :closed}} = Pyrex.generate(Nobody, "hi")
    assert {:error, %Error{kind: :closed}} = Pyrex.generate({Nobody, :nowhere@nohost}, "hi")
  end

  test "structured answers are decoded, and one that is cut off says so", %{engine: engine} do
    schema = %{type: "object", properties: %{a: %{type: "array", items: %{type: "integer"}}}, required: ["a"]}
    assert Pyrex.generate!(engine, "json", schema: schema).object == %{"a" => [1, 2]}

    assert {:error, %Error{kind: :invalid_request} = error} =
             Pyrex.generate(engine, "json", schema: schema, max_tokens: 5)

    assert error.message ==
             "the answer ended at 5 tokens, before its JSON was complete: expected a higher max_tokens"

    assert error.partial.text == ~S({"a":)
    assert Pyrex.generate!(engine, "word", regex: "one tw.").text == "one two"
    assert {:error, %Error{kind: :invalid_request}} = Pyrex.generate(engine, "word", regex: "(")
  end

  test "a deadline ends a request with what there was" do
    engine = start(delay_us: 1000)
    assert {:error, error} = Pyrex.generate(engine, "long", timeout_ms: 60)
    assert %Error{kind: :deadline_exceeded, partial: %Result{text: "la" <> _rest, finish_reason: nil}} = error
    assert_idle(engine)
  end

  test "a process that must not wait asks and is told", %{engine: engine} do
    {:ok, %Request{ref: ref} = request} = Pyrex.submit(engine, "hi")
    assert :ok = Request.ask(request)
    assert_receive {:pyrex_events, ^ref, [{:started, ~c"hi", 0} | _more]}
    refute_received {:pyrex_events, ^ref, _unasked}
  end

  test "a request that is cancelled says so" do
    engine = start(delay_us: 1000)
    {:ok, request} = Pyrex.submit(engine, "long")
    Request.next(request)
    assert :ok = Pyrex.cancel(request)
    assert {:failed, %Error{kind: :cancelled}} = List.last(rest(request))
    assert [{:failed, %Error{kind: :closed}}] = Request.next(request)
    assert_idle(engine)
  end

  test "bodies of OpenAI's protocol are read by the engine", %{engine: engine} do
    body = ~S({"model": "any", "messages": [{"role": "user", "content": "hi"}], "temperature": 0})
    assert {:ok, %Result{text: "hello"}} = Pyrex.generate(engine, {:json, body})
    assert {:error, %Error{kind: :invalid_request}} = Pyrex.generate(engine, {:json, "{"})
    assert {:error, %Error{message: message}} = Pyrex.generate(engine, {:json, body}, top_k: 1)
    assert message == "top_k is given beside a JSON body, expected it in the body"
  end

  test "texts, ids and prompts are measured", %{engine: engine} do
    assert Pyrex.tokenize(engine, "abc") == {:ok, ~c"abc"}
    assert Pyrex.detokenize(engine, ~c"abc") == {:ok, "abc"}
    assert Pyrex.count_tokens(engine, [{:image, "x"}, "ab"]) == {:ok, 7}
    assert Pyrex.apply_template(engine, "abc") == {:ok, "abc"}
    assert {:error, %Error{kind: :invalid_request}} = Pyrex.apply_template(engine, {:ids, [1]})
    assert {:error, %Error{kind: :invalid_request}} = Pyrex.tokenize(engine, <<255>>)
    assert Pyrex.probe(engine) == :ok
    assert {:ok, %{family: "scripted", vocab_size: 258}} = Pyrex.info(engine)
  end

  test "a model that cannot be opened fails the start with the reason" do
    Process.flag(:trap_exit, true)

    assert {:error, %Error{kind: kind, message: message}} =
             Pyrex.start_link(name: Missing, model: "no/such/folder")

    assert kind in [:io, :invalid_model] and message =~ "no/such/folder"
    assert {:error, %Error{message: message}} = Pyrex.start_link(name: Missing, model: "x", device: "tpu")
    assert message =~ "tpu"
    assert {:error, %Error{message: "model is missing" <> _rest}} = Pyrex.start_link([])
    assert {:error, {:already_started, _pid}} = Pyrex.start_link(options(PyrexTest.Engine))
  end

  test "telemetry follows a request from its start to its stop" do
    me = self()
    engine = start(telemetry: fn event, measured, metadata -> send(me, {event, measured, metadata}) end)
    assert_receive {[:pyrex, :engine, :open], %{duration: _}, %{engine: ^engine, reopened: false}}
    Pyrex.generate!(engine, "hi", tenant: :t, group: :g)

    for name <- [:start, :encoded, :first_token, :tokens, :queue, :prefill, :stop] do
      assert_receive {[:pyrex, :request, ^name], %{},
                      %{engine: ^engine, tenant: :t, group: :g, request: _ref}}
    end

    {:error, _error} = Pyrex.generate(engine, {:text, "a\0b"})
    assert_receive {[:pyrex, :request, :exception], %{duration: _}, %{kind: :invalid_request}}
    assert {:ok, 0} = Pyrex.drain(engine)
    assert_receive {[:pyrex, :engine, :drain], %{num_cut_off: 0}, _metadata}
  end
end
