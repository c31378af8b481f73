defmodule Pyrex.Request.Server do
  @moduledoc false
  # The process of one request: it owns the native request, so its death cancels; it watches the caller, so the caller's death
  # does; it takes events when a consumer asks, and hands them on. When none wait, those that come go straight from the engine
  # to the consumer, which saves a token the way through this process. Three ways lead through it: the first token, because
  # so long the request may be submitted again, the end, and all that goes to another node. It fails alone, and is never
  # started again: nobody could tell the consumer which part of an answer it has.
  #
  # The request of an HTTP client has the socket for a consumer: its events are there already, and this process is told of the
  # prompt, the first token and the end.

  use GenServer, restart: :temporary

  alias Pyrex.Engine.Table
  alias Pyrex.{Admission, Error, Event, Native, Telemetry}

  # The engine ends a request at its deadline. This long after it the engine is taken for stuck.
  @grace_ms 1_000

  # `question.request` is there until the first event: so long it may be submitted again. `demand` is who asked last and was not sent
  # anything by this process since.
  defstruct [
    :name,
    :question,
    :engine,
    :native,
    :id,
    :caller_monitor,
    :group_monitor,
    :span,
    :demand,
    spoke: false
  ]

  @doc false
  def start_link({name, question}), do: GenServer.start_link(__MODULE__, {name, question})

  @impl true
  def init({name, question}) do
    # Clients of a server are not one caller.
    caller = if question.arrival, do: question.ref, else: question.caller
    began_ms = System.monotonic_time(:millisecond)
    who = Map.take(question, [:tenant, :group, :ref])
    entry = Map.merge(who, %{caller: caller, began_ms: began_ms})
    state = %__MODULE__{name: name, question: question, id: System.unique_integer([:positive])}

    with {:ok, _engine} <- Table.engine(name),
         :ok <- Admission.admit(name, entry),
         {:ok, state} <- submit(state) do
      if question.arrival,
        do: {:ok, watch(%{state | demand: :client}), {:continue, :hand_on}},
        else: {:ok, watch(state)}
    else
      {:error, error} ->
        metadata = Map.merge(metadata(name, question), %{kind: error.kind, message: error.message})
        tell(name, [:request, :rejected], %{retry_after_ms: error.retry_after_ms}, metadata)
        {:stop, {:shutdown, error}}
    end
  end

  @impl true
  def handle_continue(:hand_on, state), do: hand_on(state)

  @impl true
  def handle_info({:pyrex_ready, id}, %{id: id, demand: demand} = state) when not is_nil(demand),
    do: hand_on(state)

  def handle_info({:pyrex_next, to, tag}, state), do: hand_on(%{state | demand: {to, tag}})

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
    after_ms = "#{@grace_ms} ms after the deadline of #{state.question.timeout_ms} ms"
    Native.request_expire(state.native, "the engine is stuck: no answer #{after_ms}")
    {:noreply, state}
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
    _timer = if question.timeout_ms, do: Process.send_after(self(), :overdue, question.timeout_ms + @grace_ms)

    %{
      state
      | caller_monitor: Process.monitor(question.caller),
        group_monitor: if(is_pid(question.group), do: Process.monitor(question.group)),
        span: Telemetry.start(Table.fetch!(state.name, :handler), metadata(state.name, question))
    }
  end

  defp hand_on(state) do
    {state, events} = take(state)

    case Enum.reject(events, &Event.written?/1) do
      [{:failed, error}] -> failed(state, error, events)
      _others when events == [] -> {:noreply, state}
      _others -> deliver(state, events)
    end
  end

  defp take(%{question: %{written: true}} = state) do
    {events, written} = Native.request_take_written(state.native)
    events = Enum.map(events, &Event.from_native/1)
    {state, if(written, do: [Tuple.insert_at(written, 0, :written) | events], else: events)}
  end

  defp take(state) do
    {num_sent, events} = Native.request_take(state.native, straight(state))
    {%{state | span: Telemetry.sent(state.span, num_sent)}, Enum.map(events, &Event.from_native/1)}
  end

  # Who is sent the next events by the engine itself.
  defp straight(%{spoke: true, demand: {to, _tag} = demand}) when is_pid(to) and node(to) == node(),
    do: demand

  defp straight(_state), do: nil

  defp failed(state, error, events) do
    case refused(state, error) do
      {:ok, state} -> hand_on(state)
      {:error, error} -> deliver(state, Enum.filter(events, &Event.written?/1) ++ [{:failed, error}])
    end
  end

  defp deliver(%{demand: :client} = state, events) do
    with {:failed, error} <- List.last(events), do: reject(state.question.arrival, error)
    delivered(state, events, &hand_on/1)
  end

  defp deliver(%{demand: {to, tag}} = state, events) do
    send(to, {:pyrex_events, tag, events})
    delivered(%{state | demand: nil}, events, &{:noreply, &1})
  end

  defp delivered(state, events, go_on) do
    state = %{state | spoke: state.spoke or Enum.any?(events, &Event.token?/1)}

    if Event.final?(List.last(events)),
      do: stop(state, events),
      else: go_on.(forget(%{state | span: Telemetry.observe(state.span, events)}, events))
  end

  # Does nothing once it was submitted: its client sees how it ended.
  @doc false
  def reject(arrival, error),
    do: Native.arrival_reject(arrival, error.kind, error.message, error.retry_after_ms)

  # From here on it cannot be submitted again.
  defp forget(state), do: %{state | question: %{state.question | request: nil}}

  # How an answer will come is not yet a part of it.
  defp forget(state, [{:written, _status, _type, ""}]), do: state
  defp forget(state, _events), do: forget(state)

  defp abandon(state, why) do
    Native.request_cancel(state.native)
    stop(state, [{:failed, Error.new(:cancelled, "the request was cancelled: #{why}")}])
  end

  defp stop(state, events) do
    {:stop, :normal, %{state | span: Telemetry.observe(state.span, events)}}
  end

  defp metadata(name, question),
    do: %{engine: name, request: question.ref, tenant: question.tenant, group: question.group}

  defp tell(name, event, measured, metadata),
    do: Telemetry.emit(Table.fetch!(name, :handler), event, measured, metadata)
end
