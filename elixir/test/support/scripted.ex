defmodule Pyrex.Scripted do
  @moduledoc false
  # Engines on the scripted model, for tests: a token is a byte, and every forward pass takes as long as a test wants.

  import ExUnit.Callbacks
  import ExUnit.Assertions

  @long String.duplicate("la", 4000)

  @doc "What all scripted engines answer, beside what a test adds. `long` goes on for 8000 tokens."
  def answers, do: [{"hi", "hello"}, {"long", @long}, {"json", ~S({"a":[1,2]})}, {"word", "one two three"}]

  def options(name, options \\ []) do
    {script, options} = Keyword.split(options, [:answers, :delay_us])

    script = %{
      answers: answers() ++ Keyword.get(script, :answers, []),
      max_position_embeddings: 8192,
      delay_us: Keyword.get(script, :delay_us, 0)
    }

    # A small cache, because the scripted model reads all of it in every step; no request pauses unless a test wants it to.
    defaults = [
      name: name,
      model: {:scripted, script},
      kv_cache: {:bytes, 262_144},
      max_events: 10_000,
      drain_timeout_ms: 2_000
    ]

    Keyword.merge(defaults, options)
  end

  @doc "Starts an engine of a name of its own under the test's supervisor, and returns the name."
  def start(options \\ []) do
    name = :"Engine#{System.unique_integer([:positive])}"
    start_supervised!({Pyrex, options(name, options)})
    name
  end

  def stats(name) do
    {:ok, stats} = Pyrex.stats(name)
    stats
  end

  @doc "Whether no request holds anything any more, within `within_ms`."
  def assert_idle(name, within_ms \\ 100) do
    eventually("requests are gone and hold no blocks", within_ms, fn ->
      stats = stats(name)

      stats.num_waiting + stats.num_running + stats.num_leases == 0 and
        Pyrex.Admission.count(name) == {:ok, 0}
    end)
  end

  def eventually(what, within_ms \\ 2_000, holds) do
    began = System.monotonic_time(:millisecond)

    cond do
      holds.() ->
        :ok

      within_ms <= 0 ->
        flunk("expected that soon #{what}")

      true ->
        Process.sleep(1)
        eventually(what, within_ms - max(System.monotonic_time(:millisecond) - began, 1), holds)
    end
  end

  @doc "The events of a request until the final one."
  def rest(request) do
    events = Pyrex.Request.next(request)
    if Pyrex.Event.final?(List.last(events)), do: events, else: events ++ rest(request)
  end

  @doc "Runs `body` in a process that lives on until it is killed; returns once it has run."
  def holder(body) do
    me = self()

    pid =
      spawn(fn ->
        send(me, {self(), body.()})
        Process.sleep(:infinity)
      end)

    receive do
      {^pid, result} -> {pid, result}
    after
      5_000 -> flunk("the holder did not come so far")
    end
  end

  def native(name) do
    {:ok, engine} = Pyrex.Engine.Table.engine(name)
    engine
  end
end
