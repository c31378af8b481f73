defmodule Pyrex.Cluster.Route do
  @moduledoc false
  # Where a request goes. Pure.

  # What a shared beginning is worth, in requests that are ahead.
  @slack 2

  @type load :: %{
          num_requests: non_neg_integer,
          used_blocks: float,
          assigned: non_neg_integer,
          fresh: boolean
        }

  @doc "Nothing is known yet."
  @spec unknown() :: load
  def unknown, do: %{num_requests: 0, used_blocks: 0.0, assigned: 0, fresh: false}

  @doc """
  Picks a node for requests of `key`.

      iex> load = fn n -> %{num_requests: n, used_blocks: 0.0, assigned: 0, fresh: true} end
      iex> Pyrex.Cluster.Route.pick(%{a: load.(9), b: load.(1), c: load.(7)}, "any")
      {:ok, :b}
  """
  @spec pick(%{optional(node) => load}, term) :: {:ok, node} | :none
  def pick(loads, _key) when loads == %{}, do: :none

  def pick(loads, key) do
    # A node that has gone silent is a last resort.
    fresh = Map.filter(loads, fn {_node, load} -> load.fresh end)
    loads = if fresh == %{}, do: loads, else: fresh
    {least_busy, least} = Enum.min_by(loads, fn {_node, load} -> busy(load) end)
    preferred = preferred(Map.keys(loads), key)
    near = busy(loads[preferred]) <= busy(least) + @slack
    {:ok, if(near, do: preferred, else: least_busy)}
  end

  # The highest hash wins: when a node comes or goes only its own keys move.
  defp preferred(nodes, key), do: Enum.max_by(nodes, &:erlang.phash2({key, &1}))

  defp busy(load), do: load.num_requests + load.assigned + load.used_blocks
end
