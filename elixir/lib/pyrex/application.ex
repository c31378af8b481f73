defmodule Pyrex.Application do
  @moduledoc false
  # What is shared by all engines of a node, and by nodes that have none: who serves what in the cluster. Engines stand in the
  # trees of those who want them.

  use Application

  @impl true
  def start(_type, _arguments) do
    scope = %{id: :pg, start: {:pg, :start_link, [Pyrex.Cluster]}}
    # Neither knows the other: each may fail alone.
    Supervisor.start_link([scope, Pyrex.Cluster.Loads], strategy: :one_for_one, name: Pyrex.Supervisor)
  end
end
