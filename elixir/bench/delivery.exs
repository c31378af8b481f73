# How fast tokens come from a thread of Rust to processes of the BEAM, and how late: MIX_ENV=test mix run bench/delivery.exs
#
# Needs a NIF with the cargo feature `test-util`. All is as in use but for the model: the process of each request, its queue,
# the question for events, and the message that carries them. A token's text is when it was said. Beside it, in the same run,
# threads of Rust that block until a token comes: what the BEAM adds is the difference.
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
    {rust, beam} = {in_rust(num_streams), on_the_beam(num_streams)}

    at = fn late, percent -> late |> Enum.at(div((length(late) - 1) * percent, 100)) |> div(1000) end

    IO.puts(
      "#{num_streams} streams of a token each 20 ms: on its way p50 #{at.(beam, 50)} µs, p99 #{at.(beam, 99)} µs; " <>
        "in Rust p50 #{at.(rust, 50)} µs, p99 #{at.(rust, 99)} µs; added p50 #{at.(beam, 50) - at.(rust, 50)} µs"
    )
  end

  defp in_rust(num_streams) do
    :ok = Pyrex.Native.test_lateness(num_streams, 100, 20_000, 0, self())

    receive do
      {:pyrex_reply, 0, late} -> Enum.sort(late)
    end
  end

  defp on_the_beam(num_streams) do
    num_streams
    |> consume({:flood, 100, 20_000}, fn events ->
      now = System.os_time(:nanosecond)
      for {:token, _, _, said, _, _} <- events, do: now - String.to_integer(said)
    end)
    |> List.flatten()
    |> Enum.sort()
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
