"""The subcommands of `polylect`, a module each; none imports another."""
