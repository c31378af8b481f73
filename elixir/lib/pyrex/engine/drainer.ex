defmodule Pyrex.Engine.Drainer do
  @moduledoc """
  The last child of an engine's supervisor, so the first to be stopped: it closes the intake and lets live requests finish, for
  at most `:drain_timeout_ms`, and their consumers take what is left, before anything they need is stopped.
  """

  use GenServer

  alias Pyrex.Engine.Table
  alias Pyrex.{Admission, Engine, Options}

  @doc false
  @spec child_spec(Options.t()) :: Supervisor.child_spec()
  def child_spec(%Options{name: name, drain_timeout_ms: timeout_ms}) do
    # The engine itself ends a drain in time; the rest is for what comes after.
    %{id: __MODULE__, start: {__MODULE__, :start_link, [name]}, shutdown: 2 * timeout_ms + 5_000}
  end

  @doc false
  @spec start_link(atom) :: GenServer.on_start()
  def start_link(name), do: GenServer.start_link(__MODULE__, name, name: Table.part(name, Drainer))

  @impl true
  def init(name) do
    Process.flag(:trap_exit, true)
    {:ok, name}
  end

  @impl true
  def handle_info(_exit, name), do: {:noreply, name}

  @impl true
  def terminate(_reason, name) do
    timeout_ms = Table.fetch!(name, :options).drain_timeout_ms
    deadline_ms = System.monotonic_time(:millisecond) + timeout_ms

    # An engine that is down has nothing to drain, and has told its requests.
    with {:ok, _num_cut_off} <- Engine.drain(name, timeout_ms),
         do: Admission.await_empty(name, max(deadline_ms - System.monotonic_time(:millisecond), 100))
  end
end
