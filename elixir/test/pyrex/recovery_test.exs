defmodule Pyrex.RecoveryTest do
  use ExUnit.Case, async: true

  import Pyrex.Scripted
  alias Pyrex.{Error, Native, Request}

  # Returns the engine that panicked.
  defp panic(engine) do
    native = native(engine)
    owner = Process.whereis(Pyrex.Engine.Table.part(engine, Owner))
    monitor = Process.monitor(owner)
    {:ok, _request} = Pyrex.submit(engine, "long")
    Native.test_panic(native)
    assert_receive {:DOWN, ^monitor, _, _, {:shutdown, %Error{}}}, 2_000
    native
  end

  defp reopened(name, before) do
    eventually("the engine is open again", 5_000, fn ->
      case Pyrex.Engine.Table.engine(name) do
        {:ok, engine} -> engine != before
        {:error, _closed} -> false
      end
    end)
  end

  test "when the engine panics every caller gets an error, it is opened again, and the next request works" do
    engine = start(delay_us: 1000, backoff_ms: 20)
    requests = for _n <- 1..5, do: Pyrex.submit(engine, "long") |> elem(1)
    Enum.each(requests, &Request.next/1)
    me = self()

    task =
      Task.async(fn ->
        Enum.reduce(Pyrex.stream(engine, "long", events: true), nil, fn event, _last ->
          send(me, :streams)
          event
        end)
      end)

    for _prompt_and_tokens <- 1..3, do: assert_receive(:streams, 2_000)
    before = native(engine)
    Native.test_panic(before)

    for request <- requests do
      assert {:failed, %Error{kind: kind, message: message}} = List.last(rest(request))
      assert kind in [:internal, :closed] and is_binary(message)
    end

    assert {:error, %Error{partial: %Pyrex.Result{text: "la" <> _rest}}} = Task.await(task)
    reopened(engine, before)
    assert Pyrex.generate!(engine, "hi").text == "hello"
    assert_idle(engine)
  end

  test "while the engine is opened again callers are told when to come back" do
    engine = start(backoff_ms: 500)
    before = panic(engine)

    eventually("it waits", fn ->
      match?({:error, %Error{kind: :closed, retry_after_ms: ms}} when ms > 0, Pyrex.generate(engine, "hi"))
    end)

    {:error, error} = Pyrex.generate(engine, "hi")
    assert error.message == "the engine went down and is opened again"
    assert error.retry_after_ms in 1..500
    reopened(engine, before)
    assert Pyrex.generate!(engine, "hi").text == "hello"
  end

  test "each pause is twice as long, and three panics in a row make the supervisor give up" do
    me = self()
    Process.flag(:trap_exit, true)
    name = Pyrex.RecoveryTest.GivesUp
    tell = fn event, measured, _metadata -> send(me, {event, measured}) end

    {:ok, supervisor} =
      Pyrex.start_link(options(name, telemetry: tell, max_restarts: 2, max_seconds: 60, backoff_ms: 10))

    for n <- 1..3 do
      before = panic(name)
      assert_receive {[:pyrex, :engine, :down], %{num_failures: ^n}}
      if n < 3, do: reopened(name, before)
    end

    assert_receive {:EXIT, ^supervisor, :shutdown}, 2_000
    assert {:error, %Error{kind: :closed, message: message}} = Pyrex.generate(name, "hi")
    assert message == "no engine #{inspect(name)} runs on #{node()}"
  end

  test "an owner that is killed is replaced, and its engine closes" do
    engine = start(delay_us: 1000, backoff_ms: 1)
    {:ok, request} = Pyrex.submit(engine, "long")
    Request.next(request)
    Process.exit(Process.whereis(Pyrex.Engine.Table.part(engine, Owner)), :kill)
    assert {:failed, %Error{kind: :closed}} = List.last(rest(request))

    eventually("requests are served again", 5_000, fn ->
      match?({:ok, _result}, Pyrex.generate(engine, "hi"))
    end)
  end

  test "an admission that is killed counts anew who is there" do
    engine = start(delay_us: 1000, max_per_caller: 1)
    {:ok, request} = Pyrex.submit(engine, "long")
    Process.exit(Process.whereis(Pyrex.Engine.Table.part(engine, Admission)), :kill)
    eventually("it is back", fn -> Pyrex.Admission.count(engine) == {:ok, 1} end)
    assert {:error, %Error{kind: :overloaded}} = Pyrex.generate(engine, "hi")
    Request.close(request)
    assert_idle(engine)
    assert Pyrex.generate!(engine, "hi").text == "hello"
  end
end
