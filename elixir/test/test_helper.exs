# Distribution tests start nodes of their own; those that need it start it.
ExUnit.start(capture_log: true, exclude: if(System.get_env("PYREX_STRESS"), do: [], else: [:stress]))
