defmodule Pyrex.Admission.Ledger do
  @moduledoc false
  # Who has how many requests under way. Pure: `Pyrex.Admission` is the process around it.

  defstruct max_per_caller: nil, max_per_tenant: nil, live: %{}, callers: %{}, tenants: %{}, typical_ms: 100

  @type entry :: %{
          :caller => term,
          :tenant => term,
          :group => term,
          :began_ms => integer,
          optional(:ref) => reference | String.t()
        }
  @type t :: %__MODULE__{
          max_per_caller: nil | pos_integer,
          max_per_tenant: nil | pos_integer,
          live: %{optional(pid) => entry},
          callers: %{optional(term) => pos_integer},
          tenants: %{optional(term) => pos_integer},
          typical_ms: number
        }

  @doc "Counts one more request, or says which limit it would break."
  @spec admit(t, pid, entry) :: {:ok, t} | {:error, String.t()}
  def admit(ledger, request, %{caller: caller, tenant: tenant} = entry) do
    with :ok <-
           below(Map.get(ledger.callers, caller, 0), ledger.max_per_caller, "the caller", "max_per_caller"),
         :ok <- tenant(ledger, tenant),
         do: {:ok, count(ledger, request, entry)}
  end

  @doc "Counts a request that was admitted before."
  @spec count(t, pid, entry) :: t
  def count(ledger, request, entry) do
    %{
      ledger
      | live: Map.put(ledger.live, request, entry),
        callers: Map.update(ledger.callers, entry.caller, 1, &(&1 + 1)),
        tenants:
          if(is_nil(entry.tenant),
            do: ledger.tenants,
            else: Map.update(ledger.tenants, entry.tenant, 1, &(&1 + 1))
          )
    }
  end

  @doc "Forgets a request that ended at `now_ms`."
  @spec release(t, pid, integer) :: t
  def release(ledger, request, now_ms) do
    case Map.pop(ledger.live, request) do
      {nil, _live} ->
        ledger

      {entry, live} ->
        lasted_ms = max(now_ms - entry.began_ms, 0)

        %{
          ledger
          | live: live,
            callers: less(ledger.callers, entry.caller),
            tenants: less(ledger.tenants, entry.tenant),
            typical_ms: ledger.typical_ms + (lasted_ms - ledger.typical_ms) / 8
        }
    end
  end

  @doc "The requests of a group."
  @spec members(t, term) :: [pid]
  def members(ledger, group), do: for({request, %{group: ^group}} <- ledger.live, do: request)

  @doc "When it is worth asking again: about when one of those under way has ended."
  @spec retry_after_ms(t) :: pos_integer
  def retry_after_ms(ledger), do: ledger.typical_ms |> round() |> max(10) |> min(60_000)

  defp tenant(_ledger, nil), do: :ok

  defp tenant(ledger, tenant),
    do: below(Map.get(ledger.tenants, tenant, 0), ledger.max_per_tenant, "the tenant", "max_per_tenant")

  defp below(_found, nil, _who, _limit), do: :ok
  defp below(found, most, _who, _limit) when found < most, do: :ok

  defp below(found, most, who, limit),
    do: {:error, "#{who} has #{found} requests under way, expected at most #{most} (#{limit})"}

  defp less(counts, key) do
    case counts do
      %{^key => 1} -> Map.delete(counts, key)
      %{^key => count} -> %{counts | key => count - 1}
      %{} -> counts
    end
  end
end
