defmodule Pyrex.Request do
  @moduledoc """
  A request under way, as `Pyrex.submit/3` returns it, and how its events are had.

  Events are pulled. `next/2` waits for those that are there; `ask/1` has the same list sent as
  `{:pyrex_events, request.ref, events}`, for processes that must not wait. Each is answered with one list, never empty, whose
  last event is final or not; see `Pyrex.Event`. Who does not ask gets nothing and holds up nobody: its request pauses once
  `:max_events` wait.

  The process that submitted is watched: when it dies the request is cancelled. So is it when `cancel/1` is called; the
  consumer then gets a final `{:failed, %Pyrex.Error{kind: :cancelled}}`. `close/1` cancels too, but nothing comes any more.
  """

  alias Pyrex.Engine.Table
  alias Pyrex.{Error, Event}

  # How long a node may take to start a request.
  @start_ms 5_000

  @enforce_keys [:pid, :ref, :engine]
  defstruct [:pid, :ref, :engine]

  @type t :: %__MODULE__{pid: pid, ref: reference, engine: atom}

  @doc """
  The next events. Waits for at least one.

  A request whose node does not answer for `patience_ms` is taken for lost.
  """
  @spec next(t, timeout) :: [Event.t(), ...]
  def next(request, patience_ms \\ :infinity), do: next_of(request, demand(request), patience_ms)

  defp next_of(request, demand, patience_ms) do
    with :idle <- await(request, demand, patience_ms), do: next_of(request, demand, patience_ms)
  end

  @doc "Has the next events sent to the calling process, as `{:pyrex_events, ref, events}`."
  @spec ask(t) :: :ok
  def ask(%__MODULE__{pid: pid, ref: ref}), do: tell(pid, {:pyrex_next, self(), ref})

  @doc "Ends the request early. Its final event still comes."
  @spec cancel(t) :: :ok
  def cancel(%__MODULE__{pid: pid}), do: tell(pid, :pyrex_cancel)

  @doc "Ends the request early. Nothing comes any more."
  @spec close(t) :: :ok
  def close(%__MODULE__{pid: pid}), do: tell(pid, :pyrex_close)

  @doc false
  @spec start(atom | {atom, node}, Pyrex.Question.t()) :: {:ok, t} | {:error, Error.t()}
  def start({name, node}, question) when node == node(), do: start(name, question)

  def start({name, node}, question) do
    case :rpc.call(node, __MODULE__, :start, [name, question], @start_ms) do
      {:badrpc, reason} ->
        # One that only slept starts it when it wakes.
        :erpc.cast(node, __MODULE__, :forget, [name, question.ref])
        {:error, Error.new(:closed, "node #{node} does not answer: #{inspect(reason)}")}

      answer ->
        answer
    end
  end

  def start(name, question) do
    with {:ok, _engine} <- Table.engine(name) do
      child = {Pyrex.Request.Server, {name, question}}

      case DynamicSupervisor.start_child(Table.part(name, Requests), child) do
        {:ok, pid} -> {:ok, %__MODULE__{pid: pid, ref: question.ref, engine: name}}
        {:error, {:shutdown, %Error{} = error}} -> {:error, error}
      end
    end
  catch
    # It stood there a moment ago.
    :exit, _reason -> {:error, Table.absent(name)}
  end

  # Ends a request that nobody has a hold of. Whoever starts it has done so a moment later.
  @doc false
  @spec forget(atom, reference) :: :ok
  def forget(name, ref) do
    Process.sleep(@start_ms)

    for {pid, %{ref: ^ref}} <- if(Table.exists?(name), do: Table.requests(name), else: []),
        do: tell(pid, :pyrex_close)

    :ok
  end

  # Asks for the next events, which `await/3` brings.
  @doc false
  @spec demand(t) :: reference
  def demand(%__MODULE__{pid: pid} = request) do
    if here?(request) do
      monitor = Process.monitor(pid)
      send(pid, {:pyrex_next, self(), monitor})
      monitor
    else
      # What a node says that was given up finds nobody.
      alias = :erlang.monitor(:process, pid, alias: :reply_demonitor)
      send(pid, {:pyrex_next, alias, alias})
      alias
    end
  end

  # `:idle` if nothing comes so long; it may be called again. A node that does not answer twice as long is taken for dead.
  @doc false
  @spec await(t, reference, timeout) :: [Event.t(), ...] | :idle
  def await(request, demand, within_ms) do
    receive do
      {:pyrex_events, ^demand, events} ->
        Process.demonitor(demand, [:flush])
        events

      {:DOWN, ^demand, :process, _pid, reason} ->
        [{:failed, lost(request, reason)}]
    after
      within_ms ->
        if here?(request) or alive?(request, within_ms), do: :idle, else: give_up(request, demand, within_ms)
    end
  end

  # A process that answers has nothing to tell yet. One that does not is as good as dead, long before its node is seen to be.
  defp alive?(request, patience_ms) do
    ping = :erlang.monitor(:process, request.pid, alias: :reply_demonitor)
    send(request.pid, {:pyrex_ping, ping})

    receive do
      {:pyrex_pong, ^ping} -> true
      # Its demand hears of that too.
      {:DOWN, ^ping, :process, _pid, _reason} -> true
    after
      patience_ms ->
        Process.demonitor(ping, [:flush])
        false
    end
  end

  defp give_up(request, demand, patience_ms) do
    Process.demonitor(demand, [:flush])
    # Should the node come back, nobody waits any more.
    Process.send(request.pid, :pyrex_close, [:nosuspend, :noconnect])
    [{:failed, lost(request, "no answer for #{2 * patience_ms} ms")}]
  end

  defp here?(%__MODULE__{pid: pid}), do: node(pid) == node()

  defp lost(request, reason) do
    reason = if is_binary(reason), do: reason, else: inspect(reason)
    Error.new(:closed, "the request on #{node(request.pid)} is gone: #{reason}")
  end

  defp tell(pid, message) do
    send(pid, message)
    :ok
  end
end
