defmodule Pyrex.ClusterTest do
  use ExUnit.Case, async: false

  import Pyrex.Scripted
  alias Pyrex.{Cluster, Error, Peers, Request, Result}

  @moduletag timeout: 120_000

  setup_all do
    Peers.distribute()
  end

  defp name, do: :"Cluster#{System.unique_integer([:positive])}"
  defp running(node, name), do: :erpc.call(node, Pyrex, :stats, [name]) |> elem(1) |> Map.fetch!(:num_running)

  test "requests go to the node that serves, and its engine answers everything" do
    name = name()

    assert {:error, %Error{kind: :closed, message: "no node serves" <> _rest}} =
             Pyrex.generate({:cluster, name}, "hi")

    node = Peers.start()
    Peers.serve(node, name)
    assert Cluster.nodes(name) == [node]
    assert Pyrex.generate!({:cluster, name}, "hi").text == "hello"
    assert Enum.join(Pyrex.stream({:cluster, name}, "word")) == "one two three"
    assert Pyrex.generate!({name, node}, "hi").text == "hello"
    body = ~S({"messages": [{"role": "user", "content": "hi"}], "temperature": 0})
    assert Pyrex.generate!({:cluster, name}, {:json, body}).text == "hello"
    assert Pyrex.tokenize({:cluster, name}, "abc") == {:ok, ~c"abc"}
    assert {:ok, %{family: "scripted"}} = Pyrex.info({name, node})
    assert {:ok, request} = Pyrex.submit({:cluster, name}, "long")
    assert node(request.pid) == node
    Request.close(request)
  end

  test "equal beginnings stay together until their node is busier, then others are asked" do
    name = name()
    nodes = [Peers.start(), Peers.start()]
    for node <- nodes, do: Peers.serve(node, name, delay_us: 2000)
    requests = for _n <- 1..2, do: Pyrex.submit({:cluster, name}, "long") |> elem(1)
    assert [_one] = requests |> Enum.map(&node(&1.pid)) |> Enum.uniq()
    more = for _n <- 1..6, do: Pyrex.submit({:cluster, name}, "long") |> elem(1)
    assert (requests ++ more) |> Enum.map(&node(&1.pid)) |> Enum.uniq() |> Enum.sort() == Enum.sort(nodes)
    Enum.each(requests ++ more, &Request.close/1)
  end

  test "a caller that dies frees what its request held on another node" do
    name = name()
    node = Peers.start()
    Peers.serve(node, name, delay_us: 2000)
    {caller, {:ok, request}} = holder(fn -> Pyrex.submit({:cluster, name}, "long") end)
    Request.next(request)
    assert running(node, name) == 1
    Process.exit(caller, :kill)
    eventually("the request is gone", 200, fn -> running(node, name) == 0 end)
  end

  test "a node that is killed before a token is produced costs nothing, after one it costs the rest" do
    name = name()
    [slow, other] = [Peers.start(), Peers.start()]
    # A first step that takes long: nothing is produced before the node dies.
    Peers.serve(slow, name, delay_us: 5_000_000)
    waiting = Task.async(fn -> Pyrex.generate({:cluster, name}, "hi") end)
    eventually("it runs", fn -> running(slow, name) == 1 end)
    Peers.serve(other, name, delay_us: 2000)
    Peers.signal(Peers.os_pid(slow), "KILL")
    assert {:ok, %Result{text: "hello"}} = Task.await(waiting, 10_000)
    eventually("the dead one is forgotten", fn -> Cluster.nodes(name) == [other] end)
    refute Cluster.Loads.fetch(name, slow).fresh

    streaming = Task.async(fn -> Pyrex.generate({:cluster, name}, "long") end)
    eventually("it runs", fn -> running(other, name) == 1 end)
    Process.sleep(50)
    began = System.monotonic_time(:millisecond)
    Peers.signal(Peers.os_pid(other), "KILL")

    assert {:error, %Error{kind: :closed, partial: %Result{text: "la" <> _rest}}} =
             Task.await(streaming, 10_000)

    assert System.monotonic_time(:millisecond) - began < 2_000
  end

  test "a node that falls silent is given up, and its requests are asked elsewhere" do
    name = name()
    [silent, other] = [Peers.start(), Peers.start()]
    Peers.serve(silent, name, delay_us: 5_000_000)
    waiting = Task.async(fn -> Pyrex.generate({:cluster, name}, "hi") end)
    eventually("it runs", fn -> running(silent, name) == 1 end)
    Peers.serve(other, name)
    os_pid = Peers.os_pid(silent)
    Peers.signal(os_pid, "STOP")
    assert {:ok, %Result{text: "hello"}} = Task.await(waiting, 10_000)
    # By now its reports are missed: nobody is sent there.
    for n <- 1..5, do: assert({:ok, _result} = Pyrex.generate({:cluster, name}, "hi", affinity: n))
    Peers.signal(os_pid, "CONT")
    eventually("it holds nothing for a caller that has gone on", 10_000, fn -> running(silent, name) == 0 end)
  end

  test "a node that sleeps through a question ends it when it wakes, though its caller lives on" do
    name = name()
    node = Peers.start()
    Peers.serve(node, name, delay_us: 10_000)
    os_pid = Peers.os_pid(node)
    Peers.signal(os_pid, "STOP")
    assert {:error, %Error{kind: :closed, message: message}} = Pyrex.submit({name, node}, "long")
    assert message =~ "does not answer"
    Peers.signal(os_pid, "CONT")
    eventually("it has begun", 5_000, fn -> running(node, name) == 1 end)
    eventually("it holds nothing for a caller that was told no", 10_000, fn -> running(node, name) == 0 end)
  end

  test "an engine that is drained is asked last" do
    name = name()
    nodes = [drained, other] = [Peers.start(), Peers.start()]
    for node <- nodes, do: Peers.serve(node, name)
    assert Pyrex.drain({name, drained}) == {:ok, 0}
    for n <- 1..5, do: assert({:ok, _result} = Pyrex.generate({:cluster, name}, "hi", affinity: n))
    eventually("it tells nothing any more", fn -> not Cluster.loads(name)[drained].fresh end)
    assert {:ok, request} = Pyrex.submit({:cluster, name}, "hi")
    assert node(request.pid) == other
  end

  test "an engine that is stopped leaves the cluster first, and no request is lost" do
    name = name()
    nodes = [Peers.start(), Peers.start()]
    for node <- nodes, do: Peers.serve(node, name, delay_us: 500)

    clients =
      for n <- 1..8 do
        Task.async(fn -> for _m <- 1..20, do: Pyrex.generate!({:cluster, name}, "word", affinity: n).text end)
      end

    :ok = :erpc.call(hd(nodes), Supervisor, :terminate_child, [Pyrex.Supervisor, {Pyrex, name}])
    assert clients |> Task.await_many(30_000) |> List.flatten() |> Enum.uniq() == ["one two three"]
    assert Cluster.nodes(name) == tl(nodes)
  end
end
