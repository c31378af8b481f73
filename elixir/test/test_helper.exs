# PYREX_SLOW=1 runs what takes minutes as well.
ExUnit.start(capture_log: true, exclude: if(System.get_env("PYREX_SLOW"), do: [], else: [:slow]))
