defmodule Pyrex.Cluster.Member do
  @moduledoc false
  # The membership of one engine: while this process lives, the engine can be found from other nodes, and they know its load.

  use GenServer

  alias Pyrex.Cluster.Loads
  alias Pyrex.Engine
  alias Pyrex.Engine.Table

  @interval_ms 100

  @doc false
  def start_link(name), do: GenServer.start_link(__MODULE__, name, name: Table.part(name, Member))

  @impl true
  def init(name) do
    :ok = :pg.join(Pyrex.Cluster, name, self())
    {:ok, name, {:continue, :tell}}
  end

  @impl true
  def handle_continue(:tell, name), do: tell(name)

  @impl true
  def handle_info(:tell, name), do: tell(name)
  def handle_info(_stray, name), do: {:noreply, name}

  # An engine that is down, or drained, tells nothing, and is soon the last that anybody asks.
  defp tell(name) do
    with {:ok, _engine} <- Table.engine(name),
         {:ok, stats} <- Engine.stats(name) do
      used = 1.0 - stats.num_free_blocks / max(stats.num_blocks, 1)
      Loads.tell(name, stats.num_waiting + stats.num_running, used)
    end

    Process.send_after(self(), :tell, @interval_ms)
    {:noreply, name}
  end
end
