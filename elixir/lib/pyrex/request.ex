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

  @enforce_keys [:pid, :ref, :engine]
  defstruct [:pid, :ref, :engine]

  @type t :: %__MODULE__{pid: pid, ref: reference, engine: atom}

  @doc """
  The next events. Waits for at least one.

  A request whose node does not answer for `patience_ms` is taken for lost.
  """
  @spec next(t, timeout) :: [Event.t(), ...]
  def next(request, patience_ms \\ :infinity)

  def next(%__MODULE__{pid: pid} = request, _patience_ms) when node(pid) == node() do
    monitor = Process.monitor(pid)
    send(pid, {:pyrex_next, self(), monitor})

    receive do
      {:pyrex_events, ^monitor, events} ->
        Process.demonitor(monitor, [:flush])
        events

      {:DOWN, ^monitor, :process, _pid, reason} ->
        [{:failed, lost(request, reason)}]
    end
  end

  def next(%__MODULE__{pid: pid} = request, patience_ms) do
    alias = :erlang.monitor(:process, pid, alias: :reply_demonitor)
    send(pid, {:pyrex_next, alias, alias})
    receive_next(request, alias, patience_ms)
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
    case :rpc.call(node, __MODULE__, :start, [name, question], 5_000) do
      {:badrpc, reason} -> {:error, Error.new(:closed, "node #{node} does not answer: #{inspect(reason)}")}
      answer -> answer
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
  end

  defp receive_next(request, alias, patience_ms) do
    receive do
      {:pyrex_events, ^alias, events} -> events
      {:DOWN, ^alias, :process, _pid, reason} -> [{:failed, lost(request, reason)}]
    after
      patience_ms -> probe(request, alias, patience_ms)
    end
  end

  # A process that answers has nothing to tell yet. One that does not is as good as dead, long before its node is seen to be.
  defp probe(request, alias, patience_ms) do
    ping = :erlang.monitor(:process, request.pid, alias: :reply_demonitor)
    send(request.pid, {:pyrex_ping, ping})

    receive do
      {:pyrex_events, ^alias, events} ->
        Process.demonitor(ping, [:flush])
        events

      {:pyrex_pong, ^ping} ->
        receive_next(request, alias, patience_ms)

      {:DOWN, ^alias, :process, _pid, reason} ->
        Process.demonitor(ping, [:flush])
        [{:failed, lost(request, reason)}]
    after
      patience_ms ->
        Process.demonitor(ping, [:flush])
        Process.demonitor(alias, [:flush])
        # Should the node come back, nobody waits any more.
        Process.send(request.pid, :pyrex_close, [:nosuspend, :noconnect])
        [{:failed, lost(request, "no answer for #{2 * patience_ms} ms")}]
    end
  end

  defp lost(request, reason) do
    reason = if is_binary(reason), do: reason, else: inspect(reason)
    Error.new(:closed, "the request on #{node(request.pid)} is gone: #{reason}")
  end

  defp tell(pid, message) do
    send(pid, message)
    :ok
  end
end
