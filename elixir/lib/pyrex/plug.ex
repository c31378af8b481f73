defmodule Pyrex.Plug do
  @moduledoc """
  OpenAI's protocol for those who run Phoenix or Bandit, as a `Plug`. Pyrex itself does not need Plug.

      # in a Phoenix or Plug router, before anything reads bodies
      forward "/v1", to: Pyrex.Plug, init_opts: [engine: MyModel, model: "shapes"]

  | path | |
  |---|---|
  | `POST /v1/chat/completions`, `/v1/completions`, `/v1/responses` | answered whole or streamed |
  | `GET /v1/models`, `/v1/models/:model` | the one model there is |

  Whatever else is asked is told 404, in the shape of OpenAI's errors as all errors are; those that pass have `Retry-After`.
  Threads of Rust read bodies and write answers.

  The process of the connection is the caller of its request: when it dies the request is cancelled. A client that leaves is
  seen when something is written, so a stream that has nothing to say says `: keep-alive` once a second, and an answer that
  comes whole is worked out for whoever waits for it. `Pyrex.Server` sees both at once.

  ## Options

    * `:engine` (required): as everywhere, also `{:cluster, name}`
    * `:model`: what clients call it, the engine's name unless given; a client that asks for another is told 404
    * `:options`: of requests, or a function that makes them of a `Plug.Conn`: `:tenant`, `:group`, `:priority`, `:cache_salt`,
      `:timeout_ms`, `:affinity`, see `Pyrex.Request.Options`. They hold over what the body says, so give each tenant a
      `:cache_salt` and a `:priority` of its own if tenants do not trust each other
    * `:max_body_bytes`: a longer body is told 413; 32 MiB

  Bodies are read as they come, so it must stand before `Plug.Parsers`, or where that leaves JSON alone.
  """

  @compile {:no_warn_undefined, [Plug.Conn]}

  alias Pyrex.{Check, Error, Feed, Native, Question}

  @keep_alive_ms 1_000
  @endpoints %{
    ["chat", "completions"] => :chat,
    ["completions"] => :completions,
    ["responses"] => :responses
  }

  @fields [
    {:engine, nil, :any},
    {:model, nil, :string},
    {:options, [], :any},
    {:max_body_bytes, 32 * 1024 * 1024, {:integer, 1, 0xFFFFFFFF}}
  ]

  @doc "Checks the options. Raises if they are wrong."
  @spec init(keyword) :: map
  def init(options) do
    with {:ok, checked} <- Check.options(options, @fields),
         :ok <- engine(checked.engine),
         :ok <- options(checked.options) do
      model = checked.model || inspect(name(checked.engine))
      Map.merge(checked, %{model: model, created: System.os_time(:second)})
    else
      {:error, error} -> raise error
    end
  end

  @doc "Answers."
  @spec call(struct, map) :: struct
  def call(conn, options), do: conn |> route(path(conn.path_info), options) |> Plug.Conn.halt()

  defp route(%{method: "GET"} = conn, ["models"], options),
    do: json(conn, 200, Native.openai_models([{options.model, options.created}]))

  defp route(%{method: "GET"} = conn, ["models", model], %{model: model} = options),
    do: json(conn, 200, Native.openai_model(model, options.created))

  defp route(%{method: "POST"} = conn, path, options) when is_map_key(@endpoints, path),
    do: answer(conn, @endpoints[path], options)

  defp route(conn, path, _options) when is_map_key(@endpoints, path), do: other_method(conn, "POST")
  defp route(conn, ["models"], _options), do: other_method(conn, "GET")
  defp route(conn, ["models", _model], _options) when conn.method != "GET", do: other_method(conn, "GET")
  defp route(conn, path, _options), do: refuse(conn, 404, "nothing is at /v1/#{Enum.join(path, "/")}")

  defp answer(conn, endpoint, options) do
    with :ok <- content_type(conn),
         {:ok, body, conn} <- body(conn, options),
         {:ok, question} <-
           Question.openai(endpoint, body, served(options), of_request(options.options, conn)),
         {:ok, feed} <- Feed.open(options.engine, question) do
      follow(Feed.ask(feed), %{conn: conn, streams: false, began: false})
    else
      {:error, %Error{} = error} -> failed(conn, error)
      {:refused, status, message} -> refuse(conn, status, message)
    end
  end

  defp follow(feed, reply) do
    case Feed.await(feed, @keep_alive_ms) do
      {:idle, feed} ->
        go_on(feed, if(reply.streams, do: chunk(reply, ": keep-alive\n\n"), else: {:ok, reply}))

      {events, feed} ->
        heard(feed, reply, Enum.find(events, &Pyrex.Event.written?/1), List.last(events))
    end
  end

  # One that went away without a word of its own, with its node for one.
  defp heard(feed, reply, nil, {:failed, error} = last),
    do: heard(feed, reply, Tuple.insert_at(written(error), 0, :written), last)

  defp heard(feed, reply, {:written, 200, "text/event-stream", bytes}, last) do
    reply = %{reply | streams: true}
    said = if bytes == "", do: {:ok, reply}, else: chunk(reply, bytes)
    if Pyrex.Event.final?(last), do: finish(feed, said), else: ask_on(feed, said)
  end

  # It failed before the first word, but its head is out.
  defp heard(feed, %{began: true} = reply, {:written, _status, _type, bytes}, _last),
    do: finish(feed, chunk(reply, ["data: ", bytes, "\n\ndata: [DONE]\n\n"]))

  defp heard(feed, reply, {:written, status, _type, bytes}, last) do
    if Pyrex.Event.final?(last) do
      reply.conn |> retry_after(last) |> json(status, bytes)
    else
      ask_on(feed, {:ok, reply})
    end
  end

  defp ask_on(feed, {:ok, reply}), do: follow(Feed.ask(feed), reply)
  defp ask_on(feed, gone), do: finish(feed, gone)

  defp go_on(feed, {:ok, reply}), do: follow(feed, reply)
  defp go_on(feed, gone), do: finish(feed, gone)

  defp finish(_feed, {:ok, reply}), do: reply.conn

  defp finish(feed, {:gone, reply}) do
    Feed.close(feed)
    reply.conn
  end

  defp chunk(%{began: false} = reply, bytes) do
    conn =
      reply.conn
      |> Plug.Conn.put_resp_header("content-type", "text/event-stream")
      |> Plug.Conn.put_resp_header("cache-control", "no-cache")
      |> Plug.Conn.send_chunked(200)

    chunk(%{reply | conn: conn, began: true}, bytes)
  end

  defp chunk(reply, bytes) do
    case Plug.Conn.chunk(reply.conn, bytes) do
      {:ok, conn} -> {:ok, %{reply | conn: conn}}
      {:error, _reason} -> {:gone, reply}
    end
  end

  defp content_type(conn) do
    type = conn |> Plug.Conn.get_req_header("content-type") |> List.first("")

    if type |> String.split(";") |> hd() |> String.trim() |> String.downcase() == "application/json",
      do: :ok,
      else: {:refused, 415, "content-type is #{inspect(type)}, expected application/json"}
  end

  defp body(conn, %{max_body_bytes: most}) do
    case Plug.Conn.read_body(conn, length: most) do
      {:ok, body, conn} when byte_size(body) <= most -> {:ok, body, conn}
      {:ok, _body, _conn} -> {:refused, 413, "the body is longer than #{most} bytes"}
      {:more, _part, _conn} -> {:refused, 413, "the body is longer than #{most} bytes"}
      {:error, :timeout} -> {:refused, 408, "the body did not come in time"}
      {:error, _reason} -> {:refused, 400, "the body breaks off"}
    end
  end

  defp served(%{model: model}) do
    unique = :erlang.term_to_binary({node(), System.system_time(), System.unique_integer()})

    %{
      id: unique |> :erlang.md5() |> Base.encode16(case: :lower),
      created: System.os_time(:second),
      model: model
    }
  end

  defp of_request(options, conn) when is_function(options), do: options.(conn)
  defp of_request(options, _conn), do: options

  defp failed(conn, error) do
    {status, _type, bytes} = written(error)
    conn |> retry_after({:failed, error}) |> json(status, bytes)
  end

  defp written(error), do: Native.openai_error(error.kind, error.message)

  defp other_method(conn, method),
    do:
      conn
      |> Plug.Conn.put_resp_header("allow", method)
      |> refuse(405, "the method is #{conn.method}, expected #{method}")

  defp refuse(conn, status, message) do
    {_status, _type, bytes} = Native.openai_error(:invalid_request, message)
    json(conn, status, bytes)
  end

  defp retry_after(conn, {:failed, %Error{retry_after_ms: ms}}) when is_integer(ms),
    do: Plug.Conn.put_resp_header(conn, "retry-after", Integer.to_string(max(div(ms + 999, 1000), 1)))

  defp retry_after(conn, _last), do: conn

  defp json(conn, status, bytes) do
    conn
    |> Plug.Conn.put_resp_header("content-type", "application/json")
    |> Plug.Conn.send_resp(status, bytes)
  end

  # Forwarded to, or not.
  defp path(["v1" | path]), do: path
  defp path(path), do: path

  defp name({:cluster, name}), do: name
  defp name({name, _node}), do: name
  defp name(name), do: name

  defp engine({name, node}) when is_atom(name) and is_atom(node), do: :ok
  defp engine(name) when is_atom(name) and not is_nil(name), do: :ok
  defp engine(other), do: Check.invalid("engine is #{Check.show(other)}, expected the name of an engine")

  # Given once for all, they are wrong once for all.
  defp options(given) when is_function(given, 1), do: :ok
  defp options(given), do: with({:ok, _question} <- Question.new({:json, ""}, given), do: :ok)
end
