defmodule Pyrex.HostileOptionsTest do
  # Nothing that a caller may write takes the VM down, or hangs it: every option with every value that is out of place.
  use ExUnit.Case, async: true

  import Pyrex.Scripted
  alias Pyrex.Error

  @values [
            0,
            -1,
            1,
            1.0,
            -0.5,
            1.0e308,
            0.0,
            1_000_000_000_000,
            -1_000_000_000_000,
            10 ** 400,
            2 ** 63,
            2 ** 64 - 1
          ] ++
            [
              "",
              "text",
              <<255>>,
              String.duplicate("x", 100_000),
              nil,
              true,
              false,
              :atom,
              ~c"list",
              [],
              [1 | 2],
              [[]]
            ] ++
            [
              %{},
              %{a: 1},
              {},
              {1, 2},
              {:bytes, 0},
              {:bytes, 10 ** 14},
              {:fraction, 0.0},
              {:fraction, 1.0e-300}
            ] ++
            [
              [{1, 2}],
              [{-1, 2.0}],
              [{999_999, 1.0}],
              ["", "a"],
              [""],
              [4_000_000_000],
              [a: 1],
              &String.length/1
            ]

  test "options of an engine open it, or are refused" do
    Process.flag(:trap_exit, true)
    name = Pyrex.HostileOptionsTest.Engine

    for option <- Pyrex.Options.names() -- [:name], value <- [make_ref(), self(), fn -> :ok end | @values] do
      case Pyrex.start_link(Keyword.put(options(name), option, value)) do
        {:ok, pid} -> Supervisor.stop(pid)
        {:error, error} -> assert %Error{message: <<_, _::binary>>} = error, "#{option}: #{inspect(error)}"
      end
    end
  end

  test "options of a request are answered, or are refused" do
    engine = start()

    for option <- Pyrex.Request.Options.names(), value <- [make_ref(), self(), fn -> :ok end | @values] do
      options = [{option, value} | if(option == :max_tokens, do: [], else: [max_tokens: 3])]

      case Pyrex.generate(engine, "hi", options) do
        {:ok, %Pyrex.Result{}} -> :ok
        {:error, error} -> assert %Error{message: <<_, _::binary>>} = error, "#{option}: #{inspect(error)}"
      end
    end

    assert Pyrex.generate!(engine, "hi").text == "hello"
    assert_idle(engine)
  end

  test "prompts are answered, or are refused" do
    engine = start()
    prompts = @values ++ for(value <- @values, tag <- [:text, :ids, :json], do: {tag, value})
    prompts = prompts ++ for(value <- @values, do: [%{role: :user, content: value}])
    prompts = prompts ++ for(value <- @values, tag <- [:image, :image_file, :text], do: [{tag, value}])

    for prompt <- prompts do
      case Pyrex.generate(engine, prompt, max_tokens: 1) do
        {:ok, %Pyrex.Result{}} -> :ok
        {:error, error} -> assert %Error{message: <<_, _::binary>>} = error, inspect(prompt)
      end
    end

    assert Pyrex.generate!(engine, "hi").text == "hello"
  end
end
