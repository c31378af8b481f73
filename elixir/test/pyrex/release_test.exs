defmodule Pyrex.ReleaseTest do
  # A project that depends on this one by path, or by git, builds, and its release runs.
  use ExUnit.Case, async: true

  @root Path.expand("../..", __DIR__)

  @tag :slow
  @tag :tmp_dir
  @tag timeout: 600_000
  test "the release of an app that depends on Pyrex describes an image", %{tmp_dir: folder} do
    File.mkdir_p!(Path.join(folder, "lib"))

    File.write!(Path.join(folder, "mix.exs"), """
    defmodule Sample.MixProject do
      use Mix.Project
      def project, do: [app: :sample, version: "0.1.0", deps: [{:pyrex, path: #{inspect(@root)}}]]
      def application, do: [mod: {Sample, []}]
    end
    """)

    File.write!(Path.join(folder, "lib/sample.ex"), """
    defmodule Sample do
      use Application
      @model #{inspect(Path.expand("../models/shapes", @root))}

      def start(_type, _arguments),
        do: Supervisor.start_link([{Pyrex, name: Sample.Model, model: @model}], strategy: :one_for_one)

      def describe do
        image = {:image_file, Path.join(@model, "examples/red_circle.png")}
        IO.puts(Pyrex.generate!(Sample.Model, [image, "Describe this image."]).text)
      end
    end
    """)

    env = [
      {"MIX_ENV", "prod"},
      {"PYREX_NIF_PATH", to_string(:code.priv_dir(:pyrex)) <> "/native/pyrex_nif.so"}
    ]

    {output, code} = System.cmd("mix", ["release"], cd: folder, env: env, stderr_to_stdout: true)
    assert code == 0, output
    # Nothing of the build is needed any more.
    File.rm_rf!(Path.join(folder, "_build/prod/lib"))

    {output, code} =
      System.cmd(Path.join(folder, "_build/prod/rel/sample/bin/sample"), [
        "eval",
        "Application.ensure_all_started(:sample); Sample.describe()"
      ])

    assert {output, code} == {"This is a simple image of a solid red circle on a white background.\n", 0}
  end
end
