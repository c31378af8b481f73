defmodule Pyrex.OwnershipTest do
  use ExUnit.Case, async: true

  import Pyrex.Scripted
  alias Pyrex.Request

  test "an owner that is killed frees what its request held, in every phase" do
    engine = start(delay_us: 2000, max_sequences: 1)

    phases = [
      submitted: fn -> Pyrex.submit(engine, "long") end,
      begun: fn -> Pyrex.submit(engine, "long") |> elem(1) |> Request.next() end,
      decoding: fn -> Pyrex.stream(engine, "long") |> Enum.take(3) end,
      held_by_a_stream: fn -> spawn_consumer(engine) end,
      a_long_prompt: fn -> Pyrex.submit(engine, {:text, String.duplicate("x", 4000)}) end,
      finished_and_unread: fn -> unread(engine) end
    ]

    for {phase, begin} <- phases do
      {owner, begun} = holder(begin)
      victim = if is_pid(begun), do: begun, else: owner
      Process.exit(victim, :kill)
      assert {phase, assert_idle(engine)} == {phase, :ok}
      Process.exit(owner, :kill)
    end
  end

  test "a request that waits its turn leaves with its owner" do
    engine = start(delay_us: 2000, max_sequences: 1)
    {first, {:ok, request}} = holder(fn -> Pyrex.submit(engine, "long") end)
    eventually("the first runs", fn -> stats(engine).num_running == 1 end)
    {second, {:ok, _request}} = holder(fn -> Pyrex.submit(engine, "hi") end)
    eventually("the second waits", fn -> stats(engine).num_waiting == 1 end)
    Process.exit(second, :kill)
    eventually("the second is gone", 100, fn -> stats(engine).num_waiting == 0 end)
    assert Process.alive?(request.pid)
    Process.exit(first, :kill)
    assert_idle(engine)
  end

  test "the process of a request may be killed: its consumer gets an error, nothing is held" do
    engine = start(delay_us: 2000)
    {:ok, request} = Pyrex.submit(engine, "long")
    Process.exit(request.pid, :kill)
    assert [{:failed, %Pyrex.Error{kind: :closed}}] = Request.next(request)
    assert_idle(engine)
  end

  test "a thousand processes start and die at random" do
    engine = start(max_waiting: 2000)

    pids =
      for n <- 1..1000 do
        pid =
          spawn(fn -> Pyrex.generate(engine, if(rem(n, 3) == 0, do: "hi", else: "long"), max_tokens: 200) end)

        if :rand.uniform(4) == 1, do: Process.sleep(1)
        Process.exit(Enum.random([pid, pid, spawn(fn -> :ok end)]), :kill)
        pid
      end

    Enum.each(pids, &Process.exit(&1, :kill))
    assert_idle(engine, 2_000)
    assert Pyrex.generate!(engine, "hi").text == "hello"
  end

  test "a slow consumer pauses itself alone, and gets all in the end" do
    engine = start(max_events: 8, reader_timeout_ms: 5)
    {:ok, slow} = Pyrex.submit(engine, "long", max_tokens: 500)
    eventually("the slow one is paused", fn -> stats(engine).num_paused == 1 end)
    assert Pyrex.generate!(engine, "word").text == "one two three"
    assert Process.info(slow.pid, :message_queue_len) == {:message_queue_len, 0}
    events = rest(slow)
    assert Enum.count(events, &match?({:token, _, _, _, _, _}, &1)) == 500
    assert_idle(engine)
  end

  test "no mailbox holds more than a message of a request, however many tokens there are" do
    engine = start(max_events: 10_000)
    me = self()

    {_consumer, {:ok, request}} =
      holder(fn ->
        {:ok, request} = Pyrex.submit(engine, "long", max_tokens: 2000)
        Request.ask(request)
        send(me, :asked)
        {:ok, request}
      end)

    assert_receive :asked

    for _sample <- 1..200, stats(engine).num_running == 1 do
      assert {:message_queue_len, length} = Process.info(request.pid, :message_queue_len)
      assert length <= 1
    end

    eventually("all is produced", 10_000, fn -> stats(engine).num_running == 0 end)
    {:messages, messages} = Process.info(request.pid, :messages)
    assert length(messages) <= 1
  end

  defp spawn_consumer(engine) do
    consumer = spawn(fn -> Enum.each(Pyrex.stream(engine, "long"), fn _text -> :ok end) end)
    eventually("it runs", fn -> stats(engine).num_running == 1 end)
    consumer
  end

  defp unread(engine) do
    {:ok, _request} = Pyrex.submit(engine, "hi")
    eventually("it is over", fn -> match?(%{num_running: 0, num_waiting: 0}, stats(engine)) end)
  end
end
