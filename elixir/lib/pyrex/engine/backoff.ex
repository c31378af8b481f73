defmodule Pyrex.Engine.Backoff do
  @moduledoc false

  @doc """
  How long to wait before an engine is opened that failed so many times in a row.

      iex> for n <- 1..4, do: Pyrex.Engine.Backoff.delay_ms(n, 100, 500)
      [100, 200, 400, 500]
  """
  @spec delay_ms(pos_integer, non_neg_integer, non_neg_integer) :: non_neg_integer
  def delay_ms(num_failures, first_ms, most_ms), do: min(first_ms * 2 ** min(num_failures - 1, 32), most_ms)
end
