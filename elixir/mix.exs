defmodule Mix.Tasks.Compile.PyrexNif do
  @moduledoc """
  Puts the NIF where `Pyrex.Native` loads it from, `priv/native/pyrex_nif.so`.

  The file named by `PYREX_NIF_PATH` is taken as it is. Without that variable cargo builds the crate `pyrex-nif` of the
  repository this project lies in, in the target folder of that workspace (or `CARGO_TARGET_DIR`), so that nothing is
  built twice. `PYREX_NIF_FEATURES` names cargo features; the tests of this project ask for `test-util`.
  """
  use Mix.Task.Compiler

  @target Path.expand("priv/native/pyrex_nif.so", __DIR__)

  @impl true
  def run(_arguments) do
    bytes = File.read!(prebuilt() || build(workspace()))

    if File.read(@target) == {:ok, bytes} do
      {:noop, []}
    else
      File.mkdir_p!(Path.dirname(@target))
      # A file that some VM has mapped must not be written over: the new one takes its name.
      File.write!(@target <> ".new", bytes)
      File.rename!(@target <> ".new", @target)
      Mix.Project.build_structure()
      {:ok, []}
    end
  end

  @impl true
  def clean, do: File.rm(@target)

  defp prebuilt do
    path = System.get_env("PYREX_NIF_PATH")

    if path && not File.regular?(path),
      do: Mix.raise("PYREX_NIF_PATH is #{path}, expected the file of a built NIF"),
      else: path
  end

  defp build(root) do
    cargo =
      System.find_executable("cargo") || Mix.raise("cargo is not installed, and PYREX_NIF_PATH is not set")

    features = System.get_env("PYREX_NIF_FEATURES") || if(Mix.env() == :test, do: "test-util", else: "")
    arguments = ~w(build --release --package pyrex-nif --features) ++ [features]

    case System.cmd(cargo, arguments, cd: root, into: IO.stream(), stderr_to_stdout: true) do
      {_output, 0} ->
        Path.join([Path.expand(System.get_env("CARGO_TARGET_DIR", "target"), root), "release", library()])

      {_output, code} ->
        Mix.raise("cargo #{Enum.join(arguments, " ")} ended with #{code} in #{root}")
    end
  end

  defp library do
    case :os.type() do
      {:unix, :darwin} -> "libpyrex_nif.dylib"
      {:unix, _other} -> "libpyrex_nif.so"
    end
  end

  # A git dependency with `sparse: "elixir"` has only this folder on disk, but all of the repository beside it.
  defp workspace do
    root = Path.expand("..", __DIR__)

    cond do
      File.regular?(Path.join(root, "Cargo.toml")) -> root
      File.exists?(Path.join(root, ".git")) -> unpack(root, Path.expand("_build/workspace", __DIR__))
      true -> Mix.raise("no Cargo.toml in #{root}: set PYREX_NIF_PATH to a built NIF")
    end
  end

  defp unpack(root, folder) do
    archive = folder <> ".tar"
    File.mkdir_p!(folder)
    {_output, 0} = System.cmd("git", ["archive", "--output", archive, "HEAD"], cd: root)
    :ok = :erl_tar.extract(archive, cwd: folder)
    File.rm!(archive)
    folder
  end
end

defmodule Pyrex.MixProject do
  use Mix.Project

  def project do
    [
      app: :pyrex,
      version: "0.1.0",
      elixir: "~> 1.14",
      description: "Text and images in, tokens out: a supervised multimodal inference engine in your own VM",
      compilers: [:pyrex_nif] ++ Mix.compilers(),
      elixirc_paths: if(Mix.env() == :test, do: ["lib", "test/support"], else: ["lib"]),
      start_permanent: Mix.env() == :prod,
      deps: []
    ]
  end

  def application do
    # What tests ask the server with.
    clients = if Mix.env() == :test, do: [:ssl, :public_key], else: []
    [mod: {Pyrex.Application, []}, extra_applications: [:logger | clients]]
  end
end
