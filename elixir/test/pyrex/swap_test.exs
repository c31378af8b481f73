defmodule Pyrex.SwapTest do
  use ExUnit.Case, async: true

  import Pyrex.Scripted
  alias Pyrex.{Error, Request}

  defp other(delay_us \\ 0) do
    script = %{answers: [{"hi", "good day"}], max_position_embeddings: 8192, delay_us: delay_us}
    {:scripted, script}
  end

  test "new requests move, and those under way finish where they are" do
    engine = start(delay_us: 500)
    {:ok, request} = Pyrex.submit(engine, "long", max_tokens: 100)
    Request.next(request)
    assert Pyrex.swap(engine, model: other()) == {:ok, 0}
    assert {:finished, :length, %{completion_tokens: 100}, _timings} = List.last(rest(request))
    assert Pyrex.generate!(engine, "hi").text == "good day"
    assert_idle(engine)
  end

  test "a swap under load loses no request" do
    engine = start(delay_us: 200, max_waiting: 10_000)
    [over, answered] = [:atomics.new(1, []), :counters.new(2, [])]
    clients = for _n <- 1..8, do: Task.async(fn -> ask_until(engine, over, answered) end)
    present = engine |> options(delay_us: 200) |> Keyword.fetch!(:model)

    for {model, index} <- List.flatten(List.duplicate([{other(200), 2}, {present, 1}], 4)) do
      before = :counters.get(answered, index)
      assert Pyrex.swap(engine, model: model) == {:ok, 0}
      eventually("it answers", 10_000, fn -> :counters.get(answered, index) > before + 8 end)
    end

    :atomics.put(over, 1, 1)
    assert clients |> Task.await_many(30_000) |> Enum.uniq() == [:ok]
  end

  defp ask_until(engine, over, answered) do
    index = Map.fetch!(%{"hello" => 1, "good day" => 2}, Pyrex.generate!(engine, "hi").text)
    :counters.add(answered, index, 1)
    if :atomics.get(over, 1) == 0, do: ask_until(engine, over, answered), else: :ok
  end

  test "limits of admission follow" do
    engine = start(delay_us: 500, max_per_tenant: 1)
    {_holder, {:ok, _request}} = holder(fn -> Pyrex.submit(engine, "long", tenant: "a", max_tokens: 1000) end)
    assert {:error, %Error{kind: :overloaded}} = Pyrex.generate(engine, "hi", tenant: "a")
    swap = Task.async(fn -> Pyrex.swap(engine, model: other(), max_per_tenant: 2) end)
    eventually("there is room", fn -> match?({:ok, _result}, Pyrex.generate(engine, "hi", tenant: "a")) end)
    assert {:ok, _num_cut_off} = Task.await(swap)
  end

  test "an engine that cannot be opened is not swapped in" do
    engine = start()
    assert {:error, %Error{}} = Pyrex.swap(engine, model: "no/such/folder")
    assert {:error, %Error{message: "max_sequences is 0" <> _rest}} = Pyrex.swap(engine, max_sequences: 0)
    assert {:error, %Error{kind: :closed}} = Pyrex.swap(Nobody, max_sequences: 1)
    assert Pyrex.generate!(engine, "hi").text == "hello"
  end

  test "what was swapped in is opened again after a crash" do
    engine = start(backoff_ms: 1)
    {:ok, 0} = Pyrex.swap(engine, model: other())
    Process.exit(Process.whereis(Pyrex.Engine.Table.part(engine, Owner)), :kill)
    eventually("it is back", fn -> match?({:ok, %{text: "good day"}}, Pyrex.generate(engine, "hi")) end)
  end

  test "a drain lets requests finish, and refuses new ones until a swap" do
    engine = start(delay_us: 500)
    {:ok, request} = Pyrex.submit(engine, "long", max_tokens: 100)
    drain = Task.async(fn -> Pyrex.drain(engine, 5_000) end)

    eventually("the intake is closed", fn ->
      match?({:error, %Error{kind: :closed}}, Pyrex.submit(engine, "hi"))
    end)

    assert {:finished, :length, _usage, _timings} = List.last(rest(request))
    assert Task.await(drain) == {:ok, 0}
    assert {:ok, 0} = Pyrex.swap(engine, model: other())
    assert Pyrex.generate!(engine, "hi").text == "good day"
  end

  test "a drain cuts off what does not finish in time" do
    engine = start(delay_us: 1000)
    {:ok, request} = Pyrex.submit(engine, "long")
    Request.next(request)
    assert Pyrex.drain(engine, 20) == {:ok, 1}
    assert {:failed, %Error{kind: :closed}} = List.last(rest(request))
  end

  test "stopping the supervisor lets requests finish first" do
    name = Pyrex.SwapTest.Stopped
    {:ok, supervisor} = Pyrex.start_link(options(name, delay_us: 500))
    {_holder, {:ok, request}} = holder(fn -> Pyrex.submit(name, "long", max_tokens: 100) end)
    stop = Task.async(fn -> Supervisor.stop(supervisor) end)
    assert {:finished, :length, _usage, _timings} = List.last(rest(request))
    assert Task.await(stop) == :ok
  end
end
