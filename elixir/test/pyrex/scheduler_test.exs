defmodule Pyrex.SchedulerTest do
  # Nothing that Pyrex does holds up the schedulers, which serve every process of the VM. Threads of an engine take processor
  # time as any program does: how late a heartbeat comes beside two that only spin, in a VM in which two processes do, is what
  # the machine itself does to it. Where that alone is more than the bound, as with two cores and other programs on them, an
  # engine may not do worse.
  use ExUnit.Case, async: false

  import Pyrex.Scripted

  @model Path.expand("../../../models/shapes", __DIR__)
  @quiet_us 2_000
  @loaded_us 5_000

  @tag timeout: 120_000
  test "a heartbeat is not held up by images, long prompts and 64 streams" do
    engine = start(max_sequences: 64, delay_us: 200)
    start_supervised!({Pyrex, name: Pyrex.SchedulerTest.Shapes, model: @model, num_threads: 1})
    # Other programs come and go between the two: what an engine does to the schedulers it does each time.
    assert Enum.any?(1..3, fn _try -> as_good_as_busy_work?(engine) end)
  end

  defp as_good_as_busy_work?(engine) do
    bound_us = if load_average() > System.schedulers_online(), do: @loaded_us, else: @quiet_us
    control = beside_busy_work()
    busy = beside_engines(engine)

    IO.puts(
      "\nhow late a heartbeat comes, in µs: beside busy work #{show(control)}; beside two engines #{show(busy)}"
    )

    percentile(busy, 99) <= max(bound_us, percentile(control, 99))
  end

  defp beside_busy_work do
    spinners =
      for _thread <- 1..2, do: Port.open({:spawn_executable, "/bin/sh"}, args: ["-c", "while :; do :; done"])

    busy = for _scheduler <- 1..2, do: spawn(fn -> Enum.each(Stream.cycle([1]), fn _n -> :ok end) end)
    beats = beat(3_000)
    Enum.each(busy, &Process.exit(&1, :kill))

    for spinner <- spinners do
      {:os_pid, os_pid} = Port.info(spinner, :os_pid)
      System.cmd("kill", ["-9", Integer.to_string(os_pid)])
    end

    beats
  end

  defp beside_engines(engine) do
    image = {:image, File.read!(Path.join(@model, "examples/red_circle.png"))}

    streams =
      for _n <- 1..64, do: spawn(fn -> Enum.each(Pyrex.stream(engine, "long"), fn _text -> :ok end) end)

    describers = for _n <- 1..2, do: spawn(fn -> Enum.each(Stream.cycle([image]), &describe/1) end)
    beats = beat(3_000)
    Enum.each(streams ++ describers, &Process.exit(&1, :kill))
    beats
  end

  defp describe(image) do
    Pyrex.generate!(Pyrex.SchedulerTest.Shapes, [image, "Describe this image."])
    Pyrex.tokenize(Pyrex.SchedulerTest.Shapes, String.duplicate("a red circle ", 2_000))
    Pyrex.generate(Pyrex.SchedulerTest.Shapes, String.duplicate("a red circle ", 300), max_tokens: 1)
  end

  # It goes before other processes, so what it waits for is one that does not let go.
  defp beat(for_ms) do
    body = fn ->
      Process.flag(:priority, :high)
      beats(System.monotonic_time(:millisecond) + for_ms, [])
    end

    Task.await(Task.async(body), 60_000)
  end

  # A timer of a millisecond fires within two.
  defp beats(until, delays) do
    began = System.monotonic_time(:microsecond)

    receive do
    after
      1 -> :ok
    end

    delays = [max(System.monotonic_time(:microsecond) - began - 2_000, 0) | delays]
    if System.monotonic_time(:millisecond) < until, do: beats(until, delays), else: Enum.sort(delays)
  end

  defp load_average do
    {average, _rest} = "/proc/loadavg" |> File.read!() |> Float.parse()
    average
  end

  defp percentile(sorted, percent), do: Enum.at(sorted, div(length(sorted) * percent, 100))

  defp show(sorted),
    do: "p50 #{percentile(sorted, 50)}, p99 #{percentile(sorted, 99)}, most #{List.last(sorted)}"
end
