defmodule Pyrex.ServerTest do
  use ExUnit.Case, async: true

  import Pyrex.Scripted
  alias Pyrex.{Client, Error, JSON, Server}

  @chat "/v1/chat/completions"

  defp serve(engine, options \\ []) do
    id = System.unique_integer()
    server = start_supervised!(Supervisor.child_spec({Server, [engine: engine, port: 0] ++ options}, id: id))
    {server, Server.address(server)}
  end

  defp chat(text, fields \\ %{}) do
    messages = [%{role: "user", content: text}]
    {:ok, body} = JSON.encode(Map.merge(%{messages: messages, temperature: 0}, fields))
    body
  end

  defp text(body) do
    {:ok, %{"choices" => [%{"message" => %{"content" => text}}]}} = JSON.decode(body)
    text
  end

  defp requests(engine), do: Pyrex.Engine.Table.requests(engine) |> Enum.map(&elem(&1, 0))

  test "an answer is what Pyrex.generate says, and models have the engine's name" do
    engine = start()
    {_server, address} = serve(engine)
    assert {200, _head, body} = Client.ask(address, @chat, chat("hi", %{model: inspect(engine)}))
    assert text(body) == Pyrex.generate!(engine, "hi").text
    assert {200, _head, models} = Client.ask(address, "/v1/models")
    assert models =~ inspect(engine)
    assert {200, _head, _body} = Client.ask(address, "/health/ready")
    assert {404, _head, _body} = Client.ask(address, "/nothing")
    assert_idle(engine)
  end

  test "a stream comes piece by piece, and its request is a process with telemetry" do
    me = self()
    engine = start(delay_us: 2000, telemetry: &send(me, {&1, &2, &3}))
    {_server, address} = serve(engine)
    assert {200, head, stream} = Client.ask(address, @chat, chat("word", %{stream: true}))
    assert head =~ "text/event-stream"
    assert length(String.split(stream, "data: ")) > 10
    assert String.ends_with?(stream, "data: [DONE]\n\n")
    assert_receive {[:pyrex, :request, :start], _measured, %{tenant: "default", request: id}}
    assert is_binary(id)
    assert_receive {[:pyrex, :request, :first_token], %{duration: _duration}, %{request: ^id}}
    assert_receive {[:pyrex, :request, :stop], %{completion_tokens: num_tokens}, %{request: ^id}}

    counted = fn counted, sum ->
      receive do
        {[:pyrex, :request, :tokens], %{count: count}, %{request: ^id}} -> counted.(counted, sum + count)
      after
        0 -> sum
      end
    end

    assert counted.(counted, 0) == num_tokens
    assert_idle(engine)
  end

  test "the death of a request's process ends the answer" do
    engine = start(delay_us: 2000)
    {_server, address} = serve(engine)
    {:ok, socket} = Client.open(address, @chat, chat("long", %{stream: true}))
    {:ok, head} = Client.read(socket)
    assert [request] = requests(engine)
    Process.exit(request, :kill)
    assert {200, _head, stream} = Client.rest(socket, head)
    assert stream =~ ~s("cancelled")
    assert_idle(engine, 200)
  end

  test "a client that leaves frees what its request held, in every phase" do
    engine = start(delay_us: 2000, max_sequences: 1)
    {_server, address} = serve(engine)

    {:ok, running} = Client.open(address, @chat, chat("long", %{stream: true}))
    eventually("it runs", fn -> stats(engine).num_running == 1 end)
    {:ok, waiting} = Client.open(address, @chat, chat("long"))
    eventually("another waits", fn -> stats(engine).num_waiting == 1 end)
    Client.close(waiting)
    eventually("it waits no more", 200, fn -> stats(engine).num_waiting == 0 end)
    Client.close(running)
    assert_idle(engine, 200)

    {:ok, whole} = Client.open(address, @chat, chat("long"))
    eventually("it runs", fn -> stats(engine).num_running == 1 end)
    Client.close(whole)
    assert_idle(engine, 200)
  end

  test "who has enough is told 429, and when to come back" do
    engine = start(delay_us: 2000, max_per_tenant: 1)
    {_server, address} = serve(engine)
    {:ok, first} = Client.open(address, @chat, chat("long", %{stream: true}))
    eventually("the first runs", fn -> stats(engine).num_running == 1 end)
    assert {429, head, body} = Client.ask(address, @chat, chat("hi"))
    assert head =~ "retry-after: "
    assert body =~ "max_per_tenant"
    Client.close(first)
    eventually("there is room", fn -> match?({200, _, _}, Client.ask(address, @chat, chat("hi"))) end)
  end

  test "an engine that panics ends the answers under way, says 503, and serves again" do
    engine = start(delay_us: 2000, backoff_ms: 500)
    {_server, address} = serve(engine)
    {:ok, socket} = Client.open(address, @chat, chat("long", %{stream: true}))
    {:ok, head} = Client.read(socket)
    Pyrex.Native.test_panic(native(engine))
    assert {200, _head, stream} = Client.rest(socket, head)
    assert stream =~ ~s("server_error")
    assert {503, head, _body} = Client.ask(address, @chat, chat("hi"))
    assert head =~ "retry-after: "

    eventually("it serves again", 5_000, fn -> match?({200, _, _}, Client.ask(address, @chat, chat("hi"))) end)

    assert_idle(engine)
  end

  test "a swap moves new requests" do
    engine = start()
    {_server, address} = serve(engine)
    assert {200, _head, body} = Client.ask(address, @chat, chat("hi"))
    assert text(body) == "hello"
    script = %{answers: [{"hi", "good day"}], max_position_embeddings: 8192, delay_us: 0}
    assert {:ok, 0} = Pyrex.swap(engine, model: {:scripted, script})
    assert {200, _head, body} = Client.ask(address, @chat, chat("hi"))
    assert text(body) == "good day"
  end

  test "stopping under load loses no request that was taken" do
    engine = start(delay_us: 1000, max_sequences: 64)
    {server, address} = serve(engine)
    me = self()

    clients =
      for _n <- 1..16 do
        Task.async(fn ->
          answer = Client.ask(address, @chat, chat("word"))
          send(me, :answered)
          ask_until_closed(address, [answer])
        end)
      end

    assert_receive :answered, 5_000
    monitor = Process.monitor(server)
    [{id, _pid, _type, _modules}] = for {_, ^server, _, _} = child <- children(), do: child
    :ok = stop_supervised(id)
    assert_receive {:DOWN, ^monitor, :process, _pid, :shutdown}
    answers = clients |> Task.await_many(20_000) |> List.flatten()
    for {200, _head, body} <- answers, do: assert(text(body) == "one two three")
    assert Enum.count(answers, &match?({200, _, _}, &1)) >= 16
    # What was not taken was told so, or found the port closed.
    assert Enum.all?(
             answers,
             &(match?({status, _, _} when status in [200, 503], &1) or match?({:error, _}, &1) or
                 match?({:error, _, ""}, &1))
           )

    assert_idle(engine)
  end

  defp children do
    {:ok, supervisor} = ExUnit.fetch_test_supervisor()
    Supervisor.which_children(supervisor)
  end

  defp ask_until_closed(address, answers) do
    case Client.ask(address, @chat, chat("word")) do
      {200, _head, _body} = answer -> ask_until_closed(address, [answer | answers])
      last -> [last | answers]
    end
  end

  test "the server that is killed closes its port, and cancels" do
    engine = start(delay_us: 2000)
    Process.flag(:trap_exit, true)
    {:ok, server} = Server.start_link(engine: engine, port: 0)
    address = Server.address(server)
    {:ok, socket} = Client.open(address, @chat, chat("long", %{stream: true}))
    eventually("it runs", fn -> stats(engine).num_running == 1 end)
    Process.exit(server, :kill)
    assert_idle(engine, 500)
    Client.rest(socket)
    eventually("the port is closed", fn -> match?({:error, _reason}, Client.open(address, "/")) end)
  end

  test "only those with a certificate get in, and who they are is their tenant" do
    engine = start(delay_us: 500, max_per_tenant: 1)
    folder = Path.join(System.tmp_dir!(), "pyrex-#{System.unique_integer([:positive])}")
    File.mkdir_p!(folder)
    on_exit(fn -> File.rm_rf!(folder) end)
    {files, client} = certificates(folder)
    {_server, address} = serve(engine, tls: files)
    trust = [verify: :verify_none]
    assert {200, _head, body} = Client.ask(address, @chat, chat("hi"), trust ++ client)
    assert text(body) == "hello"
    refute match?({200, _, _}, Client.ask(address, @chat, chat("hi"), trust))
  end

  defp certificates(folder) do
    made = [key: {:rsa, 2048, 65_537}, digest: :sha256]
    chain = %{root: made, intermediates: [], peer: made}

    %{server_config: server, client_config: client} =
      :public_key.pkix_test_data(%{server_chain: chain, client_chain: chain})

    {key_type, key} = server[:key]

    files = [
      cert: [{:Certificate, server[:cert], :not_encrypted}],
      key: [{key_type, key, :not_encrypted}],
      client_ca: for(der <- server[:cacerts], do: {:Certificate, der, :not_encrypted})
    ]

    files =
      for {name, entries} <- files do
        path = Path.join(folder, "#{name}.pem")
        File.write!(path, :public_key.pem_encode(entries))
        {name, path}
      end

    {files, Keyword.take(client, [:cert, :key])}
  end

  test "what cannot be had fails the start with the reason" do
    engine = start()
    Process.flag(:trap_exit, true)
    {_server, address} = serve(engine)
    port = address |> String.split(":") |> List.last() |> String.to_integer()

    for {options, expected} <- [
          {[port: port], "127.0.0.1:#{port}"},
          {[host: "0.0.0.0"], "insecure"},
          {[prt: 1], "prt"},
          {[limits: [max_bodies: 1]], "max_bodies"},
          {[limits: 5], "invalid type"},
          {[tls: [cert: "no/such/file"]], "tls.key"},
          {[port: 70_000], "70000"},
          {[num_threads: 0], "num_threads is 0"},
          {[engine: nil], "engine is nil"},
          {[tenants: %{"a" => [max_concurrent: -1]}], "-1"},
          {[images: self()], "hold a term"}
        ] do
      assert {:error, %Error{} = error} = Server.start_link(Keyword.merge([engine: engine, port: 0], options))
      assert error.message =~ expected, "#{inspect(options)}: #{error.message}"
    end
  end

  test "tenants may change while it runs, and nothing else" do
    engine = start()
    {server, address} = serve(engine, tenants: %{"default" => [requests_per_minute: 1]})
    assert {200, _head, _body} = Client.ask(address, @chat, chat("hi"))
    assert {429, _head, _body} = Client.ask(address, @chat, chat("hi"))
    assert :ok = Server.reload(server, tenants: %{"default" => [requests_per_minute: 100]})
    assert {200, _head, _body} = Client.ask(address, @chat, chat("hi"))
    assert {:error, %Error{message: "port cannot change" <> _}} = Server.reload(server, port: 1)
    assert {:error, %Error{}} = Server.reload(server, tenants: %{"a" => [keys: ["nobody"]]})
  end

  test "a server without an engine says so until there is one" do
    name = :"Late#{System.unique_integer([:positive])}"
    {_server, address} = serve(name)
    assert {503, _head, _body} = Client.ask(address, @chat, chat("hi"))
    start_supervised!({Pyrex, options(name)})
    eventually("it serves", fn -> match?({200, _, _}, Client.ask(address, @chat, chat("hi"))) end)
  end
end
