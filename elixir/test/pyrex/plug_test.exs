defmodule Pyrex.PlugTest do
  use ExUnit.Case, async: true

  import Pyrex.Scripted
  alias Plug.Conn
  alias Pyrex.JSON

  defp chat(text, fields \\ %{}) do
    {:ok, body} =
      JSON.encode(Map.merge(%{messages: [%{role: "user", content: text}], temperature: 0}, fields))

    body
  end

  # In a process of its own, as a connection is; what it sends comes here.
  defp connect(engine, conn, options \\ []) do
    options = Pyrex.Plug.init([engine: engine, model: "scripted"] ++ options)
    spawn(fn -> Pyrex.Plug.call(conn, options) end)
  end

  defp ask(engine, conn, options \\ []) do
    options = Pyrex.Plug.init([engine: engine, model: "scripted"] ++ options)
    assert %{halted: true, state: :sent} = Pyrex.Plug.call(conn, options)
    assert_receive {:answered, status, headers, body}
    {:ok, body} = JSON.decode(body)
    {status, headers, body}
  end

  defp chunks do
    assert_receive {:chunk, bytes}, 2_000
    if bytes =~ "[DONE]", do: bytes, else: bytes <> chunks()
  end

  defp said(stream) do
    for "data: {" <> rest <- String.split(stream, "\n"), {:ok, chunk} = JSON.decode("{" <> rest), into: "" do
      case chunk["choices"] do
        [%{"delta" => %{"content" => text}}] -> text
        _other -> ""
      end
    end
  end

  test "a conversation is answered whole, with the same text as Pyrex.generate's" do
    engine = start()

    assert {200, %{"content-type" => "application/json"}, body} =
             ask(engine, Conn.new("POST", "/v1/chat/completions", chat("hi", %{model: "scripted"})))

    assert %{"object" => "chat.completion", "model" => "scripted", "choices" => [choice]} = body
    assert choice["message"]["content"] == Pyrex.generate!(engine, "hi").text
    assert body["usage"]["completion_tokens"] > 0
    assert_idle(engine)
  end

  test "a text is gone on from, and a prefix of the path may be gone" do
    engine = start()
    {:ok, body} = JSON.encode(%{prompt: "hi", max_tokens: 3, temperature: 0})
    assert {200, _headers, answer} = ask(engine, Conn.new("POST", "/completions", body))

    assert %{"object" => "text_completion", "choices" => [%{"text" => "hel", "finish_reason" => "length"}]} =
             answer
  end

  test "a response is answered, whole and as events" do
    engine = start()
    {:ok, body} = JSON.encode(%{input: "hi", temperature: 0})
    assert {200, _headers, answer} = ask(engine, Conn.new("POST", "/v1/responses", body))

    assert %{"object" => "response", "status" => "completed", "output" => [%{"content" => [content]}]} =
             answer

    assert content["text"] == "hello"

    {:ok, body} = JSON.encode(%{input: "hi", temperature: 0, stream: true})
    connect(engine, Conn.new("POST", "/v1/responses", body))
    assert_receive {:began, 200, %{"content-type" => "text/event-stream"}}, 2_000
    assert events_until("response.completed") =~ "response.output_text.delta"
    assert_idle(engine)
  end

  defp events_until(last) do
    assert_receive {:chunk, bytes}, 2_000
    if bytes =~ last, do: bytes, else: bytes <> events_until(last)
  end

  test "a stream says the same piece by piece, and ends" do
    engine = start(delay_us: 1000)
    connect(engine, Conn.new("POST", "/v1/chat/completions", chat("word", %{stream: true})))
    assert_receive {:began, 200, %{"content-type" => "text/event-stream"}}, 2_000
    stream = chunks()
    assert said(stream) == "one two three"
    assert String.ends_with?(stream, "data: [DONE]\n\n")
    assert_idle(engine)
  end

  test "what is wrong is told in OpenAI's shape, with its field" do
    engine = start()
    conn = Conn.new("POST", "/v1/chat/completions", chat("hi", %{temperature: "hot"}))
    assert {400, _headers, %{"error" => error}} = ask(engine, conn)

    assert %{"type" => "invalid_request_error", "param" => "temperature", "message" => "temperature" <> _} =
             error

    # A stream that has said nothing yet is answered as if it was none.
    conn = Conn.new("POST", "/v1/chat/completions", chat("hi", %{stream: true, temperature: -1}))
    assert {400, %{"content-type" => "application/json"}, %{"error" => _error}} = ask(engine, conn)

    conn = Conn.new("POST", "/v1/chat/completions", chat("hi", %{model: "other"}))
    assert {404, _headers, %{"error" => %{"param" => "model"}}} = ask(engine, conn)

    assert {400, _headers, _body} = ask(engine, Conn.new("POST", "/v1/chat/completions", "{"))
    assert {400, _headers, _body} = ask(engine, Conn.new("POST", "/v1/chat/completions", {:error, :closed}))
    assert {408, _headers, _body} = ask(engine, Conn.new("POST", "/v1/chat/completions", {:error, :timeout}))
    assert {415, _headers, _body} = ask(engine, Conn.new("POST", "/v1/chat/completions", chat("hi"), []))
    assert {413, _, _} = ask(engine, Conn.new("POST", "/v1/chat/completions", chat("hi")), max_body_bytes: 8)
    assert {404, _headers, _body} = ask(engine, Conn.new("GET", "/v1/nothing"))
    assert {405, %{"allow" => "POST"}, _body} = ask(engine, Conn.new("GET", "/v1/chat/completions"))
    assert {405, %{"allow" => "GET"}, _body} = ask(engine, Conn.new("POST", "/v1/models"))
  end

  test "models are listed and described" do
    engine = start()
    assert {200, _headers, %{"data" => [%{"id" => "scripted"}]}} = ask(engine, Conn.new("GET", "/v1/models"))
    assert {200, _headers, %{"id" => "scripted"}} = ask(engine, Conn.new("GET", "/v1/models/scripted"))
    assert {404, _headers, %{"error" => _error}} = ask(engine, Conn.new("GET", "/v1/models/other"))
  end

  test "who has enough is told when to come back" do
    engine = start(delay_us: 1000, max_per_tenant: 1)
    {_holder, {:ok, _request}} = holder(fn -> Pyrex.submit(engine, "long", tenant: "a") end)
    tenant = fn conn -> [tenant: conn |> Conn.get_req_header("x-tenant") |> List.first()] end
    headers = &[{"content-type", "application/json"}, {"x-tenant", &1}]
    of = &Conn.new("POST", "/v1/chat/completions", chat("hi"), headers.(&1))
    assert {429, %{"retry-after" => seconds}, %{"error" => error}} = ask(engine, of.("a"), options: tenant)
    assert String.to_integer(seconds) >= 1
    assert error["type"] == "rate_limit_error"
    assert {200, _headers, _body} = ask(engine, of.("b"), options: tenant)
  end

  test "while there is no engine clients are told to come back" do
    assert {503, _headers, %{"error" => _error}} =
             ask(Nobody, Conn.new("POST", "/v1/chat/completions", chat("hi")))

    engine = start(backoff_ms: 5_000)
    Process.exit(Process.whereis(Pyrex.Engine.Table.part(engine, Owner)), :kill)
    eventually("it is gone", fn -> match?({:error, _closed}, Pyrex.info(engine)) end)
    conn = Conn.new("POST", "/v1/chat/completions", chat("hi"))
    assert {503, %{"retry-after" => _seconds}, _body} = ask(engine, conn)
  end

  test "an engine that dies in a stream ends it with an error" do
    engine = start(delay_us: 1000)
    connect(engine, Conn.new("POST", "/v1/chat/completions", chat("long", %{stream: true})))
    assert_receive {:chunk, "data: {" <> _first}, 2_000
    Pyrex.Native.test_panic(native(engine))
    stream = chunks()
    assert stream =~ ~s("error":) and stream =~ ~s("server_error")
  end

  test "a client that leaves a stream, also before the first word, frees what it held" do
    engine = start(delay_us: 1000)
    conn = Conn.new("POST", "/v1/chat/completions", chat("long", %{stream: true}))
    connect(engine, conn)
    assert_receive {:chunk, _first}, 2_000
    Conn.leave(conn)
    assert_idle(engine)

    # Every step takes long: nothing is said for more than a second.
    slow = start(delay_us: 1_500_000)
    conn = Conn.new("POST", "/v1/chat/completions", chat("long", %{stream: true}))
    connect(slow, conn)
    assert_receive {:chunk, ": keep-alive\n\n"}, 3_000
    Conn.leave(conn)
    assert_idle(slow, 4_000)
  end

  test "a connection that dies takes its request with it" do
    engine = start(delay_us: 1000)
    connection = connect(engine, Conn.new("POST", "/v1/chat/completions", chat("long")))
    eventually("it runs", fn -> stats(engine).num_running == 1 end)
    Process.exit(connection, :kill)
    assert_idle(engine)
  end

  test "options that are wrong raise when the router is made" do
    assert_raise Pyrex.Error, ~r/engine is nil/, fn -> Pyrex.Plug.init([]) end
    assert_raise Pyrex.Error, ~r/temperature/, fn -> Pyrex.Plug.init(engine: M, options: [temperature: 1]) end
    assert_raise Pyrex.Error, ~r/max_body_bytes is 0/, fn -> Pyrex.Plug.init(engine: M, max_body_bytes: 0) end
    assert %{model: "M"} = Pyrex.Plug.init(engine: {:cluster, M})
  end
end
