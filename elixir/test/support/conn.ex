defmodule Plug.Conn do
  @moduledoc false
  # As much of Plug as `Pyrex.Plug` uses. What is sent goes to the process `client`, which `gone` says has left.

  defstruct [
    :client,
    :method,
    :path_info,
    :body,
    req_headers: [],
    resp_headers: [],
    state: :unset,
    halted: false,
    gone: nil
  ]

  def new(method, path, body \\ "", headers \\ [{"content-type", "application/json"}]) do
    path_info = String.split(path, "/", trim: true)
    gone = :atomics.new(1, [])

    %__MODULE__{
      client: self(),
      method: method,
      path_info: path_info,
      body: body,
      req_headers: headers,
      gone: gone
    }
  end

  def leave(conn), do: :atomics.put(conn.gone, 1, 1)

  def get_req_header(conn, name), do: for({^name, value} <- conn.req_headers, do: value)

  def read_body(%{body: {:error, reason}}, _options), do: {:error, reason}

  def read_body(conn, options) do
    most = Keyword.fetch!(options, :length)

    if byte_size(conn.body) > most,
      do: {:more, binary_part(conn.body, 0, most), conn},
      else: {:ok, conn.body, conn}
  end

  def put_resp_header(conn, name, value),
    do: %{conn | resp_headers: List.keystore(conn.resp_headers, name, 0, {name, value})}

  def send_resp(%{state: :unset} = conn, status, body) do
    send(conn.client, {:answered, status, Map.new(conn.resp_headers), IO.iodata_to_binary(body)})
    %{conn | state: :sent}
  end

  def send_chunked(%{state: :unset} = conn, status) do
    send(conn.client, {:began, status, Map.new(conn.resp_headers)})
    %{conn | state: :chunked}
  end

  def chunk(%{state: :chunked} = conn, bytes) do
    if :atomics.get(conn.gone, 1) == 1 do
      {:error, :closed}
    else
      send(conn.client, {:chunk, IO.iodata_to_binary(bytes)})
      {:ok, conn}
    end
  end

  def halt(conn), do: %{conn | halted: true}
end
