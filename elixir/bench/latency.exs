# What the BEAM adds to the engine: mix run bench/latency.exs
#
# The engine's own clock runs from submit to the first token; ours runs around the call. Whatever lies between is Elixir:
# options, the process of the request, admission, the message that events wait, and the one that carries them.
defmodule Bench.Latency do
  @model Path.expand("../../models/shapes", __DIR__)
  @image Path.join(@model, "examples/red_circle.png")

  def run do
    {:ok, _pid} = Pyrex.start_link(name: Bench, model: @model)
    image = {:image, File.read!(@image)}
    Enum.each(1..5, fn _n -> first_token([image, "Describe this image."]) end)

    for {what, prompt, times} <- [{"text", "Hello", 300}, {"an image", [image, "Describe this image."], 60}] do
      pairs = for _n <- 1..times, do: first_token(prompt)
      added = Enum.map(pairs, fn {ours_us, engine_us} -> ours_us - engine_us end)
      engine = pairs |> Enum.map(&elem(&1, 1)) |> percentile(50)
      share = Float.round(100 * percentile(added, 50) / engine, 2)

      IO.puts(
        "first token of #{what}: engine #{ms(engine)} ms, added p50 #{percentile(added, 50)} µs (#{share} %), p99 #{percentile(added, 99)} µs"
      )
    end

    gaps = for _n <- 1..10, gap <- gaps(image), do: gap
    IO.puts("between tokens at the consumer: p50 #{percentile(gaps, 50)} µs, p99 #{percentile(gaps, 99)} µs")
  end

  # When the first token is here, and the engine's measure of it, which comes with the last.
  defp first_token(prompt) do
    salt = Integer.to_string(System.unique_integer())
    began = System.monotonic_time(:microsecond)

    {first, result} =
      Enum.reduce(Pyrex.stream(Bench, prompt, events: true, max_tokens: 2, cache_salt: salt), {nil, nil}, fn
        {:token, _, _, _, _, _}, {nil, nil} -> {System.monotonic_time(:microsecond), nil}
        {:done, result}, {first, nil} -> {first, result}
        _event, seen -> seen
      end)

    {first - began, round(result.timings.ttft_ms * 1000)}
  end

  defp gaps(image) do
    times =
      for {:token, _, _, _, _, _} <- Pyrex.stream(Bench, [image, "Describe this image."], events: true),
          do: System.monotonic_time(:microsecond)

    Enum.zip_with(times, tl(times), &(&2 - &1))
  end

  defp percentile(values, percent),
    do: values |> Enum.sort() |> Enum.at(div((length(values) - 1) * percent, 100))

  defp ms(us), do: Float.round(us / 1000, 2)
end

Bench.Latency.run()
