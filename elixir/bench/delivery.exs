# How fast tokens come from a thread of Rust to processes of the BEAM, and how late: MIX_ENV=test mix run bench/delivery.exs
#
# Needs a NIF with the cargo feature `test-util`. All is as in use but for the model: the process of each request, its queue,
# the message that events wait, the take, and the one message that carries them. A token's text is when it was said.
defmodule Bench.Delivery do
  alias Pyrex.{Feed, Question}

  def run do
    script = %{answers: [], max_position_embeddings: 64, delay_us: 0}
    {:ok, _pid} = Pyrex.start_link(name: Bench, model: {:scripted, script}, max_waiting: 10_000)
    Enum.each([1, 64], &throughput/1)
    Enum.each([1, 64], &lateness/1)
  end

  defp throughput(num_streams) do
    num_tokens = div(4_000_000, num_streams)
    began = System.monotonic_time(:microsecond)
    batches = consume(num_streams, {:flood, num_tokens, 0}, fn events -> length(events) end)
    seconds = (System.monotonic_time(:microsecond) - began) / 1_000_000
    rate = Float.round(num_streams * num_tokens / seconds / 1_000_000, 2)

    IO.puts(
      "#{num_streams} streams: #{rate} M tokens/s, #{round(Enum.sum(batches) / length(batches))} events a message"
    )
  end

  # Every stream says a token each 20 ms, as a decoder does.
  defp lateness(num_streams) do
    late =
      num_streams
      |> consume({:flood, 100, 20_000}, fn events ->
        now = System.os_time(:nanosecond)
        for {:token, _, _, said, _, _} <- events, do: now - String.to_integer(said)
      end)
      |> List.flatten()
      |> Enum.sort()

    at = fn percent -> late |> Enum.at(div((length(late) - 1) * percent, 100)) |> div(1000) end

    IO.puts(
      "#{num_streams} streams of a token each 20 ms: a token is p50 #{at.(50)} µs, p99 #{at.(99)} µs on its way"
    )
  end

  defp consume(num_streams, request, see) do
    1..num_streams
    |> Enum.map(fn _n -> Task.async(fn -> ask(request, see) end) end)
    |> Task.await_many(:infinity)
    |> List.flatten()
  end

  defp ask(request, see) do
    question = %Question{request: request, caller: self(), ref: make_ref()}
    {:ok, feed} = Feed.open(Bench, question)
    rest(feed, see, [])
  end

  defp rest(feed, see, seen) do
    {events, feed} = Feed.next(feed)
    seen = [see.(events) | seen]
    if Pyrex.Event.final?(List.last(events)), do: seen, else: rest(feed, see, seen)
  end
end

Bench.Delivery.run()
