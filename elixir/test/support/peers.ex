defmodule Pyrex.Peers do
  @moduledoc false
  # Nodes on this machine, for tests.

  import ExUnit.Callbacks

  @doc "Makes this VM a node."
  def distribute do
    unless Node.alive?() do
      {_output, 0} = System.cmd("epmd", ["-daemon"])
      {:ok, _pid} = Node.start(:"pyrex-#{System.pid()}@127.0.0.1", :longnames)
    end

    :ok
  end

  @doc "Starts a node on which the application runs; it stops with the test."
  def start do
    {:ok, _peer, node} =
      :peer.start(%{
        name: :"peer-#{System.pid()}-#{System.unique_integer([:positive])}",
        host: ~c"127.0.0.1",
        longnames: true,
        args: [~c"-setcookie", Atom.to_charlist(Node.get_cookie()), ~c"-pa" | :code.get_path()]
      })

    os_pid = os_pid(node)
    on_exit(fn -> System.cmd("kill", ["-9", os_pid], stderr_to_stdout: true) end)
    {:ok, _started} = :erpc.call(node, Application, :ensure_all_started, [:pyrex])
    node
  end

  @doc "Starts a scripted engine there that callers elsewhere may find."
  def serve(node, name, options \\ []) do
    options = Pyrex.Scripted.options(name, [cluster: true] ++ options)
    {:ok, _pid} = :erpc.call(node, Supervisor, :start_child, [Pyrex.Supervisor, {Pyrex, options}])

    Pyrex.Scripted.eventually("#{node} is known to serve", fn ->
      Pyrex.Cluster.loads(name)[node][:fresh] == true
    end)
  end

  @doc "The operating system's name for a node's process."
  def os_pid(node), do: :erpc.call(node, System, :pid, [])

  def signal(os_pid, signal), do: {_output, 0} = System.cmd("kill", ["-" <> signal, os_pid])
end
