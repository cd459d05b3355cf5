"""How the agent is called: loading the target, binding its arguments, running its coroutines."""
