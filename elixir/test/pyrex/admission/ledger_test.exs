defmodule Pyrex.Admission.LedgerTest do
  use ExUnit.Case, async: true

  alias Pyrex.Admission.Ledger

  defp entry(caller, fields \\ []),
    do: Enum.into(fields, %{caller: caller, tenant: nil, group: nil, began_ms: 0})

  test "callers and tenants are counted apart and given back" do
    ledger = %Ledger{max_per_caller: 1, max_per_tenant: 2}
    {:ok, ledger} = Ledger.admit(ledger, :r1, entry(:a, tenant: "t"))
    assert {:error, message} = Ledger.admit(ledger, :r2, entry(:a))
    assert message == "the caller has 1 requests under way, expected at most 1 (max_per_caller)"
    {:ok, ledger} = Ledger.admit(ledger, :r2, entry(:b, tenant: "t"))
    assert {:error, message} = Ledger.admit(ledger, :r3, entry(:c, tenant: "t"))
    assert message == "the tenant has 2 requests under way, expected at most 2 (max_per_tenant)"
    {:ok, _ledger} = Ledger.admit(ledger, :r3, entry(:c, tenant: "other"))
    ledger = Ledger.release(ledger, :r1, 10)
    assert {:ok, _ledger} = Ledger.admit(ledger, :r3, entry(:a, tenant: "t"))
    ledger = ledger |> Ledger.release(:r2, 10) |> Ledger.release(:unknown, 10)
    assert {ledger.live, ledger.callers, ledger.tenants} == {%{}, %{}, %{}}
  end

  test "a random walk ends where it began" do
    :rand.seed(:exsss, {1, 2, 3})

    {ledger, live} =
      Enum.reduce(1..2000, {%Ledger{max_per_tenant: 20}, []}, fn n, {ledger, live} ->
        if :rand.uniform(2) == 1 do
          case Ledger.admit(ledger, n, entry(:rand.uniform(9), tenant: :rand.uniform(3))) do
            {:ok, ledger} -> {ledger, [n | live]}
            {:error, _full} -> {ledger, live}
          end
        else
          {gone, live} = Enum.split(Enum.shuffle(live), 1)
          {Enum.reduce(gone, ledger, &Ledger.release(&2, &1, 5)), live}
        end
      end)

    assert map_size(ledger.live) == length(live)
    assert Enum.sum(Map.values(ledger.tenants)) == length(live)
    ledger = Enum.reduce(live, ledger, &Ledger.release(&2, &1, 5))
    assert {ledger.live, ledger.callers, ledger.tenants} == {%{}, %{}, %{}}
  end

  test "a group knows its members, and the advice follows how long requests last" do
    {:ok, ledger} = Ledger.admit(%Ledger{}, :r1, entry(:a, group: :g))
    {:ok, ledger} = Ledger.admit(ledger, :r2, entry(:b, group: :h))
    assert Ledger.members(ledger, :g) == [:r1]
    assert Ledger.retry_after_ms(ledger) == 100
    assert ledger |> Ledger.release(:r1, 900) |> Ledger.retry_after_ms() == 200
  end
end
