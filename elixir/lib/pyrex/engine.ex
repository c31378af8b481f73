defmodule Pyrex.Engine do
  @moduledoc """
  The supervisor of one engine, and what its processes share.

  | child | what it owns |
  |---|---|
  | `Pyrex.Engine.Owner` | the native engine: opens it, swaps it, dies with it |
  | `Pyrex.Admission` | who has how many requests under way |
  | `DynamicSupervisor` | one `Pyrex.Request.Server` per request |
  | `Pyrex.Engine.Drainer` | the end: it is stopped before all above, and lets requests finish |
  | `Pyrex.Cluster.Member`, with `cluster: true` | membership: it leaves before anything else is stopped |

  The strategy is `:one_for_one`, because no child holds a reference into another. When the engine panics its owner dies with
  it and a new one opens a new engine; the requests must live on for the moment it takes to tell each caller how theirs ended,
  which the engine has told them. Admission counts anew from the supervisor's table. What one child may ask of another goes by
  name and can be refused. The order matters for stopping only: last started, first stopped.

  `:max_restarts` within `:max_seconds` count for all of them, so an engine that dies at once whenever it is opened takes the
  supervisor with it, and the supervisor above decides.
  """

  use Supervisor

  alias Pyrex.Engine.{Drainer, Owner, Table}
  alias Pyrex.{Admission, Cluster, Error, Native, Options, Telemetry}

  @doc false
  @spec start_link(Options.t()) :: Supervisor.on_start()
  def start_link(%Options{} = options), do: Supervisor.start_link(__MODULE__, options, name: options.name)

  @impl true
  def init(%Options{name: name} = options) do
    Table.new(options)
    requests = {DynamicSupervisor, name: Table.part(name, Requests), strategy: :one_for_one, max_restarts: 0}
    member = if options.cluster, do: [{Cluster.Member, name}], else: []
    children = [{Owner, name}, {Admission, name}, requests, {Drainer, options}] ++ member

    Supervisor.init(children,
      strategy: :one_for_one,
      max_restarts: options.max_restarts,
      max_seconds: options.max_seconds
    )
  end

  @doc false
  @spec info(atom) :: {:ok, map} | {:error, Error.t()}
  def info(name), do: read(name, &Native.engine_info/1)

  @doc false
  @spec stats(atom) :: {:ok, map} | {:error, Error.t()}
  def stats(name), do: read(name, &Native.engine_stats/1)

  @doc false
  @spec ask(atom, tuple, timeout) :: {:ok, term} | {:error, Error.t()}
  def ask(name, question, timeout) do
    with {:ok, engine} <- Table.engine(name), do: ask_native(engine, question, timeout)
  end

  @doc false
  @spec drain(atom, non_neg_integer) :: {:ok, non_neg_integer} | {:error, Error.t()}
  def drain(name, timeout_ms) do
    began = System.monotonic_time()

    with {:ok, engine} <- Table.engine(name) do
      Table.put_status(name, {:draining, engine})

      with {:ok, num_cut_off} <- ask_native(engine, {:drain, timeout_ms}, :infinity) do
        measured = %{duration: System.monotonic_time() - began, num_cut_off: num_cut_off}
        Telemetry.emit(Table.fetch!(name, :handler), [:engine, :drain], measured, %{engine: name})
        {:ok, num_cut_off}
      end
    end
  end

  @doc false
  @spec call(GenServer.server(), term, timeout) :: {:ok, term} | {:error, Error.t()}
  def call(server, message, timeout) do
    case :gen_server.receive_response(:gen_server.send_request(server, message), timeout) do
      {:reply, reply} ->
        {:ok, reply}

      :timeout ->
        {:error, Error.new(:deadline_exceeded, "#{inspect(server)} did not answer within #{timeout} ms")}

      {:error, {reason, _server}} ->
        {:error, Error.new(:closed, "#{inspect(server)} is gone: #{inspect(reason)}")}
    end
  end

  # A process of its own takes the answer, so that one that comes late is in nobody's way.
  @doc false
  @spec ask_native(Native.engine(), tuple, timeout) :: {:ok, term} | {:error, Error.t()}
  def ask_native(engine, question, timeout) do
    task = Task.async(fn -> await(engine, question) end)

    case Task.yield(task, timeout) || Task.shutdown(task, :brutal_kill) do
      {:ok, answer} -> answer
      nil -> {:error, Error.new(:deadline_exceeded, "the engine did not answer within #{timeout} ms")}
      {:exit, reason} -> {:error, Error.new(:internal, "asking the engine failed: #{inspect(reason)}")}
    end
  end

  defp await(engine, question) do
    id = System.unique_integer([:positive])

    case Native.engine_ask(engine, question, id, self()) do
      :ok ->
        receive do
          {:pyrex_reply, ^id, {:ok, answer}} -> {:ok, answer}
          {:pyrex_reply, ^id, {:error, error}} -> {:error, Error.from_native(error)}
        end

      {:error, error} ->
        {:error, Error.from_native(error)}
    end
  end

  defp read(name, read) do
    with {:ok, engine} <- Table.any_engine(name) do
      with {:error, error} <- read.(engine), do: {:error, Error.from_native(error)}
    end
  end
end
