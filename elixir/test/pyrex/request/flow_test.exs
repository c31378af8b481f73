defmodule Pyrex.Request.FlowTest do
  use ExUnit.Case, async: true

  alias Pyrex.Request.Flow

  test "events move when both sides have spoken, in either order, once" do
    assert {:wait, told} = Flow.ready(%Flow{})
    assert {:take, {:a, 1}, rest} = Flow.demand(told, {:a, 1})
    assert rest == %Flow{}
    assert {:wait, asked} = Flow.demand(rest, {:a, 2})
    assert {:take, {:a, 2}, %Flow{}} = Flow.ready(asked)
  end

  test "whoever asks last is answered" do
    {:wait, flow} = Flow.demand(%Flow{}, {:a, 1})
    {:wait, flow} = Flow.demand(flow, {:b, 2})
    assert {:take, {:b, 2}, _flow} = Flow.ready(flow)
  end
end
