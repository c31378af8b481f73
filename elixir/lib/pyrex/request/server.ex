defmodule Pyrex.Request.Server do
  @moduledoc false
  # The process of one request: it owns the native request, so its death cancels; it watches the caller, so the caller's death
  # does; it hands on events when a consumer asks. It fails alone, and is never started again: nobody could tell the consumer
  # which part of an answer it has.

  use GenServer, restart: :temporary

  alias Pyrex.Engine.Table
  alias Pyrex.Request.Flow
  alias Pyrex.{Admission, Error, Event, Native, Telemetry}

  # The engine ends a request at its deadline. This long after it the engine is taken for stuck.
  @grace_ms 1_000

  # `question.request` is there until the first event: so long it may be submitted again. `last` are final events of our own.
  defstruct [
    :name,
    :question,
    :engine,
    :native,
    :id,
    :caller_monitor,
    :group_monitor,
    :span,
    :last,
    flow: %Flow{}
  ]

  @doc false
  def start_link({name, question}), do: GenServer.start_link(__MODULE__, {name, question})

  @impl true
  def init({name, question}) do
    who = Map.take(question, [:caller, :tenant, :group])
    entry = Map.put(who, :began_ms, System.monotonic_time(:millisecond))
    state = %__MODULE__{name: name, question: question, id: System.unique_integer([:positive])}

    with {:ok, _engine} <- Table.engine(name),
         :ok <- Admission.admit(name, entry),
         {:ok, state} <- submit(state) do
      {:ok, watch(state)}
    else
      {:error, error} ->
        metadata = Map.merge(metadata(name, question), %{kind: error.kind, message: error.message})
        tell(name, [:request, :rejected], %{retry_after_ms: error.retry_after_ms}, metadata)
        {:stop, {:shutdown, error}}
    end
  end

  @impl true
  def handle_info({:pyrex_ready, id}, %{id: id} = state), do: move(Flow.ready(state.flow), state)
  def handle_info({:pyrex_next, to, tag}, state), do: move(Flow.demand(state.flow, {to, tag}), state)

  def handle_info({:pyrex_ping, to}, state) do
    send(to, {:pyrex_pong, to})
    {:noreply, state}
  end

  def handle_info(:pyrex_cancel, state) do
    Native.request_cancel(state.native)
    {:noreply, forget(state)}
  end

  def handle_info(:pyrex_close, state), do: abandon(state, "its consumer left")

  def handle_info({:DOWN, monitor, _, _, _}, %{caller_monitor: monitor} = state),
    do: abandon(state, "its caller died")

  def handle_info({:DOWN, monitor, _, _, _}, %{group_monitor: monitor} = state),
    do: abandon(state, "its group died")

  def handle_info(:overdue, state) do
    Native.request_cancel(state.native)

    message =
      "the engine is stuck: no answer #{@grace_ms} ms after the deadline of #{state.question.timeout_ms} ms"

    last = [{:failed, Error.new(:deadline_exceeded, message)}]
    move(Flow.ready(state.flow), %{state | last: last})
  end

  def handle_info(_stray, state), do: {:noreply, state}

  defp submit(state) do
    with {:ok, engine} <- Table.engine(state.name) do
      case Native.request_submit(engine, state.question.request, state.id, self()) do
        {:ok, native} -> {:ok, %{state | engine: engine, native: native}}
        {:error, error} -> refused(%{state | engine: engine}, Error.from_native(error))
      end
    end
  end

  # An engine that was swapped out between the look and the call took nothing: the new one is asked instead.
  defp refused(state, %Error{kind: :closed} = error) do
    case Table.engine(state.name) do
      {:ok, engine} when engine != state.engine and not is_nil(state.question.request) -> submit(state)
      # It went down, and its owner has yet to notice.
      {:ok, _engine} -> {:error, %{error | retry_after_ms: Table.fetch!(state.name, :options).backoff_ms}}
      {:error, reopening} -> {:error, %{error | retry_after_ms: reopening.retry_after_ms}}
    end
  end

  defp refused(state, %Error{kind: :overloaded} = error),
    do: {:error, %{error | retry_after_ms: Table.fetch!(state.name, :typical_ms)}}

  defp refused(_state, error), do: {:error, error}

  defp watch(%{question: question} = state) do
    if question.timeout_ms, do: Process.send_after(self(), :overdue, question.timeout_ms + @grace_ms)

    %{
      state
      | caller_monitor: Process.monitor(question.caller),
        group_monitor: if(is_pid(question.group), do: Process.monitor(question.group)),
        span: Telemetry.start(Table.fetch!(state.name, :handler), metadata(state.name, question))
    }
  end

  defp move({:wait, flow}, state), do: {:noreply, %{state | flow: flow}}

  defp move({:take, to, flow}, state) do
    state = %{state | flow: flow}

    case take(state) do
      [] -> {:noreply, %{state | flow: Flow.unmet(flow, to)}}
      [{:failed, error}] -> failed(state, to, error)
      events -> deliver(state, to, events)
    end
  end

  defp take(%{last: nil} = state), do: Enum.map(Native.request_take(state.native), &Event.from_native/1)
  defp take(%{last: events}), do: events

  defp failed(state, to, error) do
    case refused(state, error) do
      {:ok, state} -> {:noreply, %{state | flow: Flow.unmet(state.flow, to)}}
      {:error, error} -> deliver(state, to, [{:failed, error}])
    end
  end

  defp deliver(state, {to, tag}, events) do
    send(to, {:pyrex_events, tag, events})

    if Event.final?(List.last(events)),
      do: stop(state, events),
      else: {:noreply, forget(%{state | span: Telemetry.observe(state.span, events)})}
  end

  # From here on it cannot be submitted again.
  defp forget(state), do: %{state | question: %{state.question | request: nil}}

  defp abandon(state, why) do
    Native.request_cancel(state.native)
    stop(state, [{:failed, Error.new(:cancelled, "the request was cancelled: #{why}")}])
  end

  defp stop(state, events) do
    Telemetry.observe(state.span, events)
    {:stop, :normal, state}
  end

  defp metadata(name, question),
    do: %{engine: name, request: question.ref, tenant: question.tenant, group: question.group}

  defp tell(name, event, measured, metadata),
    do: Telemetry.emit(Table.fetch!(name, :handler), event, measured, metadata)
end
