"""Mix-MoE: experts cut from feed-forward networks, their routers and losses."""
