defmodule Pyrex.TelemetryTest do
  use ExUnit.Case, async: true

  alias Pyrex.{Error, Telemetry}

  defp told(events) do
    me = self()

    span =
      Telemetry.start(fn event, measured, metadata -> send(me, {event, measured, metadata}) end, %{engine: :e})

    Enum.reduce(events, span, &Telemetry.observe(&2, &1))
    drain([])
  end

  defp drain(told) do
    receive do
      {[:pyrex | _rest], _measured, _metadata} = event -> drain([event | told])
    after
      0 -> Enum.reverse(told)
    end
  end

  test "a request that ends well tells its phases in order" do
    usage = %{prompt_tokens: 3, image_tokens: 2, cached_tokens: 1, completion_tokens: 2}
    timings = %{queue_ms: 1.0, encode_images_ms: 2.0, prefill_ms: 3.0, decode_ms: 4.0}

    told =
      told([
        [{:started, [1, 2, 3], 2}, {:token, 0, 1, "a", nil, nil}],
        [{:token, 0, 2, "b", nil, :stop}, {:finished, :stop, usage, timings}]
      ])

    assert Enum.map(told, fn {[:pyrex, :request, name], _measured, _metadata} -> name end) ==
             [:start, :encoded, :first_token, :tokens, :tokens, :queue, :image_encode, :prefill, :stop]

    assert {_event, %{duration_ms: 3.0, cached_tokens: 1}, %{engine: :e}} = Enum.at(told, 7)
    assert {_event, %{completion_tokens: 2, decode_ms: 4.0}, %{finish_reason: :stop}} = Enum.at(told, 8)
  end

  test "one that fails tells why" do
    told = told([[{:failed, Error.new(:closed, "gone")}]])

    assert {[:pyrex, :request, :exception], %{duration: _}, %{kind: :closed, message: "gone"}} =
             List.last(told)
  end

  test "every token is counted once, whichever way it takes to its consumer" do
    me = self()
    tell = fn event, measured, metadata -> send(me, {event, measured, metadata}) end
    engine = Pyrex.Scripted.start(delay_us: 2000, telemetry: tell)
    result = Pyrex.generate!(engine, "word")
    assert_receive {[:pyrex, :request, :stop], _measured, _metadata}
    told = drain([])
    counted = for {[:pyrex, :request, :tokens], %{count: count}, _metadata} <- told, do: count
    assert Enum.sum(counted) == result.usage.completion_tokens
    assert length(counted) > 2
    assert Enum.count(told, &match?({[:pyrex, :request, :first_token], _, _}, &1)) == 1
  end

  test "the library :telemetry is told if it is there, unless a function is given" do
    given = fn _event, _measured, _metadata -> :ok end
    assert Telemetry.handler(given) == given
    # It stays: engines that other tests start meanwhile may have found it.
    Code.compile_string("defmodule :telemetry do def execute(_event, _measured, _metadata), do: :ok end")
    assert Telemetry.handler(nil) == Function.capture(:telemetry, :execute, 3)
  end

  test "without a handler nothing is told" do
    assert Telemetry.start(nil, %{}) |> Telemetry.observe([{:failed, Error.new(:closed, "gone")}])
    assert Telemetry.emit(nil, [:engine, :open], %{}, %{}) == :ok
  end
end
