defmodule Pyrex.AdmissionTest do
  use ExUnit.Case, async: true

  import Pyrex.Scripted
  alias Pyrex.{Error, Request}

  test "a caller has so many requests and no more, and its place back when one ends" do
    engine = start(delay_us: 1000, max_per_caller: 2)
    {:ok, first} = Pyrex.submit(engine, "long")
    {:ok, _second} = Pyrex.submit(engine, "long")

    assert {:error, %Error{kind: :overloaded, retry_after_ms: ms, message: message}} =
             Pyrex.submit(engine, "hi")

    assert ms >= 10
    assert message == "the caller has 2 requests under way, expected at most 2 (max_per_caller)"
    assert {:ok, _result} = Task.await(Task.async(fn -> Pyrex.generate(engine, "hi") end))
    Request.close(first)
    eventually("there is room", fn -> match?({:ok, _result}, Pyrex.generate(engine, "hi")) end)
  end

  test "a tenant is counted over all its processes" do
    engine = start(delay_us: 1000, max_per_tenant: 1)
    {holder, {:ok, _request}} = holder(fn -> Pyrex.submit(engine, "long", tenant: "a") end)
    assert {:error, %Error{kind: :overloaded}} = Pyrex.generate(engine, "hi", tenant: "a")
    assert {:ok, _result} = Pyrex.generate(engine, "hi", tenant: "b")
    assert {:ok, _result} = Pyrex.generate(engine, "hi")
    Process.exit(holder, :kill)
    assert_idle(engine)
    assert {:ok, _result} = Pyrex.generate(engine, "hi", tenant: "a")
  end

  test "a full engine says when to come back" do
    engine = start(delay_us: 1000, max_sequences: 1, max_waiting: 1)
    {:ok, _running} = Pyrex.submit(engine, "long")
    eventually("one runs", fn -> stats(engine).num_running == 1 end)
    {:ok, _waiting} = Pyrex.submit(engine, "long")
    eventually("one waits", fn -> stats(engine).num_waiting == 1 end)
    assert {:error, %Error{kind: :overloaded, retry_after_ms: ms}} = Pyrex.generate(engine, "hi")
    assert ms >= 10
  end

  test "a group is cancelled as one, and others go on" do
    engine = start(delay_us: 1000)
    of_group = for _n <- 1..3, do: Pyrex.submit(engine, "long", group: :agent) |> elem(1)
    {:ok, other} = Pyrex.submit(engine, "word", group: :other)
    Enum.each(of_group, &Request.next/1)
    assert Pyrex.cancel_group(engine, :agent) == {:ok, 3}
    for request <- of_group, do: assert({:failed, %Error{kind: :cancelled}} = List.last(rest(request)))
    assert {:finished, :stop, _usage, _timings} = List.last(rest(other))
  end

  test "a group that is a process takes its requests with it" do
    engine = start(delay_us: 1000)
    agent = spawn(fn -> Process.sleep(:infinity) end)
    {:ok, request} = Pyrex.submit(engine, "long", group: agent)
    Request.next(request)
    Process.exit(agent, :kill)
    assert_idle(engine)
  end

  test "who is more urgent is served first" do
    engine = start(delay_us: 500, max_sequences: 1)
    {:ok, running} = Pyrex.submit(engine, "long")
    eventually("one runs", fn -> stats(engine).num_running == 1 end)
    low = Task.async(fn -> Pyrex.generate!(engine, "hi", priority: -5).text end)
    eventually("the less urgent one waits", fn -> stats(engine).num_waiting == 1 end)
    # It goes before both: the one that runs gives way.
    assert Pyrex.generate!(engine, "hi", priority: 5).text == "hello"
    assert Task.yield(low, 0) == nil
    Request.close(running)
    assert Task.await(low) == "hello"
  end
end
