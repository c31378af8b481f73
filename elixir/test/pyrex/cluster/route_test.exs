defmodule Pyrex.Cluster.RouteTest do
  use ExUnit.Case, async: true
  doctest Pyrex.Cluster.Route
  doctest Pyrex.Engine.Backoff

  alias Pyrex.Cluster.Route

  defp load(num_requests, fields \\ []),
    do: Enum.into(fields, %{num_requests: num_requests, used_blocks: 0.0, assigned: 0, fresh: true})

  test "nobody is nobody" do
    assert Route.pick(%{}, :key) == :none
  end

  test "equal beginnings go to one node, different ones to all" do
    loads = Map.new([:a, :b, :c], &{&1, load(0)})
    picks = for key <- 1..300, do: Route.pick(loads, key)
    assert picks == for(key <- 1..300, do: Route.pick(loads, key))
    for {_node, count} <- Enum.frequencies(picks), do: assert(count > 60)
  end

  test "when a node leaves only its own keys move" do
    loads = Map.new([:a, :b, :c], &{&1, load(0)})

    for key <- 1..300, {:ok, node} = Route.pick(loads, key), node != :c do
      assert Route.pick(Map.delete(loads, :c), key) == {:ok, node}
    end
  end

  test "a busy node loses its affinity, a silent one all, unless nobody else is there" do
    for key <- 1..20 do
      assert Route.pick(%{a: load(5), b: load(1)}, key) == {:ok, :b}
      assert Route.pick(%{a: load(1, assigned: 4), b: load(1)}, key) == {:ok, :b}
      assert Route.pick(%{a: load(0, fresh: false), b: load(9)}, key) == {:ok, :b}
      assert Route.pick(%{a: load(0, fresh: false)}, key) == {:ok, :a}
    end
  end

  test "free cache blocks decide between equals that are beyond affinity" do
    loads = %{a: load(4, used_blocks: 0.9), b: load(1, used_blocks: 0.5), c: load(1, used_blocks: 0.1)}
    assert Enum.uniq(for key <- 1..50, do: Route.pick(loads, key)) -- [{:ok, :b}, {:ok, :c}] == []
  end
end
