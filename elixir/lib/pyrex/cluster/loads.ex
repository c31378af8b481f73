defmodule Pyrex.Cluster.Loads do
  @moduledoc false
  # What this node knows of the load of engines everywhere: members tell it, callers read it from a table.

  use GenServer

  alias Pyrex.Cluster.Route

  # Ten reports that did not come.
  @stale_ms 1_000

  @doc false
  def start_link(_none), do: GenServer.start_link(__MODULE__, nil, name: __MODULE__)

  @doc "Tells every node that is connected how an engine here stands."
  @spec tell(atom, non_neg_integer, float) :: :ok
  def tell(name, num_requests, used_blocks) do
    for node <- [node() | Node.list()] do
      # Not to a node that takes nothing: it would hold up its teller.
      Process.send({__MODULE__, node}, {:load, name, node(), num_requests, used_blocks}, [
        :nosuspend,
        :noconnect
      ])
    end

    :ok
  end

  @spec fetch(atom, node) :: Route.load()
  def fetch(name, node) do
    case :ets.lookup(__MODULE__, {name, node}) do
      [{_key, num_requests, used_blocks, assigned, told_ms}] ->
        fresh = now_ms() - told_ms < @stale_ms
        %{num_requests: num_requests, used_blocks: used_blocks, assigned: assigned, fresh: fresh}

      [] ->
        Route.unknown()
    end
  end

  @doc "Notes that a request goes there, until the next report counts it."
  @spec assign(atom, node) :: :ok
  def assign(name, node) do
    _assigned =
      :ets.update_counter(__MODULE__, {name, node}, {4, 1}, {{name, node}, 0, 0.0, 0, now_ms() - @stale_ms})

    :ok
  end

  @impl true
  def init(nil) do
    __MODULE__ = :ets.new(__MODULE__, [:named_table, :public, read_concurrency: true])
    # On a VM that is no node there is none to watch.
    _watched = :net_kernel.monitor_nodes(true)
    {:ok, nil}
  end

  @impl true
  def handle_info({:load, name, node, num_requests, used_blocks}, state) do
    true = :ets.insert(__MODULE__, {{name, node}, num_requests, used_blocks, 0, now_ms()})
    {:noreply, state}
  end

  def handle_info({:nodedown, node}, state) do
    true = :ets.match_delete(__MODULE__, {{:_, node}, :_, :_, :_, :_})
    {:noreply, state}
  end

  def handle_info(_stray, state), do: {:noreply, state}

  defp now_ms, do: System.monotonic_time(:millisecond)
end
