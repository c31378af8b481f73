defmodule Pyrex.Engine.Table do
  @moduledoc false
  # What the processes of an engine know of each other. The table belongs to their supervisor, so it outlives each of them:
  # an owner that is started again finds how often it failed, an admission that is started again finds who is there.

  alias Pyrex.{Error, Options}

  @type status ::
          :opening
          | {:open, Pyrex.Native.engine()}
          | {:draining, Pyrex.Native.engine()}
          | {:reopening, at_ms :: integer}

  @doc "The name of a part of the engine `name`."
  @spec part(atom, atom) :: atom
  def part(name, part), do: Module.concat(name, part)

  @doc "Makes the table of an engine; it belongs to the calling process."
  @spec new(Options.t()) :: :ok
  def new(%Options{name: name} = options) do
    table =
      :ets.new(part(name, Table), [:named_table, :public, read_concurrency: true, write_concurrency: true])

    handler = Pyrex.Telemetry.handler(options.telemetry)

    true =
      :ets.insert(table, options: options, status: :opening, handler: handler, typical_ms: 100, failures: 0)

    :ok
  end

  @spec exists?(atom) :: boolean
  def exists?(name), do: is_atom(name) and :ets.whereis(part(name, Table)) != :undefined

  @spec put(atom, term, term) :: :ok
  def put(name, key, value) do
    true = :ets.insert(part(name, Table), {key, value})
    :ok
  end

  @doc "Changes the status, and which engine the servers read bodies for, before anybody does anything else."
  @spec put_status(atom, status) :: :ok
  def put_status(name, status) do
    put(name, :status, status)
    for {server, native} <- servers(name), do: point(server, native, name)
    :ok
  end

  @doc "Has an HTTP server know of every change of the engine, this one for a start."
  @spec point(pid, Pyrex.Native.server(), atom) :: :ok
  def point(server, native, name) do
    if Process.alive?(server), do: put(name, {:server, server}, native), else: delete(name, {:server, server})

    case engine(name) do
      {:ok, engine} -> Pyrex.Native.server_set_engine(native, engine)
      {:error, _closed} -> Pyrex.Native.server_set_engine(native, nil)
    end
  rescue
    # There is no table: nothing runs under this name.
    ArgumentError -> Pyrex.Native.server_set_engine(native, nil)
  end

  @spec fetch!(atom, term) :: term
  def fetch!(name, key), do: :ets.lookup_element(part(name, Table), key, 2)

  @doc "The engine, if requests may go to it."
  @spec engine(atom) :: {:ok, Pyrex.Native.engine()} | {:error, Error.t()}
  def engine(name) do
    if exists?(name), do: engine_in(fetch!(name, :status)), else: {:error, absent(name)}
  end

  @doc "The engine, also while it is drained."
  @spec any_engine(atom) :: {:ok, Pyrex.Native.engine()} | {:error, Error.t()}
  def any_engine(name) do
    with true <- exists?(name), {:draining, engine} <- fetch!(name, :status) do
      {:ok, engine}
    else
      _other -> engine(name)
    end
  end

  @doc "The error of a name that nothing runs under."
  @spec absent(term) :: Error.t()
  def absent(name), do: Error.new(:closed, "no engine #{inspect(name)} runs on #{node()}")

  @doc "Notes a request that is under way, and forgets one."
  @spec put_request(atom, pid, map) :: :ok
  def put_request(name, pid, entry), do: put(name, {:request, pid}, entry)

  @spec delete_request(atom, pid) :: :ok
  def delete_request(name, pid), do: delete(name, {:request, pid})

  @spec requests(atom) :: [{pid, map}]
  def requests(name), do: all(name, :request)

  defp servers(name), do: all(name, :server)

  defp all(name, kind), do: :ets.select(part(name, Table), [{{{kind, :"$1"}, :"$2"}, [], [{{:"$1", :"$2"}}]}])

  defp delete(name, key) do
    true = :ets.delete(part(name, Table), key)
    :ok
  end

  defp engine_in({:open, engine}), do: {:ok, engine}
  defp engine_in({:draining, _engine}), do: {:error, Error.new(:closed, "the engine takes no more requests")}

  defp engine_in({:reopening, at_ms}) do
    wait_ms = max(at_ms - System.monotonic_time(:millisecond), 10)
    {:error, Error.new(:closed, "the engine went down and is opened again", retry_after_ms: wait_ms)}
  end

  defp engine_in(:opening),
    do: {:error, Error.new(:closed, "the engine is not open yet", retry_after_ms: 100)}
end
