defmodule Pyrex.ExamplesTest do
  use ExUnit.Case, async: false
  import ExUnit.CaptureIO

  @answer "This is a simple image of a solid red circle on a white background.\n"

  test "the README's example describes the bundled picture" do
    # What follows `mix test` is not for the example.
    arguments = System.argv()
    on_exit(fn -> System.argv(arguments) end)
    System.argv([])
    assert capture_io(fn -> Code.eval_file("examples/describe.exs") end) == @answer
  end
end
