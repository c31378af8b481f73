defmodule Pyrex.ResultTest do
  use ExUnit.Case, async: true
  doctest Pyrex.Result
  doctest Pyrex.Error

  alias Pyrex.{Error, Result}

  defp draft(events), do: Enum.reduce(events, Result.draft(), &Result.add(&2, &1))

  test "several completions are kept apart, in order" do
    events = [
      {:started, [1, 2], 0},
      {:token, 1, 98, "b", nil, nil},
      {:token, 0, 97, "a", nil, nil},
      {:token, 1, 256, "", nil, :stop},
      {:token, 0, 99, "c", nil, :length},
      {:finished, :length, %{prompt_tokens: 2}, %{}}
    ]

    result = Result.new(draft(events))

    assert %{text: "ac", token_ids: [97, 99], finish_reason: :length, logprobs: nil, prompt_token_ids: [1, 2]} =
             result

    assert [_first, %{text: "b", token_ids: [98, 256], finish_reason: :stop}] = result.choices
    assert result.usage == %{prompt_tokens: 2}
  end

  test "an error keeps what there was" do
    error = Error.new(:closed, "gone")
    assert Result.partial(Result.draft(), error) == error

    assert %{partial: %Result{text: "a", finish_reason: nil}} =
             Result.partial(draft([{:token, 0, 97, "a", nil, nil}]), error)
  end

  test "an answer in JSON is decoded, or said to be cut off" do
    assert {:ok, %{object: %{"a" => 1}}} = Result.decode(%Result{text: ~S({"a": 1}), finish_reason: :stop})

    assert {:error, %{kind: :invalid_request, partial: %{text: "{"}}} =
             Result.decode(%Result{text: "{", finish_reason: :length})

    assert {:error, %{kind: :internal}} = Result.decode(%Result{text: "{", finish_reason: :stop})
  end
end
