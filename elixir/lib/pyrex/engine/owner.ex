defmodule Pyrex.Engine.Owner do
  @moduledoc """
  The process that owns the native engine, which closes when it dies.

  The first start waits until the model is loaded, so that a model that cannot be opened fails `Pyrex.start_link/1` with the
  reason. When an engine goes down its owner stops with the error, and its supervisor starts another, which opens the engine
  again after a pause: twice as long each time, until an engine has lasted longer than `:max_seconds`. The supervisor counts;
  see `:max_restarts` in `Pyrex.Options`.

  A swap opens the second engine beside the first, moves new requests to it, drains the first, and closes it.
  """

  use GenServer

  alias Pyrex.Engine.{Backoff, Table}
  alias Pyrex.{Admission, Engine, Error, Native, Options, Telemetry}

  defstruct [:name, :engine, :id, :opened_ms, :swap, draining: %{}]

  @typep swap :: %{
           engine: Native.engine(),
           id: pos_integer,
           options: Options.t(),
           from: GenServer.from(),
           began: integer
         }
  @typep t :: %__MODULE__{
           name: atom,
           engine: nil | Native.engine(),
           id: nil | pos_integer,
           opened_ms: nil | integer,
           swap: nil | swap,
           draining: %{optional(reference) => {Native.engine(), GenServer.from()}}
         }

  @doc false
  @spec start_link(atom) :: GenServer.on_start()
  def start_link(name), do: GenServer.start_link(__MODULE__, name, name: Table.part(name, Owner))

  @doc false
  @spec swap(atom, Options.t()) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def swap(name, options) do
    with {:ok, answer} <- Engine.call(Table.part(name, Owner), {:swap, options}, :infinity), do: answer
  end

  @impl true
  def init(name) do
    options = Table.fetch!(name, :options)

    case Table.fetch!(name, :status) do
      :opening -> first_open(%__MODULE__{name: name}, options)
      _opened_before -> {:ok, %__MODULE__{name: name}, {:continue, :reopen}}
    end
  end

  @impl true
  def handle_continue(:reopen, state) do
    options = Table.fetch!(state.name, :options)
    num_failures = max(Table.fetch!(state.name, :failures), 1)
    delay_ms = Backoff.delay_ms(num_failures, options.backoff_ms, options.max_backoff_ms)
    Table.put_status(state.name, {:reopening, now_ms() + delay_ms})
    Process.send_after(self(), :reopen, delay_ms)
    {:noreply, state}
  end

  @impl true
  def handle_call({:swap, _options}, _from, %{engine: engine, swap: swap} = state)
      when is_nil(engine) or not is_nil(swap) do
    why = if swap, do: "another swap is under way", else: "the engine is not open"
    {:reply, {:error, Error.new(:overloaded, why, retry_after_ms: 1000)}, state}
  end

  def handle_call({:swap, options}, from, state) do
    case open(options) do
      {:ok, engine, id} ->
        swap = %{engine: engine, id: id, options: options, from: from, began: System.monotonic_time()}
        {:noreply, %{state | swap: swap}}

      {:error, error} ->
        {:reply, {:error, error}, state}
    end
  end

  @impl true
  def handle_info(:reopen, state) do
    case open(Table.fetch!(state.name, :options)) do
      {:ok, engine, id} -> {:noreply, %{state | engine: engine, id: id}}
      {:error, error} -> fail(state, error)
    end
  end

  def handle_info({:pyrex_engine, _id, {:progress, done, total}}, state) do
    tell_progress(state.name, done, total)
    {:noreply, state}
  end

  def handle_info({:pyrex_engine, id, :open}, %{id: id} = state), do: {:noreply, opened(state, true)}
  def handle_info({:pyrex_engine, id, :open}, %{swap: %{id: id}} = state), do: {:noreply, move(state)}

  def handle_info({:pyrex_engine, id, {what, error}}, %{id: id} = state) when what in [:error, :down] do
    case Table.fetch!(state.name, :status) do
      # Drained engines close.
      {:draining, _engine} -> {:noreply, state}
      _live -> fail(state, Error.from_native(error))
    end
  end

  def handle_info({:pyrex_engine, id, {what, error}}, %{swap: %{id: id}} = state)
      when what in [:error, :down] do
    GenServer.reply(state.swap.from, {:error, Error.from_native(error)})
    {:noreply, %{state | swap: nil}}
  end

  # Word of an engine that was swapped out.
  def handle_info({:pyrex_engine, _id, _what}, state), do: {:noreply, state}

  def handle_info({task, answer}, state) when is_map_key(state.draining, task) do
    Process.demonitor(task, [:flush])
    {{engine, from}, draining} = Map.pop!(state.draining, task)
    Native.engine_close(engine)
    GenServer.reply(from, answer)
    {:noreply, %{state | draining: draining}}
  end

  def handle_info(_stray, state), do: {:noreply, state}

  defp first_open(state, options) do
    with {:ok, engine, id} <- open(options),
         :ok <- await(options, id) do
      {:ok, opened(%{state | engine: engine, id: id}, false)}
    else
      {:error, error} -> {:stop, {:shutdown, error}}
    end
  end

  @spec open(Options.t()) :: {:ok, Native.engine(), pos_integer} | {:error, Error.t()}
  defp open(options) do
    id = System.unique_integer([:positive])

    case native_open(options.model, Options.to_native(options), id) do
      {:ok, engine} -> {:ok, engine, id}
      {:error, error} -> {:error, Error.from_native(error)}
    end
  end

  defp native_open({:scripted, script}, native, id), do: Native.test_open(script, native, id, self())
  defp native_open(_folder, native, id), do: Native.engine_open(native, id, self())

  defp await(options, id) do
    receive do
      {:pyrex_engine, ^id, :open} ->
        :ok

      {:pyrex_engine, ^id, {:progress, done, total}} ->
        tell_progress(options.name, done, total)
        await(options, id)

      {:pyrex_engine, ^id, {_what, error}} ->
        {:error, Error.from_native(error)}
    after
      options.open_timeout_ms ->
        {:error,
         Error.new(:deadline_exceeded, "the engine did not open within #{options.open_timeout_ms} ms")}
    end
  end

  @spec opened(t, boolean) :: t
  defp opened(state, reopened) do
    Table.put_status(state.name, {:open, state.engine})
    metadata = %{engine: state.name, model: model(state.name), reopened: reopened}

    emit(
      state.name,
      [:engine, :open],
      %{duration: System.convert_time_unit(load_ms(state), :millisecond, :native)},
      metadata
    )

    %{state | opened_ms: now_ms()}
  end

  defp load_ms(state) do
    case Native.engine_info(state.engine) do
      {:ok, info} -> round(info.load_ms)
      {:error, _closed} -> 0
    end
  end

  # From here on new requests go to the new engine; a request that still reached the old one is sent again.
  @spec move(t) :: t
  defp move(%{swap: swap} = state) do
    drained = match?({:draining, _engine}, Table.fetch!(state.name, :status))
    Table.put(state.name, :options, %{swap.options | name: state.name})
    Table.put_status(state.name, {:open, swap.engine})
    Admission.limit(state.name)
    metadata = %{engine: state.name, model: model(state.name)}
    emit(state.name, [:engine, :swap], %{duration: System.monotonic_time() - swap.began}, metadata)
    old = state.engine
    timeout_ms = swap.options.drain_timeout_ms
    # One that was drained before has nobody left to wait for.
    task =
      Task.async(fn ->
        if drained, do: {:ok, 0}, else: Engine.ask_native(old, {:drain, timeout_ms}, :infinity)
      end)

    draining = Map.put(state.draining, task.ref, {old, swap.from})
    %{state | engine: swap.engine, id: swap.id, opened_ms: now_ms(), swap: nil, draining: draining}
  end

  defp fail(state, error) do
    options = Table.fetch!(state.name, :options)
    lasted_ms = if state.opened_ms, do: now_ms() - state.opened_ms, else: 0
    before = if lasted_ms > options.max_seconds * 1000, do: 0, else: Table.fetch!(state.name, :failures)
    Table.put(state.name, :failures, before + 1)
    Table.put_status(state.name, {:reopening, now_ms() + options.backoff_ms})
    metadata = %{engine: state.name, kind: error.kind, message: error.message}
    emit(state.name, [:engine, :down], %{num_failures: before + 1}, metadata)
    {:stop, {:shutdown, error}, state}
  end

  defp tell_progress(name, done, total),
    do: emit(name, [:engine, :progress], %{done: done, total: total}, %{engine: name, model: model(name)})

  defp model(name), do: Table.fetch!(name, :options).model

  defp emit(name, event, measured, metadata),
    do: Telemetry.emit(Table.fetch!(name, :handler), event, measured, metadata)

  defp now_ms, do: System.monotonic_time(:millisecond)
end
