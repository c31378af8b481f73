defmodule Pyrex.ExitTest do
  # A VM that ends while streams are live ends cleanly: by halt, by stop, by a signal.
  use ExUnit.Case, async: true

  @times if System.get_env("PYREX_SLOW"), do: 50, else: 3

  @tag timeout: 600_000
  test "a VM with live streams ends with the code it was told" do
    script = """
    options = Pyrex.Scripted.options(Engine, delay_us: 200, drain_timeout_ms: 50)
    {:ok, _pid} = Pyrex.start_link(options)
    for _n <- 1..8, do: spawn(fn -> Enum.each(Pyrex.stream(Engine, "long"), fn _text -> :ok end) end)
    Process.sleep(20)
    """

    endings = [
      "System.halt(7)",
      "System.stop(7); Process.sleep(:infinity)",
      "System.cmd(\"kill\", [System.pid()]); Process.sleep(:infinity)"
    ]

    for n <- 1..@times, ending = Enum.at(endings, rem(n, 3)) do
      paths = Enum.flat_map(:code.get_path(), &["-pa", List.to_string(&1)])

      {output, code} =
        System.cmd("elixir", paths ++ ["-e", "Application.ensure_all_started(:pyrex)\n" <> script <> ending],
          stderr_to_stdout: true
        )

      assert {code, output} in [{7, ""}, {0, ""}] or (code in [0, 7] and output =~ "SIGTERM"),
             "#{ending}: #{code} #{output}"
    end
  end
end
