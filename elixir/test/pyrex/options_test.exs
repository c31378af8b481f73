defmodule Pyrex.OptionsTest do
  use ExUnit.Case, async: true
  doctest Pyrex.Options

  alias Pyrex.Options

  defp message(options) do
    assert {:error, %Pyrex.Error{kind: :invalid_request, message: message}} = Options.new(options)
    message
  end

  test "a folder is all that is needed" do
    assert {:ok, %Options{model: "folder", name: Pyrex, prefix_cache: true, max_restarts: 2}} =
             Options.new(model: "folder")

    assert message([]) == "model is missing, expected the folder of a checkpoint"
  end

  test "what is wrong is named with its value and what was expected" do
    for {option, value, expected} <- [
          {:num_threads, -1, "num_threads is -1, expected an integer from 1 to 1024"},
          {:max_waiting, 1.5, "max_waiting is 1.5, expected an integer from 1 to 4294967295"},
          {:prefix_cache, nil, "prefix_cache is nil, expected true or false"},
          {:dtype, :f16, "dtype is :f16, expected :f32 or :bf16"},
          {:vision_dtype, "bf16", "vision_dtype is \"bf16\", expected :f32 or :bf16"},
          {:tables, :disk, "tables is :disk, expected :device or :host"},
          {:name, "text", "name is \"text\", expected an atom"},
          {:name, :cluster, "name is :cluster, expected a name"}
        ] do
      assert message([{:model, "folder"}, {option, value}]) == expected
    end

    assert message(model: "folder", kv_cache: {:fraction, 2}) =~
             "kv_cache is {:fraction, 2}, expected {:bytes, an integer from 1 to"

    assert message(model: "folder", nam: 1) =~ ":nam is no option, expected one of model, device"
    assert message(:none) == "options are :none, expected a keyword list"
    assert message(model: "folder", num_threads: 10 ** 30) =~ "num_threads is an integer beyond 64 bits"
  end

  test "options are put over others" do
    {:ok, present} = Options.new(model: "folder", max_sequences: 3)
    assert {:ok, %Options{model: "other", max_sequences: 3}} = Options.merge(present, model: "other")
    assert {:error, %{message: "max_sequences is 0" <> _rest}} = Options.merge(present, max_sequences: 0)
    assert {:error, %{message: "options are 5, expected a keyword list"}} = Options.merge(present, 5)
  end

  test "the native map has every key, and nil for what is not given" do
    {:ok, options} =
      Options.new(model: "folder", dtype: :bf16, tables: :host, kv_cache: {:fraction, 1}, name: Other)

    native = Options.to_native(options)

    assert %{model: "folder", dtype: "bf16", kv_cache: {:fraction, 1.0}, num_threads: nil, prefix_cache: true} =
             native

    assert %{vision_dtype: nil, tables: "host"} = native
    assert map_size(native) == 15
  end
end
