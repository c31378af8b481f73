defmodule Pyrex.Admission do
  @moduledoc """
  Who may have how many requests under way, and which of them belong together.

  A request is admitted before the engine hears of it and counted until its process ends, however it ends. One more than
  `:max_per_caller` or `:max_per_tenant` is refused as `:overloaded`, and `retry_after_ms` says about when one of those under way
  will have ended. What the engine itself refuses, because `:max_waiting` requests wait, gets the same advice.
  """

  use GenServer

  alias Pyrex.Admission.Ledger
  alias Pyrex.Engine.Table
  alias Pyrex.{Engine, Error}

  defstruct [:name, :ledger, waiting: []]

  @doc false
  @spec start_link(atom) :: GenServer.on_start()
  def start_link(name), do: GenServer.start_link(__MODULE__, name, name: Table.part(name, Admission))

  @doc false
  @spec admit(atom, Ledger.entry()) :: :ok | {:error, Error.t()}
  def admit(name, entry) do
    with {:ok, answer} <- call(name, {:admit, self(), entry}), do: answer
  end

  @doc false
  @spec cancel_group(atom, term) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def cancel_group(name, group) do
    with {:ok, requests} <- call(name, {:members, group}) do
      Enum.each(requests, &send(&1, :pyrex_cancel))
      {:ok, length(requests)}
    end
  end

  @doc false
  @spec count(atom) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def count(name), do: call(name, :count)

  @doc false
  @spec await_empty(atom, timeout) :: :ok | {:error, Error.t()}
  def await_empty(name, timeout) do
    with {:ok, :empty} <- call(name, :await_empty, timeout), do: :ok
  end

  # The limits of the options are others now. Those who are there stay.
  @doc false
  @spec limit(atom) :: :ok
  def limit(name), do: GenServer.cast(Table.part(name, Admission), :limit)

  @impl true
  def init(name) do
    ledger = limited(%Ledger{}, name)
    # After a crash: those that ended meanwhile are reported down at once.
    {:ok, %__MODULE__{name: name, ledger: Enum.reduce(Table.requests(name), ledger, &count_again/2)}}
  end

  @impl true
  def handle_cast(:limit, state), do: {:noreply, %{state | ledger: limited(state.ledger, state.name)}}

  defp limited(ledger, name),
    do: struct!(ledger, Map.take(Table.fetch!(name, :options), [:max_per_caller, :max_per_tenant]))

  @impl true
  def handle_call({:admit, request, entry}, _from, state) do
    case Ledger.admit(state.ledger, request, entry) do
      {:ok, ledger} ->
        Process.monitor(request)
        Table.put_request(state.name, request, entry)
        {:reply, :ok, %{state | ledger: ledger}}

      {:error, message} ->
        error = Error.new(:overloaded, message, retry_after_ms: Ledger.retry_after_ms(state.ledger))
        {:reply, {:error, error}, state}
    end
  end

  def handle_call({:members, group}, _from, state), do: {:reply, Ledger.members(state.ledger, group), state}
  def handle_call(:count, _from, state), do: {:reply, map_size(state.ledger.live), state}

  def handle_call(:await_empty, from, state),
    do: {:noreply, tell_empty(%{state | waiting: [from | state.waiting]})}

  @impl true
  def handle_info({:DOWN, _monitor, :process, request, _reason}, state) do
    Table.delete_request(state.name, request)
    ledger = Ledger.release(state.ledger, request, System.monotonic_time(:millisecond))
    Table.put(state.name, :typical_ms, Ledger.retry_after_ms(ledger))
    {:noreply, tell_empty(%{state | ledger: ledger})}
  end

  def handle_info(_stray, state), do: {:noreply, state}

  defp tell_empty(%{ledger: %{live: live}} = state) when map_size(live) > 0, do: state

  defp tell_empty(state) do
    Enum.each(state.waiting, &GenServer.reply(&1, :empty))
    %{state | waiting: []}
  end

  defp count_again({request, entry}, ledger) do
    Process.monitor(request)
    Ledger.count(ledger, request, entry)
  end

  defp call(name, message, timeout \\ 5_000), do: Engine.call(Table.part(name, Admission), message, timeout)
end
