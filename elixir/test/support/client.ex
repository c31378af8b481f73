defmodule Pyrex.Client do
  @moduledoc false
  # An HTTP client of the tests: one request on a connection of its own, whose socket a test may read as slowly as it likes.

  @doc "Asks, and reads nothing."
  def open(address, path, body \\ nil, tls \\ nil) do
    [host, port] = String.split(address, ":")
    options = [:binary, active: false, packet: :raw]
    {host, port} = {String.to_charlist(host), String.to_integer(port)}

    with {:ok, socket} <- connect(host, port, options, tls),
         :ok <- write(socket, request(path, body)),
         do: {:ok, socket}
  end

  @doc "Asks, and reads all: status, head and body."
  def ask(address, path, body \\ nil, tls \\ nil) do
    with {:ok, socket} <- open(address, path, body, tls), do: rest(socket)
  end

  @doc "What there is next, of head or body."
  def read({:tls, socket}), do: :ssl.recv(socket, 0, 10_000)
  def read({:tcp, socket}), do: :gen_tcp.recv(socket, 0, 10_000)

  @doc "All until the server closes."
  def rest(socket, before \\ "") do
    case read(socket) do
      {:ok, bytes} -> rest(socket, before <> bytes)
      {:error, :closed} -> answer(before)
      {:error, reason} -> {:error, reason, before}
    end
  end

  def close({:tcp, socket}), do: :gen_tcp.close(socket)

  defp connect(host, port, options, nil) do
    with {:ok, socket} <- :gen_tcp.connect(host, port, options), do: {:ok, {:tcp, socket}}
  end

  defp connect(host, port, options, tls) do
    with {:ok, socket} <- :ssl.connect(host, port, options ++ tls), do: {:ok, {:tls, socket}}
  end

  defp write({:tls, socket}, bytes), do: :ssl.send(socket, bytes)
  defp write({:tcp, socket}, bytes), do: :gen_tcp.send(socket, bytes)

  defp request(path, nil), do: "GET #{path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"

  defp request(path, body) do
    "POST #{path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-type: application/json\r\n" <>
      "content-length: #{byte_size(body)}\r\n\r\n" <> body
  end

  defp answer(""), do: {:error, :closed, ""}

  defp answer("HTTP/1.1 " <> <<status::binary-size(3)>> <> rest) do
    [head, body] = String.split(rest, "\r\n\r\n", parts: 2)

    {String.to_integer(status), String.downcase(head),
     if(head =~ ~r/chunked/i, do: unchunk(body), else: body)}
  end

  # One that broke off ends early.
  defp unchunk(body) do
    with {size, "\r\n" <> rest} when size > 0 and byte_size(rest) >= size + 2 <- Integer.parse(body, 16) do
      <<bytes::binary-size(size), "\r\n", rest::binary>> = rest
      bytes <> unchunk(rest)
    else
      _end -> ""
    end
  end
end
