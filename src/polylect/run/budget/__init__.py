"""What a strategy costs, module by module, and the setting with which it costs so much."""
